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
from pathlib import Path
from typing import Any

stopping = threading.Event()
"""In a worker: whether it was asked to end its run."""


class WorkerDiedError(Exception):
    """The process ended before it answered."""


class Worker(Executor):
    """Runs one process, which does what it is given in turn.

    Args:
        cores: the processor cores that it keeps to; empty for all.
    """

    def __init__(self, cores: set[int]):
        # The paths, so that it finds what this process finds; the arguments, because provenance
        # tells them.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; sys.argv[:] = {sys.argv!r}; "
            f"from normlab.engine.worker import serve; serve({cores or set()!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops it
        )
        self._thread = ThreadPoolExecutor(1)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let the worker call a function of some module; all that it takes and gives is pickled.

        The future raises `WorkerDiedError` if there is no answer.
        """
        return self._thread.submit(self._call, (fn, args, kwargs))

    def _call(self, task: tuple[Callable[..., Any], tuple, dict]) -> Any:
        commands, answers = self._process.stdin, self._process.stdout
        assert commands is not None and answers is not None
        try:
            pickle.dump(task, commands)
            commands.flush()
            answer, error = pickle.load(answers)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            raise WorkerDiedError(self._obituary()) from None
        if error is not None:
            raise error
        return answer

    def _obituary(self) -> str:
        status = self._process.wait()
        how = f"ended with status {status}"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        hint = "; was memory short?" if status == -signal.SIGKILL else ""
        return f"the process that made it (pid {self._process.pid}) {how}{hint}"

    def stop(self) -> None:
        """Let the worker end its run, which can be resumed, and then itself; return at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it may be dead, with a command not yet flushed
            self._process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Call `stop()`, and wait until the process is gone."""
        self.stop()
        self._thread.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()


def shares(workers: int) -> list[set[int]]:
    """Deal out this process's cores; the sets are empty where a system does not name them."""
    if not hasattr(os, "sched_getaffinity"):
        return [set() for _ in range(workers)]
    cores = sorted(os.sched_getaffinity(0))
    if workers > len(cores):
        return [{cores[i % len(cores)]} for i in range(workers)]
    # Neighbours stay together: they are likelier to share a cache.
    bounds = [i * len(cores) // workers for i in range(workers + 1)]
    return [set(cores[bounds[i] : bounds[i + 1]]) for i in range(workers)]


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
