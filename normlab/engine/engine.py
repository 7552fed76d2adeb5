"""Makes the runs of an experiment, in this process or in several, each by itself.

A failure or a divergence ends one run and is written down; the others go on. Runs that differ only
in their seed share one compiled program.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from normlab.configs import build
from normlab.configs.experiment import Experiment, seeds_of
from normlab.configs.run_config import RunConfig
from normlab.engine import hosts
from normlab.engine.checkpoint import FULL
from normlab.engine.listing import about_experiment, check_is_same, note_runs
from normlab.engine.looking import Results, arms_of_open_claims, arms_to_begin_with
from normlab.engine.maker import Maker, RunStarted, Task, was
from normlab.engine.plan import Planned, plan, runs_of
from normlab.engine.pool import Pool
from normlab.engine.preflight import check
from normlab.engine.progress import Observer, seconds_left
from normlab.engine.signals import stopping_at_signals
from normlab.errors import UserError
from normlab.store.layout import DAMAGED, FINISHED
from normlab.store.loading import load_runs
from normlab.store.run import Run
from normlab.store.runs import Runs, note_claims
from normlab.training.events import Event, Progress

SECONDS_BETWEEN_CHECKPOINTS = 30.0

SECONDS_BETWEEN_TRIES = 0.5
"""How often a run that another process makes is looked at."""


@dataclass(frozen=True)
class RunEnded:
    """Says that the engine is through with a run.

    Attributes:
        run: which.
        index: its place in the list of runs, from 0.
        state: a state of `Run` ("damaged" too), "skipped" (it was finished), or "busy" (another
            process has it, and this command was ended while it waited for that).
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


