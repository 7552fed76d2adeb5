"""Starts the processes of `normlab launch`, shows what the first says, and ends them together."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO, Any

from normlab.engine.launched import environment
from normlab.interface.commands import NEGATIVE

SECONDS_TO_FOLLOW = 3.0
"""How long the others have to end by themselves when one of them has ended."""

SECONDS_TO_SAVE = 10.0
"""How long a process has after SIGTERM before it is killed."""

SECONDS_BETWEEN_LOOKS = 0.1

LAST_LINES = 5
"""So many lines are shown of what a process said that was not the first one."""


def launch(words: Sequence[str], count: int) -> int:
    """Run a command of normlab in several processes on this machine.

    Args:
        words: the command and its arguments.
        count: number of processes.

    Returns:
        The exit status: the first process's, or 1 if another one ended it.
    """
    address = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        processes = [_start(words, address, number, count, said) for number in range(count)]
        with _passing_on_signals(processes):
            lost = _wait(processes)
            if lost is None:
                return processes[0].returncode
            _end(processes)
        said.seek(0)
        _tell(lost, processes[lost].returncode, count, said.read() if lost else "")
    return NEGATIVE


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _start(
    words: Sequence[str], address: str, number: int, count: int, said: IO[str]
) -> subprocess.Popen[Any]:
    output = {} if number == 0 else {"stdout": said, "stderr": said, "stdin": subprocess.DEVNULL}
    command = [sys.executable, "-m", "normlab.cli", *words]
    return subprocess.Popen(command, env=os.environ | environment(address, number, count), **output)


def _wait(processes: Sequence[subprocess.Popen[Any]]) -> int | None:
    """Wait for all; return the number of one that left the others behind, or None."""
    while not any(process.poll() for process in processes):  # None while it runs, 0 if all is well
        if all(process.returncode == 0 for process in processes):
            return None
        time.sleep(SECONDS_BETWEEN_LOOKS)
    deadline = time.monotonic() + SECONDS_TO_FOLLOW
    while time.monotonic() < deadline and any(p.poll() is None for p in processes):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    ended = [process.poll() for process in processes]
    by_signal = [number for number, status in enumerate(ended) if (status or 0) < 0]
    if by_signal:
        return by_signal[0]
    if ended[0] and None not in ended:
        return None  # all ended by themselves, and the first has said why
    return next(number for number, status in enumerate(ended) if status)


def _end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(SECONDS_TO_SAVE)
        except subprocess.TimeoutExpired:  # it waits for one that is gone
            process.kill()
            process.wait()


def _tell(number: int, status: int, count: int, said: str) -> None:
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
    lines = [f"  {line}" for line in said.splitlines()[-LAST_LINES:]] if status > 0 else []
    message = (
        f"process {number} of 0 to {count - 1} {how}, and the others were ended; the same command "
        "goes on from the last checkpoint"
    )
    print("\n".join([message, *lines]), file=sys.stderr)


@contextmanager
def _passing_on_signals(processes: Sequence[subprocess.Popen[Any]]) -> Iterator[None]:
    """Let SIGTERM reach every process; Ctrl-C does so by itself."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    before_term = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, before_term)
