"""Describes a network's layers for `carry`, whatever library wrote them, as `Unit` values."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["layer", "norm", "parameter"]
Convert = Callable[[np.ndarray], np.ndarray]
Parts = tuple[str, ...]


def unchanged(values: np.ndarray) -> np.ndarray:
    """Return an array as it is, for one that both sides write alike."""
    return values


def as_scale(normaliser: Any, name: str) -> tuple[Convert, Convert]:
    """Convert a leaf of a normaliser to the common form and back: a scale kept less one is whole.

    >>> from normlab.norms import LayerNorm
    >>> there, back = as_scale(LayerNorm(zero_centred=True), "scale")
    >>> there(np.zeros(1)).tolist(), back(np.ones(1)).tolist()
    ([1.0], [0.0])
    """
    if name == "scale" and getattr(normaliser, "zero_centred", False):
        return (lambda values: values + 1), (lambda values: values - 1)
    return unchanged, unchanged


@dataclass(frozen=True)
class Leaf:
    """One array of a layer.

    Attributes:
        key: its key on its side.
        shape: its shape in the common form.
        common: the conversion from its side's form to the common one.
        own: the conversion back.
        optional: whether it may stay at its start, as a statistic that evaluation does not use.
        part: `(i, n)` if the leaf is part i, counted from 0, of n equal parts of the array at
            `key`, along the last axis of the common form; None for the whole array. `common` and
            `own` convert the whole.
    """

    key: Any
    shape: tuple[int, ...]
    common: Convert = unchanged
    own: Convert = unchanged
    optional: bool = False
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class Unit:
    """A layer: its name, its arrays by their common names, and a remark for the report.

    Attributes:
        name: its name, as its side writes it.
        kind: a layer with a kernel, a normaliser, or a parameter outside all layers, such as a
            class token.
        leaves: its arrays by name, a normaliser's statistics among them.
        remark: a remark for the report.
        place: its number in the order of calls; None if that is unknown.
    """

    name: str
    kind: Kind
    leaves: Mapping[str, Leaf]
    remark: str = ""
    place: float | None = None

    @property
    def form(self) -> tuple[Any, ...]:
        """Return the kind and shape that two layers must share to be paired."""
        if "kernel" in self.leaves:
            shape = self.leaves["kernel"].shape
        else:
            shape = next(iter(self.leaves.values())).shape
        return self.kind, shape

    @property
    def automatic(self) -> bool:
        """Return whether linen made a part of the name; it tells only the order of making."""
        return any(AUTOMATIC.fullmatch(part) for part in re.split("[./]", self.name))

    @property
    def words(self) -> str:
        """Return the name with a `#` for each number, so that numbered layers are alike."""
        return re.sub(r"\d+", "#", self.name)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the numbers in the name."""
        return tuple(map(int, re.findall(r"\d+", self.name)))

    @property
    def list(self) -> Parts:
        """Return the name with a `#` for each index, so that members of one list are alike."""
        return tuple("#" if part.isdigit() else part for part in re.split("[./]", self.name))

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{n} {leaf.shape}' for n, leaf in self.leaves.items())})"


FREE = "value"
"""Name of the one leaf of a free parameter."""


def free_parameter(name: str, leaf: Leaf) -> Unit:
    """Describe a parameter outside all layers."""
    return Unit(name, "parameter", {FREE: leaf})


AUTOMATIC = re.compile(r"[A-Z]\w*_\d+")


def common_names(units: Sequence[Unit]) -> dict[str, Parts]:
    """Return each layer's name in a form that is the same for all libraries.

    `layer1.0.conv` of torch, `layer1/0/conv` of NNX and `layer1_0/conv` of linen are one name. It
    consists of the parts between dots and slashes; a number at a part's end is a part of its own if
    a `_` comes before it. A beginning that all names of a network share (`module`, `backbone`) is
    left out, unless numbers alone would be left.

    >>> common_names([Unit("module.fc", "layer", {}), Unit("module.blocks_0/conv1", "layer", {})])
    {'module.fc': ('fc',), 'module.blocks_0/conv1': ('blocks', '0', 'conv1')}
    """
    names = {unit.name: _parts(unit.name) for unit in units}
    while len(names) > 1 and len({parts[0] for parts in names.values()}) == 1:
        if not all(len(parts) > 1 and not parts[1].isdigit() for parts in names.values()):
            break
        names = {name: parts[1:] for name, parts in names.items()}
    return names


def _parts(name: str) -> Parts:
    pieces = (re.fullmatch(r"(.*\D)_(\d+)", part) or part for part in re.split("[./]", name))
    return tuple(
        part
        for piece in pieces
        for part in ((piece,) if isinstance(piece, str) else piece.groups())
    )
