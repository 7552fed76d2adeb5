"""Weights carried from one network to another that is built alike, whatever library wrote them.

A side (`TorchWeights`, `LinenWeights`, `NnxWeights`) says which layers a network has, in what order
it calls them, and how each array becomes a common form and back. `carry` pairs the layers of two
sides and moves the arrays. The common form has channels last: kernels `(..., in, out)`, and names
of this library.
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
        """Its layers in order."""
        ...

    def mend(self) -> str:
        """Say how the order of its layers becomes known, or nothing if it is."""
        ...

    def read(self, leaf: Leaf) -> np.ndarray:
        """An array, in this side's form."""
        ...

    def write(self, arrays: list[tuple[Leaf, np.ndarray]]) -> Any:
        """This side's tree with these arrays, each in this side's form, in their places."""
        ...

    def remarks(self) -> list[str]:
        """Say what the numbers assume, or what of them has no counterpart."""
        ...


@dataclass(frozen=True)
class Carried:
    """Reports where each layer's arrays went.

    Attributes:
        pairs: name of each layer in the source -> in the target.
        rules: name of each layer in the source -> why it is that one.
        remarks: what the numbers assume, and what has no counterpart.
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
    """The source's arrays in the form, and under the names, of the target.

    Layers that have a kernel are paired with such layers, normalisers with normalisers, and always
    by equal shape. Of several of one shape these are a pair, and the report says why:

    1. Those that `names` gives.
    2. Those of equal names. `layer1.0.conv` of torch, `layer1/0/conv` of NNX and `layer1_0/conv` of
       linen are equal; what all names of a network begin with (`module`) does not count.
    3. Normalisers that immediately follow layers which are a pair.
    4. Those of equal order. It is the order of calls, where a call is traced; that of definition in
       a state dict as torch makes it; or that of their indices, where all are members of one list.

    No order is believed that equal names contradict, or in which names contradict each other. Where
    several layers are left that nothing tells apart, all of them are refused.

    Args:
        source: with values.
        target: of the network that they are for.
        names: layers to be paired whatever else holds: name in the source -> in the target.

    Returns:
        What the target holds (variables, a state dict), and the report.

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


def _read(side: Side, leaf: Leaf) -> np.ndarray:
    """An array in the common form."""
    values = leaf.common(side.read(leaf))
    if leaf.part is None:
        return values
    which, count = leaf.part
    return np.split(values, count, axis=-1)[which]


def _whole(arrays: list[tuple[Leaf, np.ndarray]]) -> list[tuple[Leaf, np.ndarray]]:
    """Arrays of the common form in that of their side, those that come in parts put together."""
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
