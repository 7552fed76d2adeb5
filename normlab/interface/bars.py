"""A bar that moves while something is trained, in a notebook or on a terminal."""

import threading
from contextlib import AbstractContextManager
from html import escape
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from normlab.interface.watch import View, summary
from normlab.store.layout import FINISHED
from normlab.store.seeds import seed_text

SECONDS = 0.5
"""The time between two looks at runs that are being made."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, which shows HTML."""
    return Console().is_jupyter


class Bar(AbstractContextManager["Bar"]):
    """A bar with a text, drawn anew in its place by each call; it stays when all is done.

    In a notebook it is one output, which is replaced; elsewhere rich draws it on the terminal.
    """

    def __init__(self) -> None:
        self._is_html = in_notebook()
        self._handle: Any = None
        self._rich: Progress | None = None

    def __call__(self, text: str, share: float) -> None:
        """Show the text and the share that is done."""
        if self._is_html:
            self._show_html(text, share)
            return
        if self._rich is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._rich = Progress(*columns)
            self._rich.add_task(text, total=1.0)
            self._rich.start()
        self._rich.update(self._rich.task_ids[0], completed=share, description=text)

    def _show_html(self, text: str, share: float) -> None:
        # Every notebook's kernel has it; normlab does not need it elsewhere.
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        bar = f"<progress value='{share:.4f}' max='1' style='width:12em'></progress>"
        shown = HTML(f"{bar} <span style='font-variant-numeric:tabular-nums'>{escape(text)}</span>")
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def __exit__(self, *error: object) -> None:
        if self._rich is not None:
            self._rich.stop()


class MovingBar:
    """A bar for the runs of a sweep, which reads from their folders how far each of them is.

    So it moves within a run too, whichever process makes it.

    Args:
        view: the runs.
        jobs: how many are made at once.
    """

    def __init__(self, view: View, jobs: int):
        self._view, self._jobs, self._bar = view, jobs, Bar()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._move, daemon=True)

    def start(self) -> None:
        """Draw the bar, and go on drawing it until `stop`."""
        self._draw()
        self._thread.start()

    def stop(self) -> None:
        """Draw the bar as things are at the end."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
            self._draw()

    def _move(self) -> None:
        while not self._stopped.wait(SECONDS):
            self._draw()

    def _draw(self) -> None:
        snapshots = self._view.look()
        running = [s for s in snapshots if s.state == "running" and s.steps]
        now = "".join(
            f"; {s.arm} seed {seed_text(s.seed)}: step {s.step} of {s.steps}" for s in running
        )
        parts = [
            1.0 if s.state in FINISHED else s.step / s.steps if s.steps else 0.0 for s in snapshots
        ]
        self._bar(f"{summary(snapshots, self._jobs)}{now}", sum(parts) / max(1, len(parts)))
