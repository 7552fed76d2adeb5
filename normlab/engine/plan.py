"""Says which runs a command is going to make, and how long they will take."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from normlab.configs import build
from normlab.configs.run_config import RunConfig
from normlab.engine.progress import Observer, Snapshot, finished_in, seconds_left
from normlab.store.finding import RunFinder
from normlab.store.layout import FINISHED
from normlab.store.run import Run


@dataclass(frozen=True)
class Planned:
    """Holds what is going to be made; sent before it, and again once the time it takes is known.

    Attributes:
        runs: the runs.
        finished: how many of them are finished already.
        epochs: the fewest and the most of a run.
        seconds: how long the others will take, or None if that is not known.
        snapshots: how the runs are.
    """

    runs: list[Run]
    finished: int
    epochs: tuple[int, int]
    seconds: float | None
    snapshots: list[Snapshot] = field(default_factory=list)


def plan(configs: list[RunConfig], folder: Path, jobs: int) -> Planned:
    """Plan some runs, as far as those in the experiment's folder tell how long they take."""
    runs, steps = runs_of(configs, folder), _Steps()
    now = Observer().look(runs)
    snapshots = [
        # A failed run is going to be made again.
        replace(s, steps=steps.of(config), state=s.state.replace("failed", "new"))
        for config, s in zip(configs, now, strict=True)
    ]
    is_through = all(s.state in FINISHED for s in snapshots)
    epochs = [config.sections["train"]["epochs"] for config in configs]
    return Planned(
        runs=runs,
        finished=sum(s.state in FINISHED for s in snapshots),
        epochs=(min(epochs), max(epochs)),
        seconds=seconds_left(snapshots, jobs, known=[] if is_through else finished_in(folder)),
        snapshots=now,
    )


class _Steps:
    """Counts the steps of runs, once for those that share all that they depend on."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, config: RunConfig) -> int:
        if config.program_hash not in self._known:
            self._known[config.program_hash] = build.total_steps(config.sections)
        return self._known[config.program_hash]


def runs_of(configs: Sequence[RunConfig], folder: Path) -> list[Run]:
    """Give each config its folder: where a run of its hash lies, or below the experiment's."""
    finder = RunFinder(folder)
    return [Run(finder.place(c.id), c.arm, c.seed, c.labels) for c in configs]
