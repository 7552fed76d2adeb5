"""Makes the runs of an experiment, in this process or in several, each by itself.

A failure or a divergence ends one run and is written down; the others go on. Runs that differ only
in their seed share one compiled program.
"""

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from normlab.configs import build
from normlab.configs.experiment import Experiment, seeds_of
from normlab.configs.run_config import RunConfig
from normlab.engine import hosts
from normlab.engine.checkpoint import FULL
from normlab.engine.events import GaveUp, Outcome, Remark, RunEnded, Tell, Waiting
from normlab.engine.executors.contract import open_engine
from normlab.engine.listing import about_experiment, check_is_same, note_runs
from normlab.engine.looking import Results, arms_of_open_claims, arms_to_begin_with
from normlab.engine.maker import Maker, RunStarted
from normlab.engine.plan import Planned, plan, runs_of
from normlab.engine.pool import Pool
from normlab.engine.preflight import check
from normlab.engine.progress import Observer, seconds_left
from normlab.engine.shards import Shard, Spare
from normlab.engine.signals import stopping_at_signals
from normlab.engine.task import Task
from normlab.engine.worker import told_of_idle_gpus
from normlab.errors import UserError
from normlab.store.layout import DAMAGED, FINISHED
from normlab.store.leases import leased, remove_lost
from normlab.store.loading import load_runs
from normlab.store.run import Run
from normlab.store.runs import note_claims
from normlab.training.events import Event, Progress

SECONDS_BETWEEN_CHECKPOINTS = 30.0

LOCAL = "local"
"""The engine of this machine."""

COMMAND = ".command"
"""The name of a lease in an experiment's folder: of a command whose runs are made elsewhere."""

SECONDS_BETWEEN_TRIES = 0.5
"""How often a run that another process makes is looked at."""


@dataclass
class Engine:
    """Makes an experiment's runs.

    Attributes:
        experiment: what to run.
        out: the folder under which the experiment has its own.
        tell: called with everything that happens.
        checkpoint_seconds: the least time between two checkpoints within a run.
        jobs: how many runs are made at once; with 1 they are made in this process. None for as
            many as an engine other than `local` has room for.
        max_failures: after so many failed runs no other is begun.
        until_decided: whether runs are made look by look, and only of the arms that undecided
            claims need.
        engine: the engine that makes the runs, a call `{name: ..., options}`.
        shard: which part of the runs this command makes first, and then what the others left.

    Raises:
        UserError: `jobs` or `max_failures` is not positive, or there are no claims to decide.
    """

    experiment: Experiment
    out: Path
    tell: Tell = lambda event: None
    checkpoint_seconds: float = SECONDS_BETWEEN_CHECKPOINTS
    jobs: int | None = 1
    max_failures: int | None = None
    until_decided: bool = False
    engine: Mapping[str, Any] = field(default_factory=lambda: {"name": LOCAL})
    shard: Shard | None = None
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
        engine = open_engine(dict(self.engine))
        self._is_here = self.engine["name"] == LOCAL
        if self._is_here and self.jobs is None:
            self.jobs = 1
        self._command = None if self._is_here else self.folder / f"{COMMAND}.{uuid.uuid4().hex}"
        self._pool = Pool(
            lambda: engine.places(self.jobs, self.folder), self.checkpoint_seconds, self._command
        )
        self._held, self._spare = ExitStack(), Spare(self.folder)
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
            self._maker.dataset
            if self._is_in_process
            else lambda config: build.dataset(config.sections)
        )
        for warning in check(left, self.jobs or 1, load, weigh=self._is_here):
            self.tell(Remark(warning))
        at_once = max([self.jobs or 1, *(build.mesh(one.sections).devices for one in left[:1])])
        if self._is_here and (idle := told_of_idle_gpus(at_once, len(left))):
            self.tell(Remark(idle))

    @property
    def _is_in_process(self) -> bool:
        """Return whether this process itself makes the runs."""
        return self._is_here and self.jobs == 1

    @property
    def _at_once(self) -> int:
        """Return how many runs are made at once."""
        return 1 if self._is_in_process else self._pool.size

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
            return self.make(runs, last=True)
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

    @contextmanager
    def session(self) -> Iterator[None]:
        """Let the same workers make several lists of runs, one after the other, in the block.

        The first Ctrl-C or SIGTERM lets every run end its step and save; the second Ctrl-C ends
        everything at once.
        """
        with stopping_at_signals(self._stopped), self._held:
            if self._command is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                remove_lost(self.folder, f"{COMMAND}.*")
                self._held.enter_context(leased(self._command))
            try:
                yield
                self._pool.close(at_once=False)
            except BaseException:
                self._pool.close(at_once=True)
                raise

    def make(self, configs: list[RunConfig], last: bool = False) -> list[str]:
        """Make those of a list of runs that are not finished; call it within `session()`.

        Args:
            configs: the runs.
            last: whether nothing is to be made of their results. A shard that is through then need
                not wait for the others.

        Returns:
            For each how it ended, as in `RunEnded.state`; "new" for a run that was not begun.
        """
        self._plan = planned = plan(configs, self.folder, self._at_once)
        self.tell(planned)
        states = ["new"] * len(configs)
        for task, state, message in self._attempts(configs, planned, last):
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
        self, configs: list[RunConfig], planned: Planned, last: bool
    ) -> Iterator[tuple[Task, str, str]]:
        tasks, claims = [], tuple(claim.hash for claim in self.experiment.claims)
        made_by = {"engine": str(self.engine["name"])}
        if self.shard is not None:
            made_by["shard"] = str(self.shard)
        runs, at_once = planned.runs, self._at_once
        for index, (config, seen) in enumerate(zip(configs, planned.snapshots, strict=True)):
            task = Task(config, runs[index], index, "", claims, at_once, made_by)
            if seen.state == DAMAGED:
                yield task, DAMAGED, seen.damage
            elif seen.state in FINISHED:  # nothing is started for a run that has its result
                yield task, "skipped", f"was {seen.state}"
            else:
                tasks.append(replace(task, again=self.experiment.command(config)))
        if self.shard is not None:
            tasks = self.shard.in_turn(tasks)
        while tasks:
            held = []
            for task, state, message in self._attempt_each(tasks):
                if state == "busy":
                    held.append((task, message))
                else:
                    yield task, state, message
                self._find_again(runs, task)
            tasks = [task for task, _ in held]
            left = self._wait_for([task.config for task in tasks], last)
            if left != "free":
                yield from ((task, left, message) for task, message in held)
                return

    def _attempt_each(self, tasks: list[Task]) -> Iterator[tuple[Task, str, str]]:
        """Try to make each of some runs once."""
        if not self._is_in_process:
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

    def _wait_for(self, configs: list[RunConfig], last: bool) -> str:
        """Wait until one of some runs is free.

        Returns:
            "free"; "busy" if no more may be begun; "elsewhere" if another shard waits already.
        """
        told = False
        while self._may_begin():
            if not configs or not all(run.is_held for run in self.runs_of(configs)):
                return "free"
            if last and self.shard is not None and not self._spare.waits(self._held):
                return "elsewhere"
            if not told:
                self.tell(Waiting(tuple(configs)))
                told = True
            self._stopped.wait(SECONDS_BETWEEN_TRIES)
        return "busy"

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
        seconds = seconds_left(Observer().look(self._plan.runs), self._at_once)
        if seconds is not None:
            self._plan = replace(self._plan, seconds=seconds)
            self.tell(self._plan)


def _finished(runs: list[Run]) -> bool:
    return all(run.state in FINISHED for run in runs)
