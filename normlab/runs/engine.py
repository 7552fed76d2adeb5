"""Makes the runs of an experiment, one after the other, each by itself.

A failure or a divergence ends one run and is written down; the others go on. Runs that differ only
in their seed share one compiled program.
"""

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from normlab.data.dataset import Dataset
from normlab.errors import UserError
from normlab.runs import build, provenance
from normlab.runs.checkpoint import Checkpoints
from normlab.runs.config import RunConfig
from normlab.runs.directory import (
    CHECKPOINTS,
    ERROR,
    FINISHED,
    Entry,
    Run,
    RunBusyError,
    Runs,
    load,
    write_atomically,
    write_experiment,
)
from normlab.runs.sweep import Experiment
from normlab.training.fit import Fitted, Loop
from normlab.training.program import Compiled
from normlab.training.state import Clock, DeviceData, Event, Row, Saveable

SECONDS_BETWEEN_CHECKPOINTS = 30.0


@dataclass(frozen=True)
class RunStarted:
    """The engine turns to a run: `phase` is "compiling" or "training"."""

    run: RunConfig
    index: int
    phase: str
    step: int = 0


@dataclass(frozen=True)
class RunEnded:
    """The engine is through with a run.

    Attributes:
        run: which.
        index: its place among the experiment's runs, from 0.
        state: a state of `Run`, "busy" (another process has it), or "skipped" (it was finished).
        message: one line more, if there is something to say.
    """

    run: RunConfig
    index: int
    state: str
    message: str = ""


Tell = Callable[[RunStarted | RunEnded | Event], None]


@dataclass
class Outcome:
    """What became of an experiment: its runs on disk, and how many of them ended in which way."""

    runs: Runs
    states: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass
