"""Shows how two runs, or two experiments, differ, for `normlab runs diff`."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from normlab.configs.document import flow
from normlab.errors import UserError
from normlab.evidence.contrasts import contrast
from normlab.evidence.samples import sample
from normlab.interface.runs_show import number
from normlab.measures.measures import METRICS, Measure
from normlab.reports.english import interval
from normlab.reports.text_columns import columns
from normlab.store.loading import load
from normlab.store.record import Record
from normlab.store.run import Run
from normlab.store.runs import Runs
from normlab.store.seeds import seed_text

ABSENT = "(absent)"
COMPARED = (
    "versions", "git", "own_code", "devices", "platform", "machine_kind", "cores", "environment",
    "flags", "set_by_normlab", "data"
)  # fmt: skip
"""The parts of a run's provenance that may change its numbers. The time, the command and the name
of the host do not."""


def diff(first: Path, second: Path) -> str:
    """Say how two runs differ, or two experiments.

    Raises:
        UserError: a folder is neither, one is a run and the other an experiment, or files were
            changed.
    """
    a, b = load(first), load(second)
    if isinstance(a, Run) and isinstance(b, Run):
        lines = _diff_runs(a, b)
    elif isinstance(a, Runs) and isinstance(b, Runs):
        lines = _diff_experiments(a, b)
    else:
        run, other = (first, second) if isinstance(a, Run) else (second, first)
        raise UserError(f"{run} is a run and {other} an experiment; give two of a kind")
    return "\n".join([f"A: {first}", f"B: {second}", *lines])


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Make nested mappings one, with dotted keys; lists stay as they are.

    >>> flatten({"norm": {"name": "group_norm", "groups": 8}, "seed": 0})
    {'norm.name': 'group_norm', 'norm.groups': 8, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _diff_runs(a: Run, b: Run) -> list[str]:
    lines = _section("config", _differing(flatten(a.config), flatten(b.config), flow))
    proofs = _made_with(a), _made_with(b)
    lines += _section("provenance", _differing(*proofs, show=" and ".join))
    rows = a.metrics, b.metrics
    last = [row[-1] if row else {} for row in rows]
    if any(last):
        lines += ["", "last metrics:", *_side_by_side(*last)]
    return [*lines, "", *_first_difference(*rows)]


def _differing(a: dict[str, Any], b: dict[str, Any], show: Callable[[Any], str]) -> list[list[str]]:
    """List key and both values, where they are not the same."""
    rows = []
    for key in dict.fromkeys([*a, *b]):
        shown = [show(found[key]) if key in found else ABSENT for found in (a, b)]
        if shown[0] != shown[1]:
            rows.append([key, *shown])
    return rows


def _section(heading: str, rows: list[list[str]]) -> list[str]:
    if not rows:
        return ["", f"{heading}: the same"]
    return ["", f"{heading}:", *columns([["", "A", "B"], *rows], indent="  ")]


def _made_with(run: Run) -> dict[str, list[str]]:
    """Give by dotted key every value that it had, each time the run was worked on."""
    found: dict[str, list[str]] = {}
    for proof in run.provenance:
        for key, value in flatten({name: proof.get(name) for name in COMPARED}).items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            values = found.setdefault(key, [])
            if shown not in values:
                values.append(shown)
    return found


def _side_by_side(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    rows = [["", "A", "B", "B - A"]]
    for key in dict.fromkeys([*a, *b]):
        both = key in a and key in b
        less = number(b[key] - a[key]) if both and b[key] != a[key] else ""
        rows.append([key, *(number(row[key]) if key in row else "" for row in (a, b)), less])
    return columns(rows, indent="  ")


def _first_difference(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[str]:
    """Find the first evaluation of both whose metrics, times apart, are not the same."""
    others = {row["step"]: row for row in b}
    common = [(row, others[row["step"]]) for row in a if row["step"] in others]
    if not common:
        return ["no step was evaluated in both"]
    for ours, theirs in common:
        keys = [key for key in ours if key in theirs and not key.endswith("seconds")]
        unlike = [key for key in keys if not _same(ours[key], theirs[key])]
        if unlike:
            # Every digit: runs may differ in the last one alone.
            values = [[key, repr(ours[key]), repr(theirs[key])] for key in unlike]
            return [f"metrics first differ at step {ours['step']}:", *columns(values, indent="  ")]
    count, last = len(common), common[-1][0]["step"]
    evaluations = f"the one evaluation of both, at step {last}"
    if count > 1:
        evaluations = f"all {count} evaluations of both, to step {last}"
    return [f"metrics are the same, to the last digit, in {evaluations}"]


def _same(a: Any, b: Any) -> bool:
    floats = isinstance(a, float) and isinstance(b, float)
    return a == b or (floats and math.isnan(a) and math.isnan(b))


def _diff_experiments(a: Runs, b: Runs) -> list[str]:
    lines = []
    of_a, of_b = _seeds(a), _seeds(b)
    for name, own, other in (("A", of_a, of_b), ("B", of_b, of_a)):
        only = [
            f"{arm} (seed{'' if len(left) == 1 else 's'} {', '.join(map(seed_text, left))})"
            for arm, seeds in own.items()
            if (left := [seed for seed in seeds if seed not in other.get(arm, [])])
        ]
        lines += ["", f"only in {name}: {'; '.join(only) or 'nothing'}"]
    for arm in [arm for arm in of_a if arm in of_b]:
        ours, theirs = (_config_of(runs.runs, arm) for runs in (a, b))
        if ours is None or theirs is None:
            where = [name for name, config in (("A", ours), ("B", theirs)) if config is None]
            lines += ["", f"{arm}: no run of it has been begun in {' and '.join(where)}"]
        else:
            lines += _section(f"{arm}: config", _differing(ours, theirs, show=flow))
    return [*lines, *_metrics(a, b)]


def _metrics(a: Runs, b: Runs) -> list[str]:
    """Compare the metrics at the end of the runs of each arm, and the arms that one lacks too."""
    ours, theirs = _by_arm(a), _by_arm(b)
    lines: list[str] = []
    for metric in _shared_metrics([*ours.values(), *theirs.values()]):
        measure = Measure("final", (metric,))
        rows = [["arm", "n", "A", "n", "B", "B - A", "its 95% interval"]]
        for arm in dict.fromkeys([*ours, *theirs]):
            one, other = (sample(arm, own.get(arm, []), measure) for own in (ours, theirs))
            row = [arm]
            for values in (one, other):
                row += [str(len(values)), number(float(values.values.mean())) if values else ""]
            if one and other:
                found = contrast(other, one)
                known = found.interval if math.isfinite(found.interval.low) else None
                row += [number(found.estimate), interval(known, digits=6)]
            rows.append([*row, *[""] * (len(rows[0]) - len(row))])
        lines += ["", f"{measure}, mean over n runs:", *columns(rows, indent="  ")]
    return lines or ["", "metrics: no run is finished in both"]


def _by_arm(runs: Runs) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in runs.records():
        found.setdefault(record.arm, []).append(record)
    return found


def _shared_metrics(arms: Iterable[list[Record]]) -> list[str]:
    """List the losses and accuracies that runs have, in the order of their rows."""
    last = [r.metrics[-1] for own in arms for r in own if r.finished and r.metrics]
    names = dict.fromkeys(name for row in last for name in row)
    return [name for name in names if name in METRICS]


def _seeds(runs: Runs) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for run in runs.runs:
        found.setdefault(run.arm, []).append(run.seed)
    return found


def _config_of(runs: Iterable[Run | Record], arm: str) -> dict[str, Any] | None:
    """Return the resolved config of an arm without the seed, or None if no run of it has one."""
    for run in runs:
        if run.arm == arm and run.begun:
            flat = flatten(run.config)
            return {k: v for k, v in flat.items() if k.split(".")[:2] != ["train", "seed"]}
    return None