@dataclass
class Engine:
    """Makes an experiment's runs.

    Attributes:
        experiment: what to run.
        out: the folder under which the experiment has its own.
        tell: called with everything that happens.
        checkpoint_seconds: the least time between two checkpoints within a run.
        jobs: how many runs are made at once; with 1 they are made in this process.
        max_failures: after so many failed runs no other is begun.
        until_decided: whether runs are made look by look, and only of the arms that undecided
            claims need.

    Raises:
        UserError: `jobs` or `max_failures` is not positive, or there are no claims to decide.
    """

    experiment: Experiment
    out: Path
    tell: Tell = lambda event: None
    checkpoint_seconds: float = SECONDS_BETWEEN_CHECKPOINTS
    jobs: int = 1
    max_failures: int | None = None
    until_decided: bool = False
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _failures: int = field(default=0, init=False)
    _plan: Planned | None = field(default=None, init=False)
    _about: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name in ("jobs", "max_failures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be a positive whole number, got {value!r}")
        if self.until_decided and not self.experiment.claims:
            raise UserError(
                f"{self.experiment.file}: there is nothing to decide: give it claims, or run it "
                "without --until-decided"
            )
        self._maker = Maker(self.checkpoint_seconds, self._stopped.is_set, self._tell_of_run)
        self._pool = Pool(self.jobs, self.checkpoint_seconds)
        self._results = Results(self.folder)

    @property
    def folder(self) -> Path:
        """Return where the runs lie."""
        return self.out / self.experiment.folder

    def runs_of(self, configs: Sequence[RunConfig]) -> list[Run]:
        """Give each config its folder below the experiment's."""
        return runs_of(configs, self.folder)

    def run_all(self) -> Outcome:
        """Make every run that is not finished, unless Ctrl-C or SIGTERM comes first."""
        try:
            check_is_same(self.experiment, self.folder)
            self._check()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._about = about_experiment(self.experiment)
            note_claims(self.folder, self._about["claims"])
            with self.session():
                states = self._make_all()
        except OSError as error:
            room = "make room and give the same command again, or " if error.errno in FULL else ""
            raise UserError(
                f"{self.folder}: cannot be written ({error}); {room}choose another --out"
            ) from error
        finally:
            if (team := hosts.team()) is not None:
                team.dismiss()
        return Outcome(load_runs(self.folder), states, self._stopped.is_set())

    def help(self) -> None:
        """Take part in the runs of the first of several processes, which calls `run_all`."""
        with stopping_at_signals(self._stopped):
            self._maker.help()

    def _check(self) -> None:
        """Find what would stop a run before any is begun."""
        tuning = self.experiment.tuning
        trials = [] if tuning is None else [trial.config for trial in tuning.trials]
        asked = [*trials, *self.experiment.runs]
        runs = zip(asked, self.runs_of(asked), strict=True)
        left = [config for config, run in runs if run.state not in (*FINISHED, DAMAGED)]
        load = (
            self._maker.dataset if self.jobs == 1 else lambda config: build.dataset(config.sections)
        )
        for warning in check(left, self.jobs, load):
            self.tell(Remark(warning))

    def _make_all(self) -> list[str]:
        tuning = self.experiment.tuning
        if tuning is None:
            return self._make_runs(self.experiment.runs)
        trials = [trial.config for trial in tuning.trials]
        made = self.runs_of(trials)
        states = ["skipped"] * len(trials)
        if not _finished(made):
            self._note([], trials)
            states = self.make(trials)
            made = self.runs_of(trials)
        if not _finished(made):  # which has been told
            return states
        chosen = tuning.choose(made)
        runs = tuning.chosen_runs(chosen["chosen"])
        self._about |= {"tuning": chosen}
        return states + self._make_runs(runs, trials)

    def _make_runs(self, runs: list[RunConfig], trials: Sequence[RunConfig] = ()) -> list[str]:
        """Make runs, all at once or look by look."""
        if not self.until_decided:
            self._note(runs, trials)
            return self.make(runs)
        states: dict[int, str] = {}  # by the places of runs
        needed = arms_to_begin_with(self.experiment, runs)
        for look in self.experiment.looks or (len(seeds_of(runs)),):
            seeds = {*seeds_of(runs)[:look]}
            now = [i for i, run in enumerate(runs) if run.seed in seeds and run.arm in needed]
            self._note([runs[i] for i in sorted({*states, *now})], trials)
            made = self.make([runs[i] for i in now])
            states |= dict(zip(now, made, strict=True))
            if not {*made} <= {"skipped", *FINISHED}:
                break
            needed = arms_of_open_claims(self.folder, runs)
            if not needed:
                break
        left = len(runs) - len(states)
        if left:
            first = "" if needed else "every claim is decided; "
            self.tell(Remark(f"{first}{left} of {len(runs)} runs were not needed"))
        return [states[i] for i in sorted(states)]

    def _note(self, runs: list[RunConfig], trials: Sequence[RunConfig] = ()) -> None:
        note_runs(self.experiment, self.folder, self._about, runs, trials)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Let the same workers make several lists of runs, one after the other, in the block.

        The first Ctrl-C or SIGTERM lets every run end its step and save; the second Ctrl-C ends
        everything at once.
        """
        with stopping_at_signals(self._stopped):
            try:
                yield
                self._pool.close(at_once=False)
            except BaseException:
                self._pool.close(at_once=True)
                raise

    def make(self, configs: list[RunConfig]) -> list[str]:
        """Make those of a list of runs that are not finished; call it within `session()`.

        Returns:
            For each how it ended, as in `RunEnded.state`; "new" for a run that was not begun.
        """
        self._plan = planned = plan(configs, self.folder, self.jobs)
        self.tell(planned)
        states = ["new"] * len(configs)
        for task, state, message in self._attempts(configs, planned.runs):
            states[task.index] = state
            if state == "new":
                continue
            self._results.note(task.run, state)
            self.tell(RunEnded(task.config, task.index, state, message))
            self._failures += state == "failed"
        if self._has_given_up() and "new" in states:
            self.tell(GaveUp(self._failures))
        return states

    def _attempts(
        self, configs: list[RunConfig], runs: list[Run]
    ) -> Iterator[tuple[Task, str, str]]:
        tasks, claims = [], tuple(claim.hash for claim in self.experiment.claims)
        for index, (config, run) in enumerate(zip(configs, runs, strict=True)):
            again = self.experiment.command(config)
            task = Task(config, run, index, again, claims, self.jobs)
            state = run.state
            if self.jobs == 1 or state not in (*FINISHED, DAMAGED):
                tasks.append(task)
            else:  # no worker is started for a run that has its result
                yield task, *was(run)
        while tasks:
            held = []
            for task, state, message in self._attempt_each(tasks):
                if state == "busy":
                    held.append((task, message))
                else:
                    yield task, state, message
                self._find_again(runs, task)
            tasks = [task for task, _ in held]
            if not self._wait_for([task.config for task in tasks]):
                yield from ((task, "busy", message) for task, message in held)
                return

    def _attempt_each(self, tasks: list[Task]) -> Iterator[tuple[Task, str, str]]:
        """Try to make each of some runs once."""
        if self.jobs > 1:
            yield from self._pool.attempts(
                tasks, self._may_begin, self._stopped.is_set, self._look_for_pace
            )
            return
        for task in tasks:
            if self._may_begin():
                yield task, *self._maker.attempt(task)

    def _find_again(self, runs: list[Run], task: Task) -> None:
        """Look for a planned run where another command has begun it meanwhile."""
        if not runs[task.index].begun:
            (runs[task.index],) = self.runs_of([task.config])

    def _wait_for(self, configs: list[RunConfig]) -> bool:
        """Wait until one of some runs is free; return whether it is, and more may be begun."""
        told = False
        while self._may_begin():
            if not configs or not all(run.is_held for run in self.runs_of(configs)):
                return True
            if not told:
                self.tell(Waiting(tuple(configs)))
                told = True
            self._stopped.wait(SECONDS_BETWEEN_TRIES)
        return False

    def _may_begin(self) -> bool:
        return not self._stopped.is_set() and not self._has_given_up()

    def _has_given_up(self) -> bool:
        return self.max_failures is not None and self._failures >= self.max_failures

    def _tell_of_run(self, event: RunStarted | Event) -> None:
        self.tell(event)
        if isinstance(event, Progress):
            self._look_for_pace()

    def _look_for_pace(self) -> None:
        """Tell how long it will take, if that was not known and is now."""
        if self._plan is None or self._plan.seconds is not None:
            return
        seconds = seconds_left(Observer().look(self._plan.runs), self.jobs)
        if seconds is not None:
            self._plan = replace(self._plan, seconds=seconds)
            self.tell(self._plan)


def _finished(runs: list[Run]) -> bool:
    return all(run.state in FINISHED for run in runs)
