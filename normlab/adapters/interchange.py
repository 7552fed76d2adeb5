"""Carries weights from one network to another that is built alike, whatever library wrote them.

A side (`TorchWeights`, `LinenWeights`, `NnxWeights`) lists a network's layers in the order of their
calls, and converts each array to a common form and back. `carry` pairs the layers of two sides and
moves the arrays. The common form has channels last: kernels `(..., in, out)`, and names of this
library.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from normlab.adapters import conventions
from normlab.adapters.common_forms import in_common
from normlab.adapters.pairing import Layers, pair
from normlab.adapters.units import Leaf, Unit
from normlab.errors import UserError


class Side(conventions.Conventional, Protocol):
    """A network's weights in one library's form.

    Attributes:
        traced: whether the order of its layers is that of a traced call, not one of definition.
    """

    traced: bool

    def units(self) -> list[Unit]:
        """Return its layers in order."""
        ...

    def mend(self) -> str:
        """Say how to find the order of its layers; empty if it is known."""
        ...

    def read(self, leaf: Leaf) -> np.ndarray:
        """Return an array in this side's form."""
        ...

    def write(self, arrays: list[tuple[Leaf, np.ndarray]]) -> Any:
        """Return this side's tree with these arrays, each in this side's form, in their places."""
        ...

    def remarks(self) -> list[str]:
        """List the assumptions behind the numbers, and the numbers without a counterpart."""
        ...


@dataclass(frozen=True)
class Carried:
    """Reports where each layer's arrays went.

    Attributes:
        pairs: name of each layer in the source -> in the target.
        rules: name of each layer in the source -> why it is that one.
        remarks: assumptions behind the numbers, and numbers without a counterpart.
    """

    pairs: dict[str, str]
    rules: dict[str, str]
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        width = max(map(len, self.pairs), default=0)
        lines = [
            f"{source:<{width}} -> {target}  ({self.rules[source]})"
            for source, target in self.pairs.items()
        ]
        return "\n".join(lines + self.remarks)


def carry(
    source: Side, target: Side, *, names: Mapping[str, str] | None = None
) -> tuple[Any, Carried]:
    """Return the source's arrays in the form, and under the names, of the target.

    Layers with a kernel are paired with layers with a kernel, normalisers with normalisers, and
    always by equal shape. If several layers have one shape, these are a pair, and the report says
    why:

    1. Layers that `names` pairs.
    2. Layers of equal names. `layer1.0.conv` of torch, `layer1/0/conv` of NNX and `layer1_0/conv`
       of linen are equal; a beginning that all names of a network share (`module`) does not count.
    3. Normalisers immediately after layers that are a pair.
    4. Layers of equal order. If a call is traced, it is the order of calls. In a state dict of
       torch it is the order of definition. For members of one list it is the order of their
       indices.

    An order is ignored if equal names contradict it, or if its own names contradict each other. If
    nothing tells several remaining layers apart, all of them are refused.

    Args:
        source: the side with the values.
        target: the side of the network that gets them.
        names: layers to pair in any case: name in the source -> name in the target.

    Returns:
        The variables or state dict of the target, and the report.

    Raises:
        UserError: a layer of either has no counterpart, an array of a layer has none, or nothing
            says which of several layers a layer is. Everything that does not fit is listed;
            nothing is dropped.

    See `normlab.adapters.torch_weights` for an example.
    """
    sides = (source, target)
    units = in_common(source.units(), target.units())
    ours, theirs = (
        Layers(u, side.traced, side.mend()) for u, side in zip(units, sides, strict=True)
    )
    pairs = pair(ours, theirs, dict(names or {}))
    order = {unit.name: place for place, unit in enumerate(ours.units)}
    pairs.sort(key=lambda found: order[found.one.name])
    arrays, wrong, remarks = [], [], []
    for one, other in ((found.one, found.other) for found in pairs):
        if alone := _needed(other, one) + _needed(one, other):
            wrong.append(f"{one} and {other}: {', '.join(alone)} is in one alone")
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
                arrays.append((leaf, _read(source, one.leaves[name])))
        remarks += [f"{unit.name}: {unit.remark}" for unit in (one, other) if unit.remark]
    if wrong:
        raise UserError("these layers do not fit:\n  " + "\n  ".join(wrong))
    report = Carried(
        {found.one.name: found.other.name for found in pairs},
        {found.one.name: found.rule for found in pairs},
        remarks + source.remarks() + target.remarks(),
    )
    written = target.write(_whole(arrays))
    named = list(report.pairs.items())
    report.remarks.extend(conventions.remarks(source, target, written, named))
    return written, report


def _needed(one: Unit, other: Unit) -> list[str]:
    """List the arrays of a layer that may not stay at their start, and that the other lacks."""
    return [n for n, leaf in one.leaves.items() if n not in other.leaves and not leaf.optional]


def _read(side: Side, leaf: Leaf) -> np.ndarray:
    """Return an array in the common form."""
    values = leaf.common(side.read(leaf))
    if leaf.part is None:
        return values
    which, count = leaf.part
    return np.split(values, count, axis=-1)[which]


def _whole(arrays: list[tuple[Leaf, np.ndarray]]) -> list[tuple[Leaf, np.ndarray]]:
    """Convert arrays from the common form to their side's, and join those that come in parts."""
    parts: dict[Any, dict[int, np.ndarray]] = defaultdict(dict)
    for leaf, values in arrays:
        parts[leaf.key][0 if leaf.part is None else leaf.part[0]] = values
    leaves = {leaf.key: leaf for leaf, _ in arrays}
    return [
        (leaf, leaf.own(np.concatenate([parts[key][i] for i in sorted(parts[key])], axis=-1)))
        if leaf.part is not None
        else (leaf, leaf.own(parts[key][0]))
        for key, leaf in leaves.items()
    ]
