"""Keeps the places in which runs are made at once, and chooses which of them makes which run."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass, field
from pathlib import Path

from normlab.engine.endings import bury
from normlab.engine.errand import run_errand
from normlab.engine.maker import attempt_in_worker
from normlab.engine.task import Task
from normlab.engine.worker import Worker, WorkerDiedError
from normlab.errors import UserError, in_one_line

SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(eq=False)
class _Lane:
    """A place for one run at a time."""

    executor: Executor
    compiled: set[str] = field(default_factory=set)

    @property
    def is_here(self) -> bool:
        """Return whether its process is a child of this one."""
        return isinstance(self.executor, Worker)

    @property
    def has_process(self) -> bool:
        return isinstance(self.executor, Worker) and self.executor.has_process

    def submit(
        self, task: Task, checkpoint_seconds: float, command: Path | None
    ) -> Future[Sequence[str]]:
        if isinstance(self.executor, Worker):
            if not self.executor.has_process:
                self.compiled.clear()
            self.compiled.add(task.config.program_hash)
            return self.executor.submit(attempt_in_worker, task.order(checkpoint_seconds))
        return self.executor.submit(run_errand, task.order(checkpoint_seconds, command))

    def lose(self) -> None:
        if isinstance(self.executor, Worker):
            self.executor.shutdown()


class Pool:
    """Makes runs in other processes, on this machine or elsewhere.

    A worker of this machine is started when there is something for it to do, and has its share of
    the cores whatever the others do, so that how a run is made depends on `jobs` alone.

    Args:
        places: gives an executor for each run that is made at once; asked when there is a run.
        checkpoint_seconds: the least time between two checkpoints within a run.
        command: a lease that this process holds; workers elsewhere end when it is given back.
    """

    def __init__(
        self,
        places: Callable[[], Sequence[Executor]],
        checkpoint_seconds: float,
        command: Path | None = None,
    ):
        self._places, self._command = places, command
        self._checkpoint_seconds = checkpoint_seconds
        self._opened: list[_Lane] | None = None

    @property
    def _lanes(self) -> list[_Lane]:
        if self._opened is None:
            self._opened = [_Lane(executor) for executor in self._places()]
        return self._opened

    @property
    def size(self) -> int:
        """Return how many runs are made at once."""
        return len(self._lanes)

    def attempts(
        self,
        tasks: list[Task],
        may_begin: Callable[[], bool],
        should_stop: Callable[[], bool],
        look: Callable[[], None],
    ) -> Iterator[tuple[Task, str, str]]:
        """Make runs; yields each as it ends, with its state and a word on it.

        Args:
            tasks: the runs.
            may_begin: asked before a run is begun.
            should_stop: asked now and then; True stops the workers for good.
            look: called now and then.
        """
        waiting = _Waiting(tasks)
        busy: dict[Future[Sequence[str]], tuple[Task, _Lane]] = {}
        idle = list(self._lanes) if tasks else []
        while True:
            while idle and waiting and may_begin():
                lane = idle.pop(0)
                task = self._choose(lane, waiting)
                busy[lane.submit(task, self._checkpoint_seconds, self._command)] = task, lane
            if not busy:
                return
            done, _ = wait(busy, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
            if should_stop():
                self._stop(busy)
            look()
            for future in done:
                task, lane = busy.pop(future)
                idle.append(lane)
                yield task, *_answer(future, task, lane, should_stop())

    def _choose(self, lane: _Lane, waiting: "_Waiting") -> Task:
        """Choose a run of a program that the worker has, or that none has, or else the next."""
        taken = set[str]().union(*(other.compiled for other in self._lanes if other.has_process))
        return waiting.take(lane.compiled, taken)

    def _stop(self, busy: dict[Future[Sequence[str]], tuple[Task, _Lane]]) -> None:
        """Let every run end its step and save, and take back those that have not begun."""
        for future, (_, lane) in busy.items():
            if isinstance(lane.executor, Worker):
                lane.executor.stop()
            else:
                future.cancel()
        if self._command is not None:
            self._command.unlink(missing_ok=True)  # workers elsewhere look whether it is there

    def close(self, at_once: bool) -> None:
        """End the workers: as after Ctrl-C, or by killing them."""
        lanes = self._opened or []
        for lane in lanes:
            if isinstance(lane.executor, Worker) and at_once:
                lane.executor.kill()
        for executor in {id(lane.executor): lane.executor for lane in lanes}.values():
            with contextlib.suppress(TypeError):
                executor.shutdown(wait=not at_once, cancel_futures=True)
                continue
            executor.shutdown(wait=not at_once)  # Dask's has no such argument
        self._opened = None


class _Waiting:
    """Holds the runs that have not been begun, by their programs."""

    def __init__(self, tasks: list[Task]):
        self._by_program: dict[str, deque[tuple[int, Task]]] = {}
        for position, task in enumerate(tasks):
            own = self._by_program.setdefault(task.config.program_hash, deque())
            own.append((position, task))

    def __bool__(self) -> bool:
        return bool(self._by_program)

    def take(self, own: set[str], taken: set[str]) -> Task:
        """Take the next run of the worker's own programs, or of those of nobody, or of all."""
        program = min(
            self._by_program,
            key=lambda one: (one not in own, one in taken, self._by_program[one][0][0]),
        )
        _, task = self._by_program[program].popleft()
        if not self._by_program[program]:
            del self._by_program[program]
        return task


def _answer(
    future: Future[Sequence[str]], task: Task, lane: _Lane, stopped: bool
) -> tuple[str, str]:
    try:
        state, message = future.result()
    except WorkerDiedError as error:
        lane.lose()
        return bury(task, str(error))
    except CancelledError:
        return ("new", "") if stopped else bury(task, "its engine has dropped it")
    except BrokenExecutor as error:
        raise UserError(f"the engine does not work any more: {in_one_line(error)}") from error
    except Exception as error:
        if lane.is_here:
            raise  # a defect of ours
        return bury(task, in_one_line(error))
    if state in ("interrupted", "new") and not stopped:
        lane.lose()  # somebody else told it to stop, and it would not begin another run
        message = "its process was asked to stop"
    return state, message
