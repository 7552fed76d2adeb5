"""The look of the figures.

Colours are Okabe and Ito's, which colour-blind people can tell apart. Every arm also has a
marker or a dash of its own.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from rich.cells import cell_len

from normlab.evidence.comparison import Arm, Comparison
from normlab.reports.figures.fonts import LONGEST_NAME, show_every_script, without_glyph_warnings
from normlab.reports.text_columns import visible, wrapped

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a0882b", "#7f7f7f")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)), (0, (3, 1)))

INK, FAINT = "#1b1f24", "#8a8f98"
"""The colours of text and lines; a page replaces them by its own, light or dark."""

WIDTH = 6.6
"""The width of every figure, in inches."""

MOST_WITHIN = 8
"""A legend of more entries would cover the lines."""

SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "normlab", "font.family": "sans-serif"}
"""Text stays text, and the same figure gives the same bytes."""


TRUETYPE: Any = {"pdf.fonttype": 42, "ps.fonttype": 42}
"""Journals refuse matplotlib's default, fonts of type 3."""


class Picture(Figure):
    """A figure that a notebook shows without pyplot, which would keep it open."""

    def savefig(self, fname: Any, *, transparent: Any = None, **options: Any) -> None:
        """Write the figure as matplotlib does, with text of any script and TrueType fonts."""
        name = fname if isinstance(fname, str | Path) else ""
        form = (
            options.get("format") or Path(name).suffix[1:] or matplotlib.rcParams["savefig.format"]
        )
        text_stays = form == "svg" and matplotlib.rcParams["svg.fonttype"] == "none"
        show_every_script(self, replace=not text_stays)
        with matplotlib.rc_context(TRUETYPE), without_glyph_warnings():
            super().savefig(fname, transparent=transparent, **options)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def save(figure: Figure, file: Any, **options: Any) -> None:
    """Write a figure; the same figure gives the same bytes, and an SVG keeps its text as text.

    Args:
        figure: the figure.
        file: a path, or a file that is open for writing; the latter needs the option `format`.
        **options: as `Figure.savefig` takes them.
    """
    is_svg = "svg" in (options.get("format"), str(getattr(file, "suffix", ""))[1:])
    metadata: Any = {"Date": None, "Creator": None} if is_svg else None
    with matplotlib.rc_context(SVG):
        figure.savefig(file, metadata=metadata, **options)


def blank(height: float) -> tuple[Figure, Any]:
    """Make an empty figure in the house's style."""
    figure = Picture(figsize=(WIDTH, height), layout="constrained")
    return figure, framed(figure.add_subplot())


def framed(axes: Any) -> Any:
    """Give axes the house's style."""
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    axes.tick_params(colors=INK, length=3, labelsize=9)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    axes.grid(True, color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def plain(text: Any) -> str:
    """Escape text so that matplotlib draws it as it is: no mathematics, no hidden labels.

    >>> plain("$x$"), plain(8)
    ('\\\\$x\\\\$', '8')
    """
    shown = visible(str(text)).replace("$", r"\$")
    # A legend leaves out what begins with an underscore.
    return f"\N{ZERO WIDTH SPACE}{shown}" if shown.startswith("_") else shown


ACROSS = {
    "step": "optimiser steps",
    "epoch": "epochs",
    "train_seconds": "seconds of training",
    "batch_size": "batch size (examples)",
    "learning_rate": "learning rate",
    "depth": "depth (layers)",
    "width": "width (channels)",
    "epochs": "epochs",
    "train_examples": "training examples",
}
"""The words at the horizontal axis, with the unit; any other name stands as it is written."""

LONGEST_LABEL = 62
"""A label of an axis is broken into lines of so many characters."""


def across(name: str) -> str:
    """Name a horizontal axis in words.

    >>> across("batch_size"), across("weight_decay")
    ('batch size (examples)', 'weight decay')
    """
    return ACROSS.get(name) or plain(name.replace("_", " "))


def label(text: str, longest: int = LONGEST_LABEL) -> str:
    """Escape the label of an axis, and break a long one into lines between words."""
    whole, bracket, unit = text.rpartition(" (")
    parts = [whole, f"({unit}"] if bracket and cell_len(text) > longest else [text]
    return "\n".join(plain(line) for part in parts for line in wrapped(part, longest, ""))


def row_names(names: list[str]) -> tuple[list[str], int]:
    """Break the names of rows into lines, and say how many places a label below has then."""
    # A name with many arguments in one line would leave no room for the picture.
    lines = [wrapped(name, LONGEST_NAME, "") for name in names]
    widest = max((cell_len(line) for own in lines for line in own), default=0)
    return ["\n".join(map(plain, own)) for own in lines], min(LONGEST_LABEL, 80 - widest)


def legend(axes: Any) -> None:
    """Add a legend, if there is something to tell apart; a long one stands above the axes."""
    count = len(axes.get_legend_handles_labels()[0])
    if count > MOST_WITHIN:
        figure = axes.figure
        lines = 2 * math.ceil(count / 2)  # a long name takes two
        figure.set_figheight(figure.get_figheight() + 0.11 * lines)
        legend_above(figure, columns=2)
    elif count:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


LEGEND_TEXT = 9.0


def legend_above(figure: Figure, columns: int = 4, size: float = LEGEND_TEXT) -> None:
    """Add one legend above all axes of a figure; it has each label once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault("\n".join(wrapped(label, LONGEST_NAME, "")), handle)
    if found:
        figure.legend(found.values(), found.keys(), loc="outside upper left", frameon=False,
                      fontsize=size, labelcolor=INK, ncols=min(columns, len(found)))  # fmt: skip


def in_order(found: list[Any]) -> list[Any]:
    """Sort distinct values: numbers by size, names as they come."""
    distinct = list(dict.fromkeys(found))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in distinct)
    return sorted(distinct) if numbers else distinct


def colour(comparison: Comparison, arm: Arm) -> str:
    """Return an arm's colour."""
    return COLOURS[_index(comparison, arm) % len(COLOURS)]


def marker(comparison: Comparison, arm: Arm) -> str:
    """Return an arm's marker."""
    return turned(MARKERS, _index(comparison, arm))


def dash(comparison: Comparison, arm: Arm) -> Any:
    """Return an arm's line style."""
    return turned(DASHES, _index(comparison, arm))


def turned(choices: Sequence[Any], index: int) -> Any:
    """Choose a marker or a dash; colours repeat from the ninth on, but not together with these."""
    return choices[(index + index // len(COLOURS)) % len(choices)]


def _index(comparison: Comparison, arm: Arm) -> int:
    """Return an arm's place in the plan, which no baseline, measure or order of rows changes."""
    places = {id(record): place for place, record in enumerate(comparison.records)}
    first = {one.name: min(places[id(r)] for r in one.records) for one in comparison.arms}
    return sorted(first, key=first.__getitem__).index(arm.name)
