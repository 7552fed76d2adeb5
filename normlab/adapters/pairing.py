"""Pairs the layers of two networks: by name first, then by shape and order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from normlab.adapters.units import Parts, Unit, common_names
from normlab.errors import UserError

TOLD = "as names says"
BY_NAME = "the names are equal"
ALONE = "no other is left of this shape"
BESIDE = "the layers before them are a pair"
IN_ORDER = "equal in shape; in the order of {} there, of {} here"


@dataclass(frozen=True)
class Pair:
    """A layer of the source, the target's layer that gets its arrays, and the reason."""

    one: Unit
    other: Unit
    rule: str


@dataclass(frozen=True)
class Layers:
    """The layers of one network.

    Attributes:
        units: the layers in their order, as far as it is known.
        traced: whether the order is that of a traced call; else it is one of definition.
        mend: how to find the order of calls, if it is unknown.
    """

    units: Sequence[Unit]
    traced: bool
    mend: str = ""

    def order(self, units: Sequence[Unit]) -> str:
        """Say whether the order of these layers is one of calls, of definition or of indices."""
        if any(unit.place is None for unit in units):
            return "indices"
        return "calls" if self.traced else "definition"

    def before(self) -> dict[str, str]:
        """Return for each normaliser the layer with a kernel immediately before it, by name."""
        return {
            unit.name: last.name
            for last, unit in zip(self.units, self.units[1:], strict=False)
            if (last.kind, unit.kind) == ("layer", "norm") and None not in (last.place, unit.place)
        }

    def ranks(self, units: Sequence[Unit]) -> dict[str, Any] | None:
        """Return for each of these layers a number that puts them in order, or None.

        The number is the place, or the index in a list (`blocks/2/conv` before `blocks/10/conv`).
        If an order of definition and the numbers in the names contradict each other, neither is
        used.
        """
        if any(unit.place is None for unit in units):
            in_a_list = not self.traced and len({unit.list for unit in units}) == 1
            return {unit.name: unit.numbers for unit in units} if in_a_list else None
        places: dict[str, Any] = {unit.name: unit.place for unit in units}
        if not self.traced and any(
            one.words == other.words
            and (one.numbers < other.numbers) != (places[one.name] < places[other.name])
            for one, other in combinations(units, 2)
        ):
            return None
        return places


@dataclass
class _Queue:
    """The layers of one form on both sides: the pairs by name, and the others."""

    named: list[Pair] = field(default_factory=list)
    left: tuple[list[Unit], list[Unit]] = field(default_factory=lambda: ([], []))


def pair(source: Layers, target: Layers, names: Mapping[str, str]) -> list[Pair]:
    """Pair every layer of the source with one of the target.

    See `normlab.adapters.interchange.carry` for the rules.

    Raises:
        UserError: a name fits no layer, a layer has no counterpart, or it has several and nothing
            tells which is right.
    """
    told = _told(source.units, target.units, names)
    queues = _queues(source.units, target.units, told)
    believed = not any(_contradict(q.named, _places(q.named)) for q in queues.values())
    pairs = told + [one for queue in queues.values() for one in queue.named]
    without, doubts = [], []
    for form in sorted(queues, key=lambda form: form[0] != "layer"):  # norms go with their layers
        queue = queues[form]
        ones, others = queue.left
        if len(ones) == len(others):
            found = _rest(source, target, queue, pairs, believed)
            doubts += [queue] if found is None else []
            pairs += found or []
            continue
        matched = min(len(ones), len(others))
        without += [f"source: {unit}" for unit in ones[matched:]]
        without += [f"target: {unit}" for unit in others[matched:]]
    if without:
        raise UserError(
            "these layers have no counterpart of their kind and shape:\n  "
            + "\n  ".join(without)
            + "\ngive a network that is built alike, or pair layers by names={source: target}"
        )
    if doubts:
        raise UserError(_doubt(source, target, doubts))
    return pairs


def _told(ours: Sequence[Unit], theirs: Sequence[Unit], names: Mapping[str, str]) -> list[Pair]:
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
            if given.count(name) > 1:
                raise UserError(f"names: {name} of the {which} is given twice; a pair has one each")
    return [Pair(by_name[0][one], by_name[1][other], TOLD) for one, other in names.items()]


def _queues(
    ours: Sequence[Unit], theirs: Sequence[Unit], told: list[Pair]
) -> dict[tuple[Any, ...], _Queue]:
    gone = {p.one.name for p in told}, {p.other.name for p in told}
    free = [
        [unit for unit in units if unit.name not in without]
        for units, without in zip((ours, theirs), gone, strict=True)
    ]
    called = [
        _unique(units, common_names(whole))
        for units, whole in zip(free, (ours, theirs), strict=True)
    ]
    queues: dict[tuple[Any, ...], _Queue] = defaultdict(_Queue)
    named = [Pair(called[0][key], called[1][key], BY_NAME) for key in called[0] if key in called[1]]
    for one in named:
        queues[one.one.form].named.append(one)
    paired = {p.one.name for p in named}, {p.other.name for p in named}
    for which in (0, 1):
        for unit in free[which]:
            if unit.name not in paired[which]:
                queues[unit.form].left[which].append(unit)
    return queues


