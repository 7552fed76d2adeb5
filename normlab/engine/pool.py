"""Keeps several worker processes, and chooses which of them makes which run."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace

from normlab.engine.maker import Task, attempt_in_worker, write_failure
from normlab.engine.worker import Worker, WorkerDiedError, shares
from normlab.store.finding import held
from normlab.store.layout import FINISHED
from normlab.store.run import RunBusyError

SECONDS_BETWEEN_LOOKS = 0.2


@dataclass
class _Lane:
    """A place for one worker. Another worker takes it when that one is lost."""

    cores: set[int]
    worker: Worker | None = None
    compiled: set[str] = field(default_factory=set)

    def submit(self, task: Task, checkpoint_seconds: float) -> Future[tuple[str, str]]:
        if self.worker is None:
            self.worker = Worker(self.cores)
            self.compiled.clear()
        self.compiled.add(task.config.program_hash)
        return self.worker.submit(attempt_in_worker, task, checkpoint_seconds)

    def lose(self) -> None:
        if self.worker is not None:
            self.worker.shutdown()
        self.worker = None


class Pool:
    """Makes runs in processes of their own.

    A worker is started when there is something for it to do, and has its share of this process's
    cores whatever the others do, so that how a run is made depends on `jobs` alone.

    Args:
        jobs: how many runs are made at once.
        checkpoint_seconds: the least time between two checkpoints within a run.
    """

    def __init__(self, jobs: int, checkpoint_seconds: float):
        self._lanes = [_Lane(cores) for cores in shares(jobs)]
        self._checkpoint_seconds = checkpoint_seconds

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
        waiting = list(tasks)
        busy: dict[Future[tuple[str, str]], tuple[Task, _Lane]] = {}
        while True:
            at_work = [id(lane) for _, lane in busy.values()]
            for lane in self._lanes:
                if waiting and id(lane) not in at_work and may_begin():
                    task = self._choose(lane, waiting)
                    waiting.remove(task)
                    busy[lane.submit(task, self._checkpoint_seconds)] = task, lane
            if not busy:
                return
            done, _ = wait(busy, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
            if should_stop():
                for lane in self._lanes:
                    if lane.worker is not None:
                        lane.worker.stop()
            look()
            for future in done:
                task, lane = busy.pop(future)
                yield task, *self._answer(future, task, lane, should_stop())

    def _choose(self, lane: _Lane, waiting: list[Task]) -> Task:
        """Choose a run of a program that the worker has, or that none has, or else the next."""
        taken = set[str]().union(*(other.compiled for other in self._lanes if other.worker))
        own = [task for task in waiting if task.config.program_hash in lane.compiled]
        free = [task for task in waiting if task.config.program_hash not in taken]
        return [*own, *free, *waiting][0]

    def _answer(
        self, future: Future[tuple[str, str]], task: Task, lane: _Lane, stopped: bool
    ) -> tuple[str, str]:
        try:
            state, message = future.result()
        except WorkerDiedError as error:
            lane.lose()
            return _bury(task, str(error))
        if state in ("interrupted", "new") and not stopped:
            lane.lose()  # somebody else told it to stop, and it would not begin another run
            message = "its process was asked to stop"
        return state, message

    def close(self, at_once: bool) -> None:
        """End the workers: as after Ctrl-C, or by killing them."""
        for lane in self._lanes:
            if lane.worker is not None and at_once:
                lane.worker.kill()
        for lane in self._lanes:
            lane.lose()


def _bury(task: Task, cause: str) -> tuple[str, str]:
    """Write down what a worker could not."""
    try:
        with held(task.run, task.config.sections) as run:
            if run.state in FINISHED:
                return run.state, ""
            summary = f"{cause}; what it had saved is kept"
            return write_failure(replace(task, run=run), summary, summary)
    except RunBusyError as error:
        return "busy", str(error)
