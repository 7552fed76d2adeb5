"""Fits a figure to a column of a paper or to a slide: its width, and sizes of text and lines."""

from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from rich.cells import cell_len

from normlab.errors import UserError, did_you_mean
from normlab.reports.figures.fonts import without_glyph_warnings
from normlab.reports.figures.style import LEGEND_TEXT, legend_above
from normlab.reports.text_columns import wrapped

INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
"""A TeX point is 0.4% smaller than this point, which no column notices."""

NARROWEST, WIDEST = 1.5, 40.0


@dataclass(frozen=True)
class Style:
    """Holds the sizes of text and lines relative to a report's, and a figure's usual width."""

    text: float
    lines: float
    width: float


STYLES = {"paper": Style(0.8, 0.75, 5.5), "talk": Style(1.6, 1.6, 10.0)}
"""A figure for a paper has text of 7 to 8 points, one for a talk of 14 to 16 points."""


def inches(text: str) -> float:
    """Read a width: a number of inches, or one with its unit.

    >>> inches("3.25"), round(inches("84 mm"), 3), inches("2in")
    (3.25, 3.307, 2.0)
    """
    number = text.strip()
    unit = next((unit for unit in INCHES if number.endswith(unit)), "in")
    try:
        width = float(number.removesuffix(unit)) * INCHES[unit]
    except ValueError:
        raise UserError(
            f"a width is written as 3.25, 3.25in, 84mm or 8.4cm, found '{text}'"
        ) from None
    if not NARROWEST <= width <= WIDEST:
        raise UserError(f"a width is between {NARROWEST} and {WIDEST:g} inches, found '{text}'")
    return width


def fit(figure: Figure, width: float | None = None, style: str | None = None) -> None:
    """Give a figure another width in inches, or the sizes of a style; legends fit into it.

    Raises:
        UserError: there is no such style.
    """
    if style is not None and style not in STYLES:
        raise UserError(f"no style is called '{style}'; {did_you_mean(style, STYLES)}")
    known = Style(1.0, 1.0, figure.get_figwidth()) if style is None else STYLES[style]
    new = width or known.width
    tall = figure.get_figheight() * max(known.text, new / figure.get_figwidth())
    for artist in figure.findobj():
        _scale(artist, known)
    figure.set_size_inches(new, tall)
    with without_glyph_warnings():  # saving says what no font can draw
        for legend in list(figure.legends):
            _narrow(figure, legend, LEGEND_TEXT * known.text)
        _break_labels(figure)


def _scale(artist: Artist, known: Style) -> None:
    if isinstance(artist, Text):
        artist.set_fontsize(float(artist.get_fontsize()) * known.text)
    elif isinstance(artist, Line2D):
        artist.set_linewidth(artist.get_linewidth() * known.lines)
        artist.set_markersize(artist.get_markersize() * known.lines)


def _break_labels(figure: Figure) -> None:
    """Break labels below the axes that reach beyond the figure into more lines."""
    for _ in range(3):  # the room for a label depends on the layout, and the layout on the label
        figure.draw_without_rendering()
        for axes in figure.axes:
            text = axes.xaxis.label
            extent = text.get_window_extent()
            middle = (extent.x0 + extent.x1) / 2
            room = 2 * min(middle, figure.bbox.width - middle)
            if extent.width <= room:
                continue
            lines = text.get_text().split("\n")
            longest = max(map(cell_len, lines)) * room / extent.width
            parts = [part for line in lines for part in wrapped(line, int(longest), "")]
            text.set_text("\n".join(parts))
            more = extent.height / len(lines) * (len(parts) - len(lines)) / figure.dpi
            figure.set_figheight(figure.get_figheight() + more)


def _narrow(figure: Figure, legend: Legend, size: float) -> None:
    """Give a legend fewer columns until it fits, and the figure the height that this needs."""
    figure.draw_without_rendering()
    before = legend.get_window_extent().height
    for columns in (3, 2, 1):
        if legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()  # its columns are settled when it is made
        legend_above(figure, columns, size)
        (legend,) = figure.legends
        figure.draw_without_rendering()
        more = (legend.get_window_extent().height - before) / figure.dpi
        before += more * figure.dpi
        figure.set_figheight(figure.get_figheight() + max(0.0, more))
