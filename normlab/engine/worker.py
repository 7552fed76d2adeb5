"""Starts a second Python process that makes runs, behind the `Executor` interface.

The standard library's process pool is not used: it ends every worker when one is killed, starts by
running the caller's own script again, and leaves its workers behind when the caller is killed.
Here a worker is told what to do on its standard input. When that ends, by `stop()` or because the
process at the other end is no more, the worker ends its run as after Ctrl-C, and then itself.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

stopping = threading.Event()
"""In a worker: whether it was asked to end its run."""


MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
"""The variable by which JAX is told how much of a GPU's memory to take."""

PREALLOCATED = 0.75
"""The part of a GPU's memory that JAX takes if it is not told."""


class WorkerDiedError(Exception):
    """The process ended before it answered."""


@dataclass(frozen=True)
class Share:
    """Says what a worker has of its machine.

    Attributes:
        cores: the processor cores that it keeps to; empty for all.
        gpus: the GPUs that it sees, as `CUDA_VISIBLE_DEVICES` has them; None for all.
        of_each: its part of the memory of these GPUs, or None for as much as JAX takes.
    """

    cores: frozenset[int] = frozenset()
    gpus: tuple[str, ...] | None = None
    of_each: float | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that must be set before JAX is imported."""
        told: dict[str, str] = {}
        if self.gpus is not None:
            told["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        if self.of_each is not None and MEMORY not in os.environ:
            told[MEMORY] = f"{self.of_each:.3f}"
        return told


class Worker(Executor):
    """Runs one process, which does what it is given in turn.

    The process begins with the first thing to do. Another one takes its place when it is lost.

    Args:
        share: what it has of the machine.
        folder: its current folder; None for this process's.
    """

    def __init__(self, share: Share | None = None, folder: str | None = None):
        self._share, self._folder = share or Share(), folder
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def _begin(self) -> None:
        # The paths, so that it finds what this process finds; the arguments, because provenance
        # tells them.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; sys.argv[:] = {sys.argv!r}; "
            f"from normlab.engine.worker import serve; serve({set(self._share.cores)!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops it
            env={**os.environ, **self._share.environment},
            cwd=self._folder,
        )
        self._thread = ThreadPoolExecutor(1)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let the worker call a function of some module; all that it takes and gives is pickled.

        The future raises `WorkerDiedError` if there is no answer.
        """
        if self._thread is None:
            self._begin()
        assert self._thread is not None and self._process is not None
        return self._thread.submit(_call, self._process, (fn, args, kwargs))

    @property
    def has_process(self) -> bool:
        """Return whether its process has begun and is not lost."""
        return self._process is not None

    def stop(self) -> None:
        """Let the worker end its run, which can be resumed, and then itself; return at once."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it may be dead, with a command not yet flushed
                self._process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Call `stop()`, and wait until the process is gone."""
        self.stop()
        process, thread = self._process, self._thread
        self._process = self._thread = None
        if process is None or thread is None:
            return
        thread.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _call(process: subprocess.Popen[bytes], task: tuple[Callable[..., Any], tuple, dict]) -> Any:
    commands, answers = process.stdin, process.stdout
    assert commands is not None and answers is not None
    try:
        pickle.dump(task, commands)
        commands.flush()
        answer, error = pickle.load(answers)
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        raise WorkerDiedError(_obituary(process)) from None
    if error is not None:
        raise error
    return answer


def _obituary(process: subprocess.Popen[bytes]) -> str:
    status = process.wait()
    how = f"ended with status {status}"
    if status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
    hint = "; was memory short?" if status == -signal.SIGKILL else ""
    return f"the process that made it (pid {process.pid}) {how}{hint}"


def shares(workers: int, gpus: int = 1) -> list[Share]:
    """Deal out this process's cores and GPUs; where a system does not name them, all have all.

    Args:
        workers: how many share them.
        gpus: how many GPUs each has. Workers share GPUs where there are fewer.
    """
    cores, found = _cores(workers), visible_gpus()
    if not found:
        return [Share(own) for own in cores]
    dealt = [
        tuple(found[(i * gpus + k) % len(found)] for k in range(min(gpus, len(found))))
        for i in range(workers)
    ]
    on_one = -(-workers * gpus // len(found))
    part = PREALLOCATED / on_one if on_one > 1 else None
    return [Share(own, gpu, part) for own, gpu in zip(cores, dealt, strict=True)]


def _cores(workers: int) -> list[frozenset[int]]:
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * workers
    cores = sorted(os.sched_getaffinity(0))
    if workers > len(cores):
        return [frozenset({cores[i % len(cores)]}) for i in range(workers)]
    # Neighbours stay together: they are likelier to share a cache.
    bounds = [i * len(cores) // workers for i in range(workers + 1)]
    return [frozenset(cores[bounds[i] : bounds[i + 1]]) for i in range(workers)]


def visible_gpus() -> list[str]:
    """Name the GPUs of NVIDIA that this process may use, without JAX, which would take them."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [one.strip() for one in told.split(",") if one.strip() not in ("", "-1")]
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i, _ in enumerate(folder.iterdir())] if folder.is_dir() else []


def told_of_idle_gpus(jobs: int, runs: int) -> str:
    """Say that GPUs are idle while there are more runs than are made at once; else nothing.

    >>> told_of_idle_gpus(1, 1)
    ''
    """
    gpus = len(visible_gpus())
    if jobs >= min(gpus, runs):
        return ""
    return f"{gpus - jobs} of {gpus} GPUs are idle: --jobs {min(gpus, runs)} gives each a run"


def serve(cores: set[int]) -> None:
    """Answer commands until there are no more, as a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    # Whatever a run prints goes to the standard error; answers have the standard output alone.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from normlab.engine.process import prepare

    # Before it is kept to some cores, so that it finds what other processes have compiled.
    prepare()
    _keep_to(cores)

    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(tasks,), daemon=True).start()
    while (task := tasks.get()) is not None:
        function, arguments, keywords = task
        try:
            answer = function(*arguments, **keywords), None
        except Exception as error:
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            answer = None, error
        try:
            answers.write(pickle.dumps(answer))
            answers.flush()
        except OSError:
            break  # nobody listens any more


def _keep_to(cores: set[int]) -> None:
    """Let every thread stay on some cores, if any are named."""
    threads = Path("/proc/self/task")
    if not cores or not threads.is_dir():
        return
    # XLA makes its threads first, as many as in a process with all the cores. With as many as it
    # has cores it would be a little faster, but it adds up in portions, one a thread: a run would
    # come out differently with --jobs.
    import jax

    from normlab.engine.process import usable_cores

    usable_cores()  # is remembered as it is now
    jax.devices()
    for thread in threads.iterdir():
        with contextlib.suppress(ProcessLookupError):  # it ended in the meantime
            os.sched_setaffinity(int(thread.name), cores)


def _read(tasks: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            tasks.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        pass
    finally:
        stopping.set()
        tasks.put(None)
