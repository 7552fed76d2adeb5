"""Makes runs as jobs of SLURM, one job a run, by way of submitit.

submitit asks `sacct` whether a job is still there. Many clusters keep no accounts, and there it
would wait for a killed job for ever, so `squeue` is asked here.
"""

import contextlib
import getpass
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normlab.engine.executors.contract import engine, package
from normlab.engine.worker import WorkerDiedError
from normlab.errors import UserError, in_one_line, require_field

BETWEEN_LOOKS = 5.0
"""Seconds between two questions to the scheduler, about all jobs together."""

GRACE = 15.0
"""Seconds for which the answer of a job that has left the queue is waited for: a file that another
host has written may be seen late."""

FOLDER = ".slurm"


@engine
@dataclass(frozen=True)
class Slurm:
    """Makes runs as jobs of SLURM, one job a run.

    Attributes:
        jobs: how many jobs are in the queue at once.
        minutes: the longest time of a job.
        partition: where jobs are sent; null for the cluster's default.
        account: who pays; null for the person's default.
        cores: of each job.
        gpus: of each job.
        memory: of each job, in GB; null for the cluster's default.
        setup: lines of shell before the run, such as `module load cuda`.
        more: further options of sbatch, by their long names.
    """

    jobs: int = 8
    minutes: int = 60
    partition: str | None = None
    account: str | None = None
    cores: int = 1
    gpus: int = 0
    memory: float | None = None
    setup: tuple[str, ...] = ()
    more: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "minutes", "cores"):
            value = getattr(self, name)
            require_field(value >= 1, name, value, "at least 1")

    @property
    def _parameters(self) -> dict[str, Any]:
        given = {
            "job_name": "normlab",
            "time": self.minutes,
            "partition": self.partition,
            "account": self.account,
            "cpus_per_task": self.cores,
            "gpus_per_node": self.gpus or None,
            "mem": None if self.memory is None else f"{round(self.memory * 1024)}MB",
            "setup": list(self.setup) or None,
            "stderr_to_stdout": True,
            "additional_parameters": self.more,
        }
        return {name: value for name, value in given.items() if value is not None}

    def places(self, jobs: int | None, folder: Path) -> Sequence[Executor]:
        """Give a place for each job that is in the queue at once."""
        submitit = package("submitit", "slurm")
        if shutil.which("sbatch") is None or shutil.which("squeue") is None:
            raise UserError(
                "engine slurm: there is no sbatch here: run this on the cluster's login node, or "
                "see with --dry-run what would be submitted"
            )
        slurm = submitit.SlurmExecutor(folder=(folder / FOLDER).absolute())
        slurm.update_parameters(**self._parameters)
        executor = _SlurmExecutor(slurm)
        return [executor] * (jobs or self.jobs)

    def script(self, folder: Path) -> str:
        """Return the script that would be submitted for each run."""
        submitit = package("submitit.slurm.slurm", "slurm")
        place = (folder / FOLDER).absolute()
        command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(place)])
        return submitit._make_sbatch_string(command=command, folder=place, **self._parameters)


class _SlurmExecutor(Executor):
    """Submits jobs, and looks by one thread how all of them are."""

    def __init__(self, slurm: Any):
        self._slurm = slurm
        self._jobs: dict[Any, Future[Any]] = {}
        self._gone: dict[Any, float] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            job = self._slurm.submit(fn, *args, **kwargs)
        except Exception as error:  # submitit has errors of its own, and those of sbatch
            raise UserError(f"engine slurm: sbatch refused: {in_one_line(error)}") from error
        with self._guard:
            self._jobs[job] = future
        future.add_done_callback(lambda done: self._cancel(job) if done.cancelled() else None)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._guard:
            left = dict(self._jobs)
        if cancel_futures:
            for job in left:
                self._cancel(job)
        self._ended.set()

    def _cancel(self, job: Any) -> None:
        with self._guard:
            self._jobs.pop(job, None)
        with contextlib.suppress(OSError):
            subprocess.run(["scancel", job.job_id], capture_output=True, check=False)

    def _watch(self) -> None:
        while not self._ended.wait(BETWEEN_LOOKS if self._jobs else 0.2):
            with self._guard:
                jobs = dict(self._jobs)
            if not jobs:
                continue
            states = _queue()
            for job, future in jobs.items():
                if states is not None or job.paths.result_pickle.exists():
                    self._look(job, future, states or {})

    def _look(self, job: Any, future: Future[Any], states: dict[str, str]) -> None:
        state = states.get(job.job_id)
        if state == "PENDING":
            return
        if not future.running() and not future.set_running_or_notify_cancel():
            return
        if job.paths.result_pickle.exists():
            self._answer(job, future)
        elif state is not None:
            self._gone.pop(job, None)
        elif time.monotonic() - self._gone.setdefault(job, time.monotonic()) > GRACE:
            self._drop(job)
            error = f"its job {job.job_id} left the queue without an answer; see {job.paths.stdout}"
            future.set_exception(WorkerDiedError(error))

    def _answer(self, job: Any, future: Future[Any]) -> None:
        try:
            answer = job.result()
        except Exception as error:
            self._drop(job)
            (*_, last) = str(error).strip().splitlines() or [in_one_line(error)]  # of a traceback
            future.set_exception(WorkerDiedError(f"its job {job.job_id}: {last}"))
            return
        self._drop(job)
        for file in job.paths.folder.glob(f"{job.job_id}_*"):  # four a run, else
            file.unlink(missing_ok=True)
        future.set_result(answer)

    def _drop(self, job: Any) -> None:
        self._gone.pop(job, None)
        with self._guard:
            self._jobs.pop(job, None)


def _queue() -> dict[str, str] | None:
    """Return the states of this person's jobs by their numbers; None if the scheduler is away."""
    command = ["squeue", "--noheader", "--format=%i %T", f"--user={getpass.getuser()}"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = (line.split() for line in told.stdout.splitlines())
    return {number: state for number, state in (line for line in lines if len(line) == 2)}
