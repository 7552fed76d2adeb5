"""Shows how runs are made: a live table on a terminal, plain lines elsewhere."""

import shlex
from contextlib import AbstractContextManager

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from normlab.configs.experiment import Experiment
from normlab.engine.engine import GaveUp, Outcome, Remark, RunEnded, RunStarted, Waiting
from normlab.engine.plan import Planned
from normlab.evidence.comparison import Comparison
from normlab.interface.bars import MovingBar
from normlab.interface.terminal import places
from normlab.interface.watch import View, duration, live
from normlab.reports.english import count_runs
from normlab.reports.markdown import to_text
from normlab.reports.shown_comparison import compare
from normlab.reports.text_columns import printed, visible
from normlab.store.layout import DAMAGED
from normlab.store.seeds import seed_text
from normlab.training.events import Event

MARKS = {
    "done": "[green]done[/]",
    "skipped": "[dim]kept[/]",
    "diverged": "[yellow]diverged[/]",
    "interrupted": "[yellow]interrupted[/]",
    "busy": "[yellow]busy[/]",
    "elsewhere": "[dim]made by another shard[/]",
    "failed": "[red]failed[/]",
    DAMAGED: "[red]damaged[/]",
}

WORTH_A_LINE = 5.0
"""Seconds; a wait of less need not be told."""


class Display(AbstractContextManager["Display"]):
    """Shows the engine's events as they come, and on a terminal the runs as they are on disk.

    Args:
        console: where to.
        jobs: how many runs are made at once.
    """

    def __init__(self, console: Console, jobs: int = 1):
        self._console, self._jobs = console, jobs
        self._plan: Planned | None = None
        self._moving: Live | MovingBar | None = None

    def __exit__(self, *error: object) -> None:
        if self._moving is not None:
            self._moving.stop()

    def __call__(
        self, event: Remark | Planned | RunStarted | RunEnded | Waiting | GaveUp | Event
    ) -> None:
        """Show one event."""
        if isinstance(event, Planned):
            self._planned(event)
        elif isinstance(event, RunStarted):
            if event.step and event.phase == "training":
                label = f"{event.run.arm} seed {seed_text(event.run.seed)}"
                self._print(f"{label}: going on from step {event.step}")
        elif isinstance(event, RunEnded):
            self._ended(event)
        elif isinstance(event, Remark):
            self._print(f"warning: {event.text}")
        elif isinstance(event, Waiting):
            first, *others = [f"{run.arm} seed {seed_text(run.seed)}" for run in event.runs]
            more = f" and {len(others)} more" if others else ""
            self._print(f"waiting for another command, which makes {first}{more}; Ctrl-C ends this")
        elif isinstance(event, GaveUp):
            failed = count_runs(event.failures)
            self._print(f"{failed} failed (--max-failures); no other is begun")

    def _planned(self, plan: Planned) -> None:
        before, self._plan = self._plan, plan
        if before is None or before.runs is not plan.runs:
            self._print(describe_plan(plan))
            self._show_live(plan)
        elif not self._has_table and plan.seconds is not None and plan.seconds > WORTH_A_LINE:
            self._print(f"{duration(plan.seconds)} to go")

    @property
    def _has_table(self) -> bool:
        return isinstance(self._moving, Live)

    def _show_live(self, plan: Planned) -> None:
        if self._moving is not None:
            self._moving.stop()
        view = View(lambda: plan.runs, self._jobs)
        if self._console.is_jupyter:
            self._moving = MovingBar(view, self._jobs)
        elif self._console.is_terminal:
            self._moving = live(view, self._console, transient=True)
        if self._moving is not None:
            self._moving.start()

    def _ended(self, event: RunEnded) -> None:
        # The live table shows the others.
        if self._has_table and event.state in ("done", "skipped", "interrupted"):
            return
        total = len(self._plan.runs) if self._plan else 0
        first, _, rest = event.message.partition("\n")
        self._console.print(
            f"[dim]\\[{event.index + 1}/{total}][/] {escape(visible(event.run.arm))} "
            f"seed {seed_text(event.run.seed)}: {MARKS[event.state]} {escape(first)}",
            highlight=False,
            soft_wrap=True,
        )
        if rest:
            self._print(rest)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def describe_plan(plan: Planned) -> str:
    """Say how many runs of which length there are, and how long the unfinished ones will take.

    >>> describe_plan(Planned([], 0, (6, 6), 0.0))
    '0 runs of 6 epochs'
    """
    least, most = plan.epochs
    epochs = f"{least}" if least == most else f"{least} to {most}"
    text = f"{count_runs(len(plan.runs))} of {epochs} epoch{'' if epochs == '1' else 's'}"
    if plan.finished:
        text += f" ({plan.finished} finished)"
    return f"{text}, {duration(plan.seconds)}" if plan.seconds else text


def print_outcome(
    console: Console, experiment: Experiment, outcome: Outcome, wide: bool = False
) -> None:
    """Print what a finished or interrupted command made: question, arms, verdicts and folder."""
    console.print()
    if experiment.question:
        wraps = console.is_terminal
        console.print(experiment.question, style="bold", markup=False, soft_wrap=not wraps)
    if outcome.runs.runs:  # there are none until tuning is through
        print_comparison(console, compare(outcome.runs), wide)
        console.print()
    folder = outcome.runs.path
    # Soft, so that a long path can be copied.
    for line in (f"runs: {folder}", f"the whole report: normlab report {shlex.quote(str(folder))}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if outcome.interrupted:
        console.print("interrupted; the same command goes on from here")


def print_comparison(console: Console, comparison: Comparison, wide: bool = False) -> None:
    """Print what won, an experiment's arms and verdicts; a terminal gets lines of its own width."""
    text = to_text(comparison, places(console), wide, printed)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
