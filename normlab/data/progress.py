"""Shows how far a long piece of work is, on the standard error.

A terminal gets a bar. Anything else, such as a log file, gets a line now and then.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Show = Callable[[int, int | None], None]
"""A function of the amount that is done and of the whole amount, None if that is unknown."""


@contextmanager
def in_bytes(name: str, wanted: bool = True) -> Iterator[Show]:
    """Yield a function that shows how many bytes are done, in MB."""
    if not wanted:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bars:
            bar = bars.add_task(name, total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
    else:
        yield plain_lines(name)


@contextmanager
def in_pictures(name: str, pictures: int) -> Iterator[Callable[[], None]]:
    """Yield a function that is called once for each picture that is done.

    Nothing is shown of work that takes less than a second.
    """
    done, began, last = 0, time.monotonic(), time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bars = Progress(*columns, console=Console(stderr=True), transient=True)
        bar = bars.add_task(name, total=pictures)
        started = False

        def advance() -> None:
            nonlocal started
            bars.advance(bar)
            if not started and time.monotonic() - began > 1:
                started = True
                bars.start()

        try:
            yield advance
        finally:
            if started:
                bars.stop()
        return

    def tell() -> None:
        nonlocal done, last
        done += 1
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            print(f"{name}: {done} of {pictures} pictures", file=sys.stderr, flush=True)

    yield tell


def plain_lines(name: str, seconds: float = 10.0) -> Show:
    """Return a function that prints a line on stderr every few seconds, and one at the end."""
    last = time.monotonic()

    def show(done: int, total: int | None) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= seconds:
            last = time.monotonic()
            of_total = f" of {total / 1e6:.1f}" if total is not None else ""
            print(f"{name}: {done / 1e6:.1f}{of_total} MB", file=sys.stderr, flush=True)

    return show
