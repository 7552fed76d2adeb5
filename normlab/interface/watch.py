"""Shows a sweep at a glance, read from its runs' folders; nothing here imports jax."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from normlab.engine.progress import Observer, Snapshot, seconds_left
from normlab.reports.text_columns import visible
from normlab.store.layout import DAMAGED, FINISHED
from normlab.store.loading import load
from normlab.store.record import Record
from normlab.store.run import Run
from normlab.store.runs import Runs
from normlab.store.seeds import seed_text

REFRESHES_PER_SECOND = 2
BLOCKS = "▁▂▃▄▅▆▇█"
BAR, SPARKLINE = 16, 16
"""Their widths in characters; a narrow terminal shows neither."""
NAME, PROGRESS, CURVE = 1, 3, 5
"""Places of cells in a row."""
LEAST_NAME = 8
PLAIN_WIDTH = 160
"""Where there is no terminal to fit to."""

COLOURS = {
    "running": "cyan",
    "done": "green",
    "diverged": "yellow",
    "interrupted": "yellow",
    "stopped": "yellow",
    "failed": "red",
    DAMAGED: "red",
}
WORDS = {"new": "waiting"}
ORDER = ("done", "diverged", "failed", DAMAGED, "running", "interrupted", "stopped", "new")


class View:
    """Draws the table of a sweep's runs as they are at that moment.

    Args:
        runs: asked at every drawing, so that runs may be added to the sweep.
        jobs: how many runs are made at once; None for as many as are running.
    """

    def __init__(self, runs: Callable[[], Sequence[Run | Record]], jobs: int | None = None):
        self._runs, self._jobs = runs, jobs
        self._observer = Observer()

    def look(self) -> list[Snapshot]:
        """Return the runs as they are now."""
        return self._observer.look(self._runs())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        snapshots = self.look()
        # Two lines below the table (three with a damaged run), and one that the cursor needs.
        lines = (
            max(1, console.height - 3 - any(s.damage for s in snapshots))
            if console.is_terminal
            else len(snapshots)
        )
        shown = _most_telling(snapshots, lines)
        table = Table.grid(padding=(0, 2, 0, 0))
        top = max((max(s.accuracies, default=0.0) for s in snapshots), default=0.0)
        rows = [_cells(snapshot, top) for snapshot in shown]
        if console.is_terminal:
            rows = _fitted(rows, console.width)
        for _ in rows[0] if rows else []:
            table.add_column(no_wrap=True)
        for row in rows:
            table.add_row(*row)
        yield table
        hidden = list(snapshots)
        for snapshot in shown:
            hidden.remove(snapshot)
        if hidden:
            yield Text(f"not shown: {_counts(hidden)}", style="dim")
        damage = [s.damage for s in snapshots if s.damage]
        if damage and not console.is_terminal:
            yield from map(Text, damage)
        elif damage:  # in the place that there is
            yield Text(damage[0], style="red", no_wrap=True, overflow="ellipsis")
        yield Text(summary(snapshots, self._jobs), no_wrap=True, overflow="ellipsis")


def _most_telling(snapshots: list[Snapshot], lines: int) -> list[Snapshot]:
    """Choose as many as fit: what runs, then what ended last; in the order of the sweep."""
    if len(snapshots) <= lines:
        return snapshots

    def rank(index: int) -> tuple[bool, float]:
        snapshot = snapshots[index]
        return snapshot.state != "running", -snapshot.changed

    chosen = sorted(range(len(snapshots)), key=rank)[: max(1, lines - 1)]
    return [snapshots[index] for index in sorted(chosen)]


def _cells(snapshot: Snapshot, top: float) -> list[Text]:
    s = snapshot
    colour = COLOURS.get(s.state, "dim")
    known = s.steps is not None
    word = "compiling" if s.state == "running" and not known else WORDS.get(s.state, s.state)
    filled = round(BAR * s.step / s.steps) if s.steps else 0
    bar = Text.assemble(("━" * filled, colour), ("─" * (BAR - filled), "dim"))
    return [
        Text(word, style=colour),
        Text(visible(s.arm)),
        Text(f"seed {seed_text(s.seed)}"),
        bar if known else Text(""),
        Text(f"{s.step}/{s.steps}" if known else "", justify="right"),
        Text(sparkline(s.accuracies, top), style=colour),
        Text(f"{s.accuracies[-1]:.3f}" if s.accuracies else ""),
    ]


def _fitted(rows: list[list[Text]], width: int) -> list[list[Text]]:
    """Leave out curves, then bars, then ends of names, until a row fits and no number is cut."""

    def spare() -> int:
        wide = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
        return width - sum(wide) - 2 * len(wide)

    for column in (CURVE, PROGRESS):
        if rows and spare() < 0:
            rows = [row[:column] + row[column + 1 :] for row in rows]
    if rows and (lacking := -spare()) > 0:
        longest = max(row[NAME].cell_len for row in rows)
        for row in rows:
            row[NAME].truncate(max(LEAST_NAME, longest - lacking), overflow="ellipsis")
    return rows


def sparkline(values: tuple[float, ...], top: float, width: int = SPARKLINE) -> str:
    """Draw values from 0 to `top` as blocks; of more than `width` values, the last of each portion.

    >>> sparkline((0.0, 0.5, 1.0), top=1.0)
    '▁▅█'
    """
    if len(values) > width:
        values = tuple(values[(i + 1) * len(values) // width - 1] for i in range(width))
    highest = len(BLOCKS) - 1
    return "".join(BLOCKS[min(highest, int(v / top * len(BLOCKS))) if top else 0] for v in values)


def summary(snapshots: list[Snapshot], jobs: int | None = None) -> str:
    """Say in one line how many runs are in which state, and when they will be finished."""
    counts = _counts(snapshots)
    running = sum(s.state == "running" for s in snapshots)
    text = f"{len(snapshots)} {'run' if len(snapshots) == 1 else 'runs'}: {counts}"
    if not running:
        unfinished = any(s.state not in FINISHED for s in snapshots)
        return f"{text}; nothing is running" if unfinished and jobs is None else text
    seconds = seconds_left(snapshots, jobs or running)
    if seconds is None:
        return text
    end = datetime.fromtimestamp(time.time() + seconds)
    day = "" if end.date() == datetime.now().date() else f"{end:%a %d %b} "
    return f"{text}; {duration(seconds)} to go ({day}{end:%H:%M})"


def _counts(snapshots: list[Snapshot]) -> str:
    counts = Counter(s.state for s in snapshots)
    return ", ".join(f"{counts[s]} {WORDS.get(s, s)}" for s in ORDER if counts[s])


def duration(seconds: float) -> str:
    """Say in words about how long it takes.

    >>> duration(8), duration(100), duration(5000), duration(200_000)
    ('about 8 s', 'about 2 min', 'about 1 h 23 min', 'about 2 d 7 h')
    """
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"about {hours} h {minutes} min"
    return f"about {hours // 24} d {hours % 24} h"


def live(view: View, console: Console, transient: bool = False) -> Live:
    """Draw the view again and again on a terminal, while the result is entered."""
    return Live(
        view,
        console=console,
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=transient,
        vertical_overflow="crop",
    )


def watch(path: Path, console: Console, once: bool = False) -> None:
    """Show an experiment's runs, or one run, until they are all finished.

    Args:
        path: an experiment's folder or a run's.
        console: where to.
        once: show them as they are now; so it is too where the console is no terminal.

    Raises:
        UserError: the folder is neither.
    """
    view = View(lambda: _runs(path))
    view.look()  # a wrong path is told before anything is drawn
    if once or not console.is_terminal:
        width = None if console.is_terminal else PLAIN_WIDTH
        console.print(view, width=width, crop=False)
        return
    with live(view, console):
        while not _is_over(path, view):
            time.sleep(1 / REFRESHES_PER_SECOND)


def _runs(path: Path) -> Sequence[Run | Record]:
    found = load(path)
    if isinstance(found, Run):
        return [found]
    return [*found.trials, *found.runs]


def _is_over(path: Path, view: View) -> bool:
    found = load(path)
    # While arms are tuned, the runs that the trials lead to are not known.
    tuning = isinstance(found, Runs) and not found.runs
    return not tuning and all(s.state in (*FINISHED, DAMAGED) for s in view.look())
