"""What a person sees while runs are made: live bars on a terminal, plain lines elsewhere."""

import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from normlab.evidence.summary import Summary
from normlab.runs.engine import RunEnded, RunStarted
from normlab.training.state import Event, Row
from normlab.training.state import Progress as StepProgress

MARKS = {
    "done": "[green]done[/]",
    "skipped": "[dim]kept[/]",
    "diverged": "[yellow]diverged[/]",
    "interrupted": "[yellow]interrupted[/]",
    "busy": "[yellow]busy[/]",
    "failed": "[red]failed[/]",
}


class Display(AbstractContextManager["Display"]):
    """Shows the engine's events as they come."""

    def __init__(self, console: Console, total_runs: int):
        self._console, self._total = console, total_runs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._all: TaskID = self._progress.add_task("runs", total=total_runs, note="")
        self._now: TaskID = self._progress.add_task("", total=None, visible=False, note="")
        self._accuracy = ""
        self._began = time.monotonic()

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, event: RunStarted | RunEnded | Event) -> None:
        """Show one event."""
        if isinstance(event, RunStarted):
            self._started(event)
        elif isinstance(event, StepProgress):
            self._progress.update(self._now, completed=event.step, total=event.steps)
        elif isinstance(event, Row):
            self._accuracy = f"test accuracy {event.metrics['test_accuracy']:.3f}"
            self._progress.update(self._now, note=self._accuracy)
        elif isinstance(event, RunEnded):
            self._ended(event)

    def _started(self, event: RunStarted) -> None:
        self._began, self._accuracy = time.monotonic(), ""
        label = f"{event.run.arm} seed {event.run.seed}"
        note = "compiling" if event.phase == "compiling" else ""
        if event.step:
            text = f"{label}: going on from step {event.step}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._progress.update(
            self._now, description=escape(label), note=note, visible=True, completed=event.step
        )

    def _ended(self, event: RunEnded) -> None:
        seconds = f"{time.monotonic() - self._began:.1f} s"
        details = f"{self._accuracy}, {seconds}" if event.state == "done" else event.message
        first, _, rest = details.partition("\n")
        self._console.print(
            f"[dim]\\[{event.index + 1}/{self._total}][/] {escape(event.run.arm)} "
            f"seed {event.run.seed}: {MARKS[event.state]} {escape(first)}",
            highlight=False,
            soft_wrap=True,
        )
        if rest:
            self._console.print(rest, markup=False, highlight=False, soft_wrap=True)
        self._progress.update(self._all, completed=event.index + 1)


def print_summary(console: Console, summary: Summary) -> None:
    """The table of an experiment; as plain text where there is no terminal to fit it to."""
    if not console.is_terminal:
        console.print(str(summary), markup=False, highlight=False, soft_wrap=True)
        return
    headings, rows = summary.table()
    table = Table()
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
