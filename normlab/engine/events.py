"""Defines what the engine tells while it makes the runs of an experiment."""

from collections.abc import Callable
from dataclasses import dataclass, field

from normlab.configs.run_config import RunConfig
from normlab.engine.maker import RunStarted
from normlab.engine.plan import Planned
from normlab.store.layout import DAMAGED
from normlab.store.runs import Runs
from normlab.training.events import Event


@dataclass(frozen=True)
class RunEnded:
    """Says that the engine is through with a run.

    Attributes:
        run: which.
        index: its place in the list of runs, from 0.
        state: a state of `Run` ("damaged" too), "skipped" (it was finished), "busy" (another
            process has it, and this command was ended while it waited for that), or "elsewhere"
            (another shard has it, and this one is through).
        message: one line more, if there is something to say.
    """

    run: RunConfig
    index: int
    state: str
    message: str = ""


@dataclass(frozen=True)
class Waiting:
    """Says that the runs that are left are being made by other processes, and are waited for."""

    runs: tuple[RunConfig, ...]


@dataclass(frozen=True)
class GaveUp:
    """Says that so many runs have failed that no more are begun."""

    failures: int


@dataclass(frozen=True)
class Remark:
    """Something to know before the first run."""

    text: str


Tell = Callable[[Remark | Planned | RunStarted | RunEnded | Waiting | GaveUp | Event], None]
"""Of a run that another process makes, `RunEnded` alone is told: its folder says the rest."""


@dataclass
class Outcome:
    """Holds an experiment's runs on disk, and how each of them ended.

    Attributes:
        runs: the runs.
        states: as `RunEnded.state`; "new" for a run that was not begun.
        interrupted: whether Ctrl-C or SIGTERM ended it.
    """

    runs: Runs
    states: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """Return whether any run failed, is damaged, or was left to another process."""
        return bool({"failed", "busy", DAMAGED} & {*self.states})
