"""Weights carried from one network to another that is built alike, whatever library wrote them.

A side (`TorchWeights`, `LinenWeights`, `NnxWeights`) says which layers a network has, in order, and
how each array becomes a common form and back. `carry` pairs the layers of two sides and moves the
arrays. The common form has channels last: kernels `(..., in, out)`, and names of this
library.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from normlab.errors import UserError

Kind = Literal["layer", "norm", "other"]
Convert = Callable[[np.ndarray], np.ndarray]


def unchanged(values: np.ndarray) -> np.ndarray:
    """For an array that both sides write alike."""
    return values


@dataclass(frozen=True)
class Leaf:
    """One array of a layer.

    Attributes:
        key: where its side keeps it.
        shape: in the common form.
        common: from its side's form to the common one.
        own: back.
        optional: what stays at its start is no loss (a statistic that evaluation does not use).
    """

    key: Any
    shape: tuple[int, ...]
    common: Convert = unchanged
    own: Convert = unchanged
    optional: bool = False


@dataclass(frozen=True)
class Unit:
    """A layer: its name, its arrays by their common names, and what is to be said of it."""

    name: str
    kind: Kind
    leaves: Mapping[str, Leaf]
    remark: str = ""

    @property
    def form(self) -> tuple[Any, ...]:
        """What two layers have in common that can be paired."""
        if "kernel" in self.leaves:
            shape = self.leaves["kernel"].shape
        else:
            shape = next(iter(self.leaves.values())).shape
        return self.kind, shape

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{n} {leaf.shape}' for n, leaf in self.leaves.items())})"


class Side(Protocol):
    """A network's weights in one library's form."""

    def units(self) -> list[Unit]:
        """Its layers in order."""
        ...

    def read(self, leaf: Leaf) -> np.ndarray:
        """An array, in this side's form."""
        ...

    def write(self, arrays: list[tuple[Leaf, np.ndarray]]) -> Any:
        """This side's tree with these arrays, each in this side's form, in their places."""
        ...

    def remarks(self) -> list[str]:
        """What the numbers assume, or what of them has no counterpart."""
        ...


@dataclass(frozen=True)
class Carried:
    """Where each layer's arrays went.

    Attributes:
        pairs: name of each layer in the source -> in the target.
        remarks: what the numbers assume, and what has no counterpart.
    """

    pairs: dict[str, str]
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        width = max(map(len, self.pairs), default=0)
        lines = [f"{source:<{width}} -> {target}" for source, target in self.pairs.items()]
        return "\n".join(lines + self.remarks)


def carry(
    source: Side, target: Side, *, names: Mapping[str, str] | None = None
) -> tuple[Any, Carried]:
    """The source's arrays in the form, and under the names, of the target.

    Layers are paired in their order among those of one kind (with a kernel, or not) and shape, so
    two shortcuts that are written in another place do not matter, and two layers of one shape that
    are in another order do: read the report, and give `names` where it errs.

    Args:
        source: with values.
        target: of the network that they are for.
        names: layers to be paired whatever their order: name in the source -> in the target.

    Returns:
        What the target holds (variables, a state dict), and the report.

    Raises:
        UserError: a layer of either has no counterpart, or an array of a layer has none. Everything
            that does not fit is listed; nothing is dropped.

    See `normlab.adapters.torch_weights` for an example.
    """
    ours, theirs = source.units(), target.units()
    pairs = _paired(ours, theirs, dict(names or {}))
    order = {unit.name: place for place, unit in enumerate(ours)}
    pairs.sort(key=lambda pair: order[pair[0].name])
    arrays, wrong, remarks = [], [], []
    for one, other in pairs:
        missing = [
            name
            for name, leaf in other.leaves.items()
            if name not in one.leaves and not leaf.optional
        ]
        extra = [
            name
            for name, leaf in one.leaves.items()
            if name not in other.leaves and not leaf.optional
        ]
        if missing or extra:
            wrong.append(f"{one} and {other}: {', '.join(missing + extra)} is in one alone")
            continue
        remarks += [
            f"{one.name}: {name} has no place in the target"
            for name in one.leaves
            if name not in other.leaves
        ]
        for name, leaf in other.leaves.items():
            if name not in one.leaves:
                remarks.append(f"{other.name}: {name} is not in the source and stays at its start")
            elif leaf.shape != one.leaves[name].shape:
                wrong.append(f"{one} and {other}: {name} has another shape")
            else:
                found = one.leaves[name]
                arrays.append((leaf, leaf.own(found.common(source.read(found)))))
        remarks += [f"{unit.name}: {unit.remark}" for unit in (one, other) if unit.remark]
    if wrong:
        raise UserError("these layers do not fit:\n  " + "\n  ".join(wrong))
    report = Carried(
        {one.name: other.name for one, other in pairs},
        remarks + source.remarks() + target.remarks(),
    )
    return target.write(arrays), report


def _paired(ours: list[Unit], theirs: list[Unit], names: dict[str, str]) -> list[tuple[Unit, Unit]]:
    by_name = [{unit.name: unit for unit in units} for units in (ours, theirs)]
    for which, given, known in (
        ("source", list(names), by_name[0]),
        ("target", list(names.values()), by_name[1]),
    ):
        for name in given:
            if name not in known:
                raise UserError(
                    f"names: the {which} has no layer {name}; it has {', '.join(known)}"
                )
    pairs = [(by_name[0][one], by_name[1][other]) for one, other in names.items()]
    queues: dict[tuple[Any, ...], tuple[list[Unit], list[Unit]]] = defaultdict(lambda: ([], []))
    taken = set(names), set(names.values())
    for which, units in enumerate((ours, theirs)):
        for unit in units:
            if unit.name not in taken[which]:
                queues[unit.form][which].append(unit)
    left: tuple[list[Unit], list[Unit]] = ([], [])
    for one, other in queues.values():
        pairs += zip(one, other, strict=False)
        left[0].extend(one[len(other) :])
        left[1].extend(other[len(one) :])
    if left[0] or left[1]:
        lines = [f"source: {unit}" for unit in left[0]] + [f"target: {unit}" for unit in left[1]]
        raise UserError(
            "these layers have no counterpart of their kind and shape:\n  "
            + "\n  ".join(lines)
            + "\ngive a network that is built alike, or pair layers by names={source: target}"
        )
    return pairs