def _unique(units: Iterable[Unit], names: Mapping[str, Parts]) -> dict[Any, Unit]:
    """Index the layers by form and common name, without layers that share both."""
    found = defaultdict(list)
    for unit in units:
        if not all(part.isdigit() for part in names[unit.name]):  # an index alone is no name
            found[unit.form, names[unit.name]].append(unit)
    return {key: units[0] for key, units in found.items() if len(units) == 1}


def _rest(
    source: Layers, target: Layers, queue: _Queue, pairs: list[Pair], believed: bool
) -> list[Pair] | None:
    """Pair the layers of a queue that names left; None if nothing tells them apart.

    Args:
        source, target: the two networks, for their order.
        queue: the layers; equally many are left on both sides.
        pairs: the pairs made so far.
        believed: whether an order may pair layers.
    """
    ones, others = queue.left
    named = queue.named
    if not ones:
        made_by_linen = source.traced and target.traced and any(_automatic(p) for p in named)
        return None if made_by_linen and _contradict(named, _places(named)) else []
    numbered = {p.one.words for p in named} & {u.words for u in ones} or (
        {p.other.words for p in named} & {u.words for u in others}
    )
    if len(ones) == 1 and not numbered and not any(map(_automatic, named)):
        return [Pair(ones[0], others[0], ALONE)]
    if beside := _beside(source, target, queue, pairs):
        return beside
    sides = ((source, ones, [p.one for p in named]), (target, others, [p.other for p in named]))
    here, there = (
        layers.ranks([*left, *known]) or layers.ranks(left) for layers, left, known in sides
    )
    if not believed or here is None or there is None:
        return None
    ones = sorted(ones, key=lambda unit: here[unit.name])
    others = sorted(others, key=lambda unit: there[unit.name])
    rule = IN_ORDER.format(source.order(ones), target.order(others))
    found = [Pair(one, other, rule) for one, other in zip(ones, others, strict=True)]
    comparable = [p for p in named if p.one.name in here and p.other.name in there]
    at = {id(p): (here[p.one.name], there[p.other.name]) for p in found + comparable}
    return None if _contradict(found + comparable, at) else found


def _automatic(one: Pair) -> bool:
    return one.one.automatic or one.other.automatic


def _places(pairs: list[Pair]) -> dict[int, tuple[Any, Any]]:
    return {id(p): (p.one.place, p.other.place) for p in pairs}


def _contradict(pairs: list[Pair], at: Mapping[int, tuple[Any, Any]]) -> bool:
    """Return whether two pairs have one order in the source and the other in the target."""
    known = [at[id(p)] for p in pairs if None not in at[id(p)]]
    return any((a[0] < b[0]) != (a[1] < b[1]) for a, b in combinations(known, 2))


def _beside(source: Layers, target: Layers, queue: _Queue, pairs: list[Pair]) -> list[Pair]:
    """Pair normalisers like the layers before them; none at all if one has no such partner."""
    before, behind = source.before(), {layer: norm for norm, layer in target.before().items()}
    to = {p.one.name: p.other.name for p in pairs}
    others = {unit.name: unit for unit in queue.left[1]}
    found = []
    for one in queue.left[0]:
        name = behind.get(to.get(before.get(one.name, ""), ""), "")
        if name not in others:
            return []
        found.append(Pair(one, others.pop(name), BESIDE))
    return found


def _doubt(source: Layers, target: Layers, doubts: list[_Queue]) -> str:
    lines, example = [], {}
    for queue in doubts:
        ones = [p.one for p in queue.named] + queue.left[0]
        others = [p.other for p in queue.named] + queue.left[1]
        lines.append(f"source: {_listed(ones)}; target: {_listed(others)}")
        example |= {one.name: "..." for one in ones}
    given = ", ".join(f"{name!r}: ..." for name in list(example)[:2])
    mends = [mend for mend in (source.mend, target.mend) if mend]
    return (
        "these layers are equal in shape, and neither their names nor the known order of calls "
        "tells them apart:\n  "
        + "\n  ".join(lines)
        + f"\npair them by names={{{given}}}, with the target's names for the dots"
        + "".join(f"; or {mend}" for mend in mends)
    )


def _listed(units: list[Unit]) -> str:
    return ", ".join(unit.name or "(the network itself)" for unit in units)
