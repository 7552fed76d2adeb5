"""Makes one run after another in this process, and keeps what the next one can use."""

import contextlib
import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import jax

from normlab.configs import build
from normlab.configs.own_code import check_same
from normlab.configs.probes import look_at
from normlab.configs.run_config import RunConfig
from normlab.data.dataset import Dataset
from normlab.engine import hosts, provenance, worker
from normlab.engine.checkpoint import FULL, Checkpoints, check_rows
from normlab.engine.endings import was, write_failure
from normlab.engine.policy_rows import finished, judge
from normlab.engine.probe_rows import Prober
from normlab.engine.progress import ended_at
from normlab.engine.saving import Helper, Saver
from normlab.engine.task import Order, Task, task_of
from normlab.errors import UserError, in_one_line
from normlab.ops import native
from normlab.store.finding import held
from normlab.store.layout import CHECKPOINTS, DAMAGED, ERROR, FINISHED
from normlab.store.run import Run, RunBusyError
from normlab.training.compiled import Compiled
from normlab.training.events import Emit, Event
from normlab.training.fit import Fitted, Loop, never
from normlab.training.host_data import HostData, placed
from normlab.training.state import Clock, DeviceData, TrainState

MOST_PROGRAMS = 12
"""How many compiled programs a process keeps: each takes memory and some hundred of the 65,530
mappings that a process may have on Linux. Those of a sweep's last arms are the ones asked for."""


@dataclass(frozen=True)
class RunStarted:
    """Says that a run is begun: `phase` is "compiling" or "training"."""

    run: RunConfig
    index: int
    phase: str
    step: int = 0


