"""Prints text in lines that suit where it goes: a terminal's own width, or no limit in a pipe."""

from rich.console import Console

from normlab.reports.text_columns import wrapped

PIPED = 10_000
"""The width where there is no terminal: what reads the text there wants a line an arm."""


def places(console: Console) -> int:
    """Return how many places a line may have."""
    return console.width if console.is_terminal else PIPED


def say(text: str, console: Console | None = None) -> None:
    """Print text; on a terminal lines are broken between words."""
    console = console or Console()
    lines = [part for line in text.split("\n") for part in wrapped(line, places(console))]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
