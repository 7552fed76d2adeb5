"""Brings layers that two libraries write in different forms to the same form.

Attention may have one layer for queries, keys and values, or three. A convolution of one pixel is a
dense layer. A free parameter, such as a class token, may have axes of length one.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from normlab.adapters.units import Leaf, Unit

TRIPLES = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("q", "k", "v"),
)
"""Names of the layers of an attention that has three."""

PACKED = ("qkv", "qkv_proj", "in_proj", "to_qkv", "c_attn", "Wqkv")
"""Names of the one layer that holds all three."""


def in_common(ours: Sequence[Unit], theirs: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Return the layers of two networks in the same forms, where there is a common form.

    A side changes only where the other has another form.
    """
    apart = _unpacked(ours, theirs), _unpacked(theirs, ours)
    return _without_ones(*apart)


def _unpacked(units: Sequence[Unit], others: Sequence[Unit]) -> list[Unit]:
    """Split each packed layer of an attention into three, if the other network has three."""
    triples = Counter(_triples(others).values())
    packed = [unit for unit in units if _last(unit.name) in PACKED and _third(unit) in triples]
    if not packed or triples != Counter(_third(unit) for unit in packed):
        return list(units)
    names = next(names for names in TRIPLES if any(_last(o.name) == names[0] for o in others))
    return [part for unit in units for part in (_split(unit, names) if unit in packed else [unit])]


def _triples(units: Sequence[Unit]) -> dict[str, tuple[int, ...]]:
    """Find each attention of three layers, by name, and the shape of one of its kernels."""
    members: dict[tuple[str, int], dict[str, Unit]] = defaultdict(dict)
    for unit in units:
        for which, names in enumerate(TRIPLES):
            if _last(unit.name) in names and "kernel" in unit.leaves:
                members[unit.name[: -len(_last(unit.name))], which][_last(unit.name)] = unit
    return {
        holder: found[TRIPLES[which][0]].leaves["kernel"].shape
        for (holder, which), found in members.items()
        if len(found) == 3 and len({unit.form for unit in found.values()}) == 1
    }


def _third(unit: Unit) -> tuple[int, ...]:
    """Return the shape of a third of a layer's kernel; empty if it has no third."""
    shape = unit.leaves["kernel"].shape if "kernel" in unit.leaves else (1,)
    return (*shape[:-1], shape[-1] // 3) if shape[-1] % 3 == 0 else ()


def _split(unit: Unit, names: tuple[str, ...]) -> list[Unit]:
    holder = unit.name[: -len(_last(unit.name))]
    return [
        replace(
            unit,
            name=f"{holder}{name}",
            leaves={key: _part(leaf, which) for key, leaf in unit.leaves.items()},
            place=None if unit.place is None else unit.place + which / 3,
        )
        for which, name in enumerate(names)
    ]


def _part(leaf: Leaf, which: int) -> Leaf:
    return replace(leaf, shape=(*leaf.shape[:-1], leaf.shape[-1] // 3), part=(which, 3))


def _without_ones(ours: list[Unit], theirs: list[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Drop the axes of length one on both sides, in the forms that one side has more of."""
    counts = [Counter(unit.form for unit in units) for units in (ours, theirs)]
    uneven = {form for form in counts[0] | counts[1] if counts[0][form] != counts[1][form]}
    bare = {(form[0], _bare(form[1])) for form in uneven}

    def changed(unit: Unit) -> Unit:
        main = "kernel" if "kernel" in unit.leaves else next(iter(unit.leaves))
        shape = unit.leaves[main].shape
        if (unit.kind, _bare(shape)) not in bare or unit.kind not in ("layer", "parameter"):
            return unit
        return replace(unit, leaves={**unit.leaves, main: _squeezed(unit.leaves[main])})

    return [changed(unit) for unit in ours], [changed(unit) for unit in theirs]


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop the axes of length one from a shape, except the two of a kernel itself."""
    return tuple(size for size in shape if size != 1)


def _squeezed(leaf: Leaf) -> Leaf:
    shape = _bare(leaf.shape)

    def common(values: np.ndarray) -> np.ndarray:
        return leaf.common(values).reshape(shape)

    def own(values: np.ndarray) -> np.ndarray:
        return leaf.own(values.reshape(leaf.shape))

    return replace(leaf, shape=shape, common=common, own=own)


def _last(name: str) -> str:
    return name.replace("/", ".").rpartition(".")[2]