@dataclass
class Maker:
    """Makes runs, and keeps the data and the compiled programs for those that come after.

    Attributes:
        checkpoint_seconds: the least time between two checkpoints within a run.
        should_stop: asked before every step; True ends the run as "interrupted".
        tell: called with everything that happens.
    """

    checkpoint_seconds: float
    should_stop: Callable[[], bool]
    tell: Callable[[RunStarted | Event], None] = lambda event: None
    _loaded: dict[str, Dataset] = field(default_factory=dict)
    _placed: dict[str, DeviceData | HostData] = field(default_factory=dict)
    _compiled: dict[tuple[str, str], Compiled] = field(default_factory=dict)
    _probers: dict[tuple[str, str], Prober] = field(default_factory=dict)
    _made: int = 0

    def attempt(self, task: Task) -> tuple[str, str]:
        """Make one run, whatever may go wrong; return how it ended, and a word on that."""
        try:
            with held(task.run, task.config.sections) as run:
                task = replace(task, run=run)
                state, word = was(run)
                if state in ("skipped", DAMAGED):
                    return state, word
                try:
                    with native.only_if(began_with_kernels(run)):
                        return self._make(task)
                except RunBusyError:  # it was taken over while this process stood still
                    raise
                except UserError as error:
                    return self._failed(task, str(error), str(error))
                except OSError as error:
                    if error.errno not in FULL:
                        return self._failed(task, in_one_line(error), traceback.format_exc())
                    with contextlib.suppress(OSError):  # it may not have room for this either
                        run.write_status("interrupted", arm=task.config.arm, seed=task.config.seed)
                    raise  # no run can be made before there is room
                except Exception as error:
                    return self._failed(task, in_one_line(error), traceback.format_exc())
        except RunBusyError as error:
            return "busy", str(error)

    def _failed(self, task: Task, summary: str, details: str) -> tuple[str, str]:
        found = write_failure(task, summary, details)
        if hosts.team() is not None:
            raise hosts.BrokenError(found[1])
        return found

    def help(self) -> None:
        """Take part in the runs that the first of several processes begins, until it has no more.

        This one writes its part of the checkpoints, and no records.
        """
        team = hosts.team()
        while team is not None and (found := team.next_run()) is not None:
            config, run, failed = found
            compiled, _ = self._compile(config, self._place(config))
            prober = self._prober(config, compiled)
            checkpoints = Checkpoints(run.path / CHECKPOINTS)
            helper = Helper(checkpoints, prober)
            try:
                state, clock, _ = self._begin(config, compiled, checkpoints, failed)
                fitted = self._loop(config, compiled, helper, never).run(state, clock)
            finally:
                checkpoints.close()
            if fitted.status == "done":
                compiled.logits(fitted.state)
                if config.sections.get("evaluate") is not None:
                    data = self.dataset(config)
                    judge(config.sections, compiled, fitted.state, data, prober, never)

    def _begin(
        self, config: RunConfig, compiled: Compiled, checkpoints: Checkpoints, failed: str
    ) -> tuple[TrainState, Clock, bool]:
        """Return the state and the time to go on from, and whether a checkpoint had them."""
        team = hosts.team()
        if team is not None:
            team.meet()  # one that compiled for longer would keep the others waiting in a step
        state = compiled.init(config.seed, build.program(config.sections))
        restored = checkpoints.restore(state, failed)
        return (state, Clock(), False) if restored is None else (*restored, True)

    def _loop(
        self, config: RunConfig, compiled: Compiled, saver: Emit, is_due: Callable[[], bool]
    ) -> Loop:
        stop, save, team = self.should_stop, is_due, hosts.team()
        if team is not None:
            stop, save = partial(team.stops, self.should_stop, is_due), team.saves
        return Loop(compiled, config.seed, saver, stop, save, look_at(config.sections))

    def _make(self, task: Task) -> tuple[str, str]:
        config, run, began = task.config, task.run, time.monotonic()
        spent, failed = run.status.get("probe_seconds", 0.0), run.status.get("error", "")
        about: dict[str, Any] = {"arm": config.arm, "seed": config.seed}
        run.write_config(config.sections)
        run.write_status("running", **about)
        check_same(config.own_code)
        (run.path / ERROR).unlink(missing_ok=True)  # of an attempt before this one
        self.tell(RunStarted(config, task.index, "compiling"))
        data = self.dataset(config)
        self._check_same_data(run, data)
        self._check_sizes(config, data)
        team = hosts.team()
        if team is not None:
            team.announce(config, run, failed)
        on_device = self._place(config)
        devices = build.mesh(config.sections).devices
        about_it = data, task.claims, task.at_once, config.own_code, devices
        run.add_provenance(provenance.collect(*about_it, made_by=task.made_by))
        compiled, compile_seconds = self._compile(config, on_device)
        about |= {
            "steps": build.total_steps(config.sections),
            "parameters": compiled.parameters,
            "compile_seconds": compiled.seconds,
            "programs_from_cache": compiled.from_cache,
            "peak_bytes": compiled.peak_bytes,
        }
        prober = self._prober(config, compiled)
        if prober is not None:
            about |= {"probe_seconds": spent}

        checkpoints = Checkpoints(run.path / CHECKPOINTS)
        try:
            state, clock, restored = self._begin(config, compiled, checkpoints, failed)
            step = int(state.step)
            run.keep_rows_to(step if restored else -1)
            check_rows(run, compiled, step)
            run.write_status("running", **about, step=step)
            self.tell(RunStarted(config, task.index, "training", step))
            saver = Saver(run, about, checkpoints, self.tell, self.checkpoint_seconds, prober)
            loop = self._loop(config, compiled, saver, saver.is_due)
            fitted = loop.run(state, clock, compile_seconds)
        finally:
            checkpoints.close()
        if fitted.status == "done":
            fitted = finished(run, compiled, fitted, data, prober, about, config, self.should_stop)
        return fitted.status, self._end(run, fitted, about, time.monotonic() - began)

    def _end(self, run: Run, fitted: Fitted, about: dict[str, Any], seconds: float) -> str:
        more: dict[str, Any] = {
            "step": int(fitted.state.step),
            "train_seconds": fitted.clock.train,
            "evaluate_seconds": fitted.clock.evaluate,
        }
        done = fitted.status == "done"
        message = f"{ended_at(run.metrics[-1])}, {seconds:.1f} s" if done else ""
        if fitted.diverged is not None:
            where = fitted.diverged
            more["diverged"] = {"step": where.step, "layer": where.layer, "norm": where.norm}
            message = (
                f"loss, gradient or new parameters not finite at step {where.step}; "
                f"largest parameter: {where.layer}, norm {where.norm:.3g}"
            )
        run.write_status(fitted.status, sealed=fitted.status in FINISHED, **about, **more)
        return message

    def dataset(self, config: RunConfig) -> Dataset:
        """Load the data of a run, unless the last call did."""
        key = repr(config.sections["data"])
        if key not in self._loaded:
            self._loaded = {key: build.dataset(config.sections)}
        return self._loaded[key]

    def _place(self, config: RunConfig) -> DeviceData | HostData:
        spread = build.mesh(config.sections).spread()
        key = repr((config.sections["data"], spread))
        if key not in self._placed:
            self._placed = {key: placed(self.dataset(config), spread)}
        return self._placed[key]

    def _compile(self, config: RunConfig, data: DeviceData | HostData) -> tuple[Compiled, float]:
        """Return a run's program, and the seconds that this call took for it: 0 if it was there."""
        key = _program(config)
        if key in self._compiled:
            return self._compiled[key], 0.0
        while len(self._compiled) >= MOST_PROGRAMS:
            oldest = next(iter(self._compiled))
            del self._compiled[oldest]
            self._probers.pop(oldest, None)
        self._made += 1
        if self._made % MOST_PROGRAMS == 0:
            jax.clear_caches()  # JAX keeps the small programs around each of them for ever
            gc.collect()
        compiled = Compiled(build.program(config.sections), data)
        self._compiled[key] = compiled
        return compiled, compiled.seconds

    def _prober(self, config: RunConfig, compiled: Compiled) -> Prober | None:
        """Return the probes of a run, compiled, or None where it has none."""
        probing = config.sections.get("probes")
        if probing is None:
            return None
        key = _program(config)
        if key not in self._probers:
            probes = build.probes(config.sections)
            self._probers[key] = Prober(compiled, probes, probing["examples"])
        return self._probers[key]

    def _check_same_data(self, run: Run, data: Dataset) -> None:
        for record in run.provenance:
            if record["data"]["fingerprint"] != data.fingerprint:
                raise UserError(
                    f"{run.path}: this run began on other data (fingerprint "
                    f"{record['data']['fingerprint']}, now {data.fingerprint}); restore that data, "
                    "or give --out another folder"
                )

    def _check_sizes(self, config: RunConfig, data: Dataset) -> None:
        """Its steps and its schedule were reckoned from the sizes that were known without it."""
        known = build.outline(config.sections)
        splits = (("train", known.train_examples), ("test", known.test_examples))
        for part, expected in splits:
            if (found := len(getattr(data, part).labels)) != expected:
                raise UserError(
                    f"the data have {found} {part} examples, and the config was reckoned with "
                    f"{expected}: give the same command again where the data lie, or mend the "
                    "dataset's outline() if it is your own"
                )


def _program(config: RunConfig) -> tuple[str, str]:
    """Return what a compiled program depends on."""
    return config.program_hash, native.chosen()


def began_with_kernels(run: Run) -> bool:
    """Return whether compiled kernels may normalise in a run, which goes on as it began."""
    begun = run.provenance[:1]
    return not begun or native.NAME in begun[0].get("set_by_normlab", {})


def attempt_in_worker(order: Order) -> tuple[str, str]:
    """Call `Maker.attempt` in a worker process, on the one maker that it has."""
    if worker.stopping.is_set():
        return "new", ""
    return _maker_of_worker(order["checkpoint_seconds"]).attempt(task_of(order))


@cache
def _maker_of_worker(checkpoint_seconds: float) -> Maker:
    return Maker(checkpoint_seconds, worker.stopping.is_set)
