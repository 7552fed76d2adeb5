"""Reads from runs' folders how far they are, and how long the rest will take; without jax."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from normlab.store.files import DamagedError
from normlab.store.layout import DAMAGED, FINISHED, METRICS, STATUS
from normlab.store.processes import is_left
from normlab.store.record import Record
from normlab.store.run import Run


@dataclass(frozen=True)
class Snapshot:
    """Shows a run at a glance.

    Attributes:
        arm: its arm.
        seed: its seed.
        state: as in `Record.state`, or "stopped" for one whose process is no more.
        step: steps taken.
        steps: steps to take, where that is known.
        pace: seconds a step, evaluations included, where that is known.
        compile_seconds: of its program, where that is known.
        accuracies: on the test split, an evaluation each.
        changed: when its status was last written, in seconds since 1970.
        process: host and pid of who wrote it.
        damage: which file is damaged, how, and the mend.
    """

    arm: str
    seed: int
    state: str = "new"
    step: int = 0
    steps: int | None = None
    pace: float | None = None
    compile_seconds: float | None = None
    accuracies: tuple[float, ...] = ()
    changed: float = 0.0
    process: tuple[str | None, int] | None = None
    damage: str = ""


@dataclass
class Observer:
    """Looks at runs again and again, and reads again only what has changed."""

    _seen: dict[Path, tuple[tuple[int, int], Snapshot]] = field(default_factory=dict)

    def look(self, runs: Iterable[Run | Record]) -> list[Snapshot]:
        """Return the runs as they are now."""
        return [self._look(run) for run in runs]

    def _look(self, run: Run | Record) -> Snapshot:
        path = run.path
        stamp = _changed(path / STATUS), _changed(path / METRICS)
        if path not in self._seen or self._seen[path][0] != stamp:
            self._seen[path] = stamp, _read(run, stamp[0] / 1e9)
        snapshot = self._seen[path][1]
        if snapshot.state == "running" and is_left(snapshot.process):
            return replace(snapshot, state="stopped")
        return snapshot


def finished_in(folder: Path) -> list[Snapshot]:
    """Find every finished run in an experiment's folder, those of former sweeps too."""
    runs = []
    for file in folder.glob(f"*/{STATUS}"):
        run = Run(file.parent)
        with contextlib.suppress(DamagedError):
            status = run.status
            if status["state"] in FINISHED and {"arm", "seed"} <= status.keys():
                runs.append(Run(file.parent, status["arm"], status["seed"]))
    return [snapshot for snapshot in Observer().look(runs) if not snapshot.damage]


def seconds_left(
    snapshots: list[Snapshot], jobs: int, known: Iterable[Snapshot] = ()
) -> float | None:
    """Estimate how long it takes until all runs are finished; None where nothing tells.

    Args:
        snapshots: the runs.
        jobs: how many are made at once.
        known: more runs, to learn the pace from.

    A run of an arm without a known pace is taken to have the mean pace, and so with what is
    compiled. Failed runs are not counted: they may fail again, or at once; nor are damaged ones.
    """
    sources = [*snapshots, *known]
    steps = [s.steps for s in snapshots if s.steps is not None]
    open_runs = [s for s in snapshots if s.state not in (*FINISHED, "failed", DAMAGED)]
    if not open_runs:
        return 0.0
    paces = _by_arm((s.arm, s.pace) for s in sources)
    if not paces or not steps:
        return None
    compiling = _by_arm((s.arm, s.compile_seconds) for s in sources)

    left = []
    running = {s.arm for s in open_runs if s.state == "running" and s.steps is not None}
    for arm in dict.fromkeys(s.arm for s in open_runs):
        # One compilation an arm, unless its program is running already.
        start = 0.0 if arm in running else _pick(compiling, arm)
        for s in open_runs:
            if s.arm == arm:
                total = mean(steps) if s.steps is None else s.steps
                left.append(start + (total - s.step) * _pick(paces, arm))
                start = 0.0
    return max(sum(left) / jobs, max(left))  # a run is made whole by one process


def _by_arm(values: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for arm, value in values:
        if value is not None:
            found.setdefault(arm, []).append(value)
    return {arm: mean(own) for arm, own in found.items()}


def _pick(by_arm: dict[str, float], arm: str) -> float:
    if not by_arm:
        return 0.0
    return by_arm.get(arm, mean(by_arm.values()))


def _read(run: Run | Record, changed: float) -> Snapshot:
    try:
        status = run.status
        if isinstance(run, Run) and status["state"] in FINISHED:
            rows = run.whole().metrics
        else:
            rows = run.metrics
    except DamagedError as error:
        return Snapshot(run.arm, run.seed, DAMAGED, changed=changed, damage=str(error))
    # A run's status may be up to a second older than its last row.
    step = max([status.get("step", 0), *(int(row["step"]) for row in rows[-1:])])
    pid = status.get("pid")
    return Snapshot(
        arm=run.arm,
        seed=run.seed,
        state=status["state"],
        step=step,
        steps=status.get("steps"),
        pace=_pace(status),
        compile_seconds=status.get("compile_seconds"),
        accuracies=tuple(row["test_accuracy"] for row in rows if "test_accuracy" in row),
        changed=changed,
        process=None if pid is None else (status.get("host"), pid),
    )


def _pace(status: dict[str, Any]) -> float | None:
    if "train_seconds" in status and status.get("step"):
        parts = ("train_seconds", "evaluate_seconds", "probe_seconds")
        return sum(status.get(part, 0.0) for part in parts) / status["step"]
    return status.get("seconds_per_step")


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def ended_at(row: dict[str, float | int]) -> str:
    """Say in words what the last row of metrics of a run has.

    >>> ended_at({"test_accuracy": 0.5}), ended_at({"test_accuracy": 0.5, "epsilon": 2.0})
    ('test accuracy 0.500', 'test accuracy 0.500, epsilon 2.00')
    """
    spent = f", epsilon {row['epsilon']:.2f}" if "epsilon" in row else ""
    return f"test accuracy {row['test_accuracy']:.3f}{spent}"
