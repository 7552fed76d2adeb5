"""Compares a run with the same run made again, and lists every value in which they differ."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from normlab.evidence.caveats import flat
from normlab.reports.thinning import evenly_spaced
from normlab.store.flags import recorded
from normlab.store.published import rounded
from normlab.store.record import Record

ROUNDING = 1e-5
"""The relative tolerance: one in the sixth digit, which is the last that is published."""
TOLERANCE = 1e-3
"""The tolerance on another kind of machine, absolute below 1 and relative above.

`configs/moments.yaml` was run with jax 0.12.0 instead of 0.10.2 (seed 0, 200 steps): dense networks
were within 5e-6, and accuracies were equal. Training a convnet amplifies last digits: its
accuracies moved by up to 0.076. The comparison says so, and a wider tolerance can be stated."""

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
STATUS, ENDS = ("state", "steps", "parameters"), ("step", "diverged")
DATA = ("name", "fingerprint", "classes", "train_examples", "test_examples")

Difference = tuple[str, Any, Any]
"""The place of a difference, the published value and the rerun's."""
Found = Iterator[Difference]


def pair(old: Record, new: Record, tolerance: float) -> tuple[bool, list[Difference]]:
    """Say whether two runs were made on the same kind of machine, and list what differs.

    Args:
        old: the run as published, or as it is elsewhere.
        new: the run as rerun, with the same arm, axes and seed.
        tolerance: the tolerance for values from different kinds of machine; from the same kind
            they may differ in the sixth digit.
    """
    alike = all(same_kind(a, b) for a in old.provenance for b in new.provenance)
    tolerance = 0.0 if alike else tolerance
    found = [
        *_unlike("", rounded(old.status), rounded(new.status), STATUS + ENDS * alike),
        *_unlike("config ", flat(old.config), flat(new.config)),
        *_unlike("data ", _last(old, "data"), _last(new, "data"), DATA),
        *_unlike("source of ", _last(old, "own_code"), _last(new, "own_code")),
        *_rows(old, new, tolerance),
        *_probes(old, new, tolerance),
    ]
    return alike, found


def same_kind(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether processor, devices, cores, libraries and flags are the same, as far as recorded."""
    same = all(
        a.get(key) == b.get(key) for key in ("devices", "cores", "processor", "machine_kind")
        if key in a and key in b
    )  # fmt: skip
    versions = all(a["versions"].get(name) == b["versions"].get(name) for name in LIBRARIES)
    flags, others = recorded(a), recorded(b)
    return (
        same and versions and all(flags[name] == others[name] for name in flags if name in others)
    )


def values_agree(a: Any, b: Any, tolerance: float) -> bool:
    """Return whether two values are the same, or numbers within the tolerance; lists by element.

    A value that is not finite is null once it is published, so it agrees only with such a value.

    >>> values_agree(0.123456, 0.123457, 0.0), values_agree([0.5, None], [0.51, None], 1e-3)
    (True, False)
    >>> values_agree(float("nan"), 0.5, 1.0), values_agree(float("inf"), 1e9, 1.0)
    (False, False)
    """
    a, b = rounded(a), rounded(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(values_agree, a, b, [tolerance] * len(a)))
    if isinstance(a, int | float) and isinstance(b, int | float):
        largest = max(abs(a), abs(b))
        return abs(a - b) <= max(ROUNDING * largest, tolerance * max(1.0, largest))
    return a == b


def _last(record: Record, key: str) -> dict[str, Any]:
    return record.provenance[-1].get(key) or {} if record.provenance else {}


def _unlike(
    where: str, old: dict[str, Any], new: dict[str, Any], keys: Iterable[str] | None = None
) -> Found:
    for key in dict.fromkeys([*old, *new]) if keys is None else keys:
        if json.dumps(old.get(key)) != json.dumps(new.get(key)):
            yield f"{where}{key}", old.get(key), new.get(key)


def _rows(old: Record, new: Record, tolerance: float) -> Found:
    """Compare metrics without seconds: the first step at which each differs, and how many."""
    before, now = ({row["step"]: row for row in record.metrics} for record in (old, new))
    yield from _steps(old, new)
    steps = [step for step in before if step in now]
    names = dict.fromkeys(name for row in (*before.values(), *now.values()) for name in row)
    for name in names:
        if name.endswith("seconds"):
            continue
        unlike = [
            s for s in steps if not values_agree(before[s].get(name), now[s].get(name), tolerance)
        ]
        if unlike:
            more = f" and {len(unlike) - 1} more of {len(steps)}" if len(unlike) > 1 else ""
            first = unlike[0]
            yield f"{name} at step {first}{more}", before[first].get(name), now[first].get(name)


def _only_first_is_whole(one: Record, other: Record) -> bool:
    return other.published and not one.published


def _steps(old: Record, new: Record) -> Found:
    """List evaluations that one of them lacks; long curves are published in part."""
    before, now = ([row["step"] for row in record.metrics] for record in (old, new))
    kept = evenly_spaced(before) if _only_first_is_whole(old, new) else before
    expected = evenly_spaced(now) if _only_first_is_whole(new, old) else now
    for lacking, told in (
        ([step for step in kept if step not in now], ("there", "missing")),
        ([step for step in expected if step not in before], ("missing", "there")),
    ):
        if lacking:
            yield f"evaluation at step {', '.join(map(str, lacking))}", told[0], told[1]


def _probes(old: Record, new: Record, tolerance: float) -> Found:
    before, now = (
        {f"{r['probe']}.{r.get('quantity', 'error')} at step {r['step']}": r for r in record.probes}
        for record in (old, new)
    )
    # A run's own folder has more of them than what was published of it.
    places = {} if _only_first_is_whole(old, new) else before
    others = {} if _only_first_is_whole(new, old) else now
    for place in dict.fromkeys([*places, *others]):
        one, other = (rows.get(place, {}) for rows in (before, now))
        if one.get("layers") != other.get("layers"):
            yield f"layers of {place}", one.get("layers"), other.get("layers")
        elif not values_agree(one.get("values"), other.get("values"), tolerance):
            yield place, one.get("values"), other.get("values")