class Engine:
    """Runs an experiment's runs in this process.

    Attributes:
        experiment: what to run.
        out: the folder under which the experiment has its own.
        tell: called with everything that happens.
        checkpoint_seconds: the least time between two checkpoints within a run.
    """

    experiment: Experiment
    out: Path
    tell: Tell = lambda event: None
    checkpoint_seconds: float = SECONDS_BETWEEN_CHECKPOINTS
    _data: dict[str, tuple[Dataset, DeviceData]] = field(default_factory=dict)
    _compiled: dict[str, Compiled] = field(default_factory=dict)

    def run_all(self) -> Outcome:
        """Make every run that is not finished, unless Ctrl-C or SIGTERM comes first."""
        folder = self.out / self.experiment.name
        try:
            return self._run_all(folder)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error}); choose another --out"
            ) from error

    def _run_all(self, folder: Path) -> Outcome:
        entries = [
            Entry(Run(folder / config.id), config.arm, config.seed, config.labels)
            for config in self.experiment.runs
        ]
        runs = [entry.run for entry in entries]
        write_experiment(folder, self._about(), entries)
        states: list[str] = []
        with _stop_on_signal() as stopped:
            for index, (config, run) in enumerate(zip(self.experiment.runs, runs, strict=True)):
                state, message = self._attempt(config, run, index, stopped)
                states.append(state)
                self.tell(RunEnded(config, index, state, message))
                if stopped.is_set():
                    break
        found = load(folder)
        assert isinstance(found, Runs)
        return Outcome(found, states, stopped.is_set())

    def _attempt(
        self, config: RunConfig, run: Run, index: int, stopped: threading.Event
    ) -> tuple[str, str]:
        """One run, and whatever may go wrong with it."""
        try:
            with run.locked():
                if run.state in FINISHED:
                    return "skipped", f"was {run.state}"
                try:
                    return self._make(config, run, index, stopped)
                except UserError as error:
                    return self._failed(config, run, str(error), str(error))
                except Exception as error:
                    summary = f"{type(error).__name__}: {error}".partition("\n")[0]
                    return self._failed(config, run, summary, traceback.format_exc())
        except RunBusyError as error:
            return "busy", str(error)

    def _make(
        self, config: RunConfig, run: Run, index: int, stopped: threading.Event
    ) -> tuple[str, str]:
        about: dict[str, Any] = {"arm": config.arm, "seed": config.seed}
        run.write_config(config.sections)
        run.write_status("running", **about)
        (run.path / ERROR).unlink(missing_ok=True)  # of an attempt before this one
        self.tell(RunStarted(config, index, "compiling"))
        data, _ = self._load_data(config)
        self._check_same_data(run, data)
        run.add_provenance(provenance.collect(data))
        compiled, compile_seconds = self._compile(config)
        about |= {"steps": build.total_steps(config.sections), "parameters": compiled.parameters}
        run.write_status("running", **about)

        checkpoints = Checkpoints(run.path / CHECKPOINTS)
        try:
            state, clock = compiled.init(config.seed), Clock()
            restored = checkpoints.restore(state)
            if restored is not None:
                state, clock = restored
            run.keep_metrics_to(int(state.step) if restored is not None else -1)
            self.tell(RunStarted(config, index, "training", int(state.step)))
            saver = _Saver(run, checkpoints, self.tell, self.checkpoint_seconds)
            loop = Loop(compiled, config.seed, saver, stopped.is_set, saver.is_due)
            fitted = loop.run(state, clock, compile_seconds)
        finally:
            checkpoints.close()
        message = self._end(run, fitted, compiled, about)
        return fitted.status, message

    def _end(self, run: Run, fitted: Fitted, compiled: Compiled, about: dict[str, Any]) -> str:
        more: dict[str, Any] = {
            "step": int(fitted.state.step),
            "train_seconds": fitted.clock.train,
            "evaluate_seconds": fitted.clock.evaluate,
            "compile_seconds": compiled.seconds,
            "peak_bytes": compiled.peak_bytes,
        }
        message = ""
        if fitted.diverged is not None:
            where = fitted.diverged
            more["diverged"] = {"step": where.step, "layer": where.layer, "norm": where.norm}
            message = (
                f"loss, gradient or new parameters not finite at step {where.step}; "
                f"largest parameter: {where.layer}, norm {where.norm:.3g}"
            )
        run.write_status(fitted.status, **about, **more)
        return message

    def _failed(self, config: RunConfig, run: Run, summary: str, details: str) -> tuple[str, str]:
        write_atomically(run.path / ERROR, details)
        run.write_status("failed", arm=config.arm, seed=config.seed, error=summary)
        return "failed", f"{summary}\nagain: {self.experiment.command(config)}"

    def _load_data(self, config: RunConfig) -> tuple[Dataset, DeviceData]:
        key = repr(config.sections["data"])
        if key not in self._data:
            data = build.dataset(config.sections)
            self._data = {key: (data, DeviceData.put(data))}
        return self._data[key]

    def _compile(self, config: RunConfig) -> tuple[Compiled, float]:
        """The program of a run, and the seconds this call took for it: 0 where a seed had it."""
        key = config.program_hash
        if key in self._compiled:
            return self._compiled[key], 0.0
        _, device_data = self._load_data(config)
        compiled = Compiled(build.program(config.sections), device_data)
        self._compiled[key] = compiled
        return compiled, compiled.seconds

    def _check_same_data(self, run: Run, data: Dataset) -> None:
        for record in run.provenance:
            if record["data"]["fingerprint"] != data.fingerprint:
                raise UserError(
                    f"{run.path}: this run began on other data (fingerprint "
                    f"{record['data']['fingerprint']}, now {data.fingerprint}); restore that data, "
                    "or give --out another folder"
                )

    def _about(self) -> dict[str, Any]:
        experiment = self.experiment
        target = experiment.target
        return {
            "name": experiment.name,
            "question": experiment.question,
            "target": None if target is None else {"test_accuracy": target.test_accuracy},
            "config": str(experiment.file),
            "overrides": list(experiment.overrides),
        }


class _Saver:
    """Writes what the loop says: rows at once, checkpoints when the loop offers a state."""

    def __init__(self, run: Run, checkpoints: Checkpoints, tell: Tell, seconds: float):
        self._run, self._checkpoints, self._tell = run, checkpoints, tell
        self._seconds = seconds
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Row):
            self._run.append_metrics(event.metrics)
        if isinstance(event, Saveable):
            self._checkpoints.save(event.state, event.clock)
            self._last = time.monotonic()
        self._tell(event)

    def is_due(self) -> bool:
        return time.monotonic() - self._last > self._seconds


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second Ctrl-C stops at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
