"""Draws text in any script: with an installed font that has it, or knowingly replaced."""

import contextlib
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from normlab.reports.text_columns import wrapped

WIDE = ("CJK", "Noto Sans", "Source Han", "Unifont", "Fallback", "Arial Unicode", "WenQuanYi")
"""Fonts whose name has one of these words are tried first: they have many scripts."""

LONGEST_NAME = 40
"""An arm's name is broken into lines of so many places."""

MOST_LINES = 2
INVISIBLE = "\N{ZERO WIDTH SPACE}\n"


class MissingGlyphsWarning(UserWarning):
    """No installed font has some characters of a picture, which shows their code points instead."""


def show_every_script(figure: Figure, replace: bool = True) -> None:
    """Give the texts of a figure fonts that have their characters.

    Args:
        figure: the figure, which is about to be drawn.
        replace: whether a character that no installed font has is replaced by its code point, as
            in `\\u540d`, with a `MissingGlyphsWarning` that names it. An SVG needs no replacement,
            because its reader's fonts draw it.
    """
    lacking: dict[str, None] = {}

    def drawable(shown: str, family: str) -> tuple[str, list[str]]:
        more, rest = _fonts_for(_lacking(shown, family))
        if not rest or not replace:
            return shown, more
        lacking.update(dict.fromkeys(rest))
        whole = "".join(_code_point(c) if c in rest else c for c in shown)
        lines = [p for line in whole.split("\n") for p in wrapped(line, LONGEST_NAME, "")]
        if len(lines) > MOST_LINES:  # code points make a name six times as long
            lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1] + "…"]
        return "\n".join(lines), more

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = axis.get_ticklabels()
            names = [tick.get_text() for tick in ticks]
            if all(map(str.isascii, names)) or not isinstance(
                axis.get_major_locator(), FixedLocator
            ):
                continue
            # Ticks write their labels anew when they are drawn, so the axis has to know them.
            family = ticks[0].get_fontname()
            axis.set_ticks(axis.get_ticklocs(), [drawable(name, family)[0] for name in names])
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text().isascii():
            continue
        shown, more = drawable(text.get_text(), text.get_fontname())
        if more:
            text.set_fontfamily([text.get_fontname(), *more])
        text.set_text(shown)
    if lacking:
        warnings.warn(
            f"no installed font has the characters {' '.join(lacking)}, so the picture shows their "
            "code points; install a font that has them, such as Noto Sans CJK, or write an .svg",
            MissingGlyphsWarning,
            stacklevel=2,
        )


@contextlib.contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Silence matplotlib where its fonts do not draw the text, as in an SVG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _code_point(character: str) -> str:
    # A backslash alone is drawn as it is: only a dollar begins mathematics.
    return character.encode("unicode_escape").decode()


def _lacking(text: str, family: str) -> tuple[str, ...]:
    """List the characters that the font of a text lacks."""
    if text.isascii():
        return ()
    return tuple(c for c in dict.fromkeys(text) if c not in INVISIBLE and not _has(family, c))


@cache
def _has(family: str, character: str) -> bool:
    return _in_file(font_manager.findfont(family), character)


def _in_file(path: str, character: str) -> bool:
    return bool(font_manager.get_font(path).get_char_index(ord(character)))


@cache
def _fonts_for(characters: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Find families that have the characters, and list the characters that no font has."""
    found, rest = [], list(characters)
    for name, path in _candidates():
        if not rest:
            break
        covered = [c for c in rest if _in_file(path, c)]
        if covered:
            found.append(name)
            rest = [c for c in rest if c not in covered]
    return found, rest


@cache
def _candidates() -> list[tuple[str, str]]:
    """List the installed families with a file of each, those of many scripts first."""
    families: dict[str, str] = {}
    for entry in font_manager.fontManager.ttflist:
        plain = entry.style == "normal" and str(entry.weight) in ("400", "normal", "regular")
        # The last resort, which comes with matplotlib, draws the same box for a whole script.
        if plain and "Last Resort" not in entry.name and Path(entry.fname).exists():
            families.setdefault(entry.name, entry.fname)
    return sorted(families.items(), key=lambda pair: (not any(w in pair[0] for w in WIDE), pair))
