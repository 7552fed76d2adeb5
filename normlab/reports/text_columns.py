"""Lays out cells in columns for a terminal; a wide character takes two places."""

import re
import sys

from rich.cells import cell_len

LEAST_FIRST = 12
"""The first column has at least so many places; a longer cell stands in a line of its own."""

BREAKABLE = re.compile(r"(?<=[ ,(=/_\-])")
"""A name without spaces is broken after one of these characters, if it must be."""


def visible(text: str) -> str:
    """Make text safe to print in one line; characters without a glyph are spelt out.

    >>> visible("two\\nlines \\x1b[31m")
    'two\\\\nlines \\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printed(text: str) -> str:
    """Make text safe to print, and spell out what the command line's output cannot show.

    The command line sets its output to replace such characters. What is spelt out before the
    layout has its true width.
    """
    text, out = visible(text), sys.stdout
    if getattr(out, "errors", None) != "backslashreplace":
        return text
    return text.encode(out.encoding, "backslashreplace").decode(out.encoding)


def widths(rows: list[list[str]]) -> list[int]:
    """Return the width of each column's widest cell, in places of a terminal."""
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def columns(rows: list[list[str]], indent: str = "") -> list[str]:
    """Lay out cells as lines; each column is as wide as its widest cell.

    >>> columns([["arm", "seed"], ["identity", "0"]])
    ['arm       seed', 'identity  0']
    """
    rows = [[printed(cell) for cell in row] for row in rows]
    return [indent + line for line in _lines(rows, widths(rows))]


def fitted(headings: list[str], rows: list[list[str]], width: int) -> list[str]:
    """Lay out a table in at most `width` places, with a rule below its headings.

    Columns that do not fit beside each other follow below, with the first column repeated. A
    column that alone is too wide becomes a list. A first cell that is too long stands in a line
    of its own above the others. No number is cut, and a word is broken only if it is wider than
    the terminal.

    >>> for line in fitted(["arm", "n", "mean"], [["group_norm(groups=8)", "5", "0.123"]], 25):
    ...     print(line)
    arm  n   mean
    ---  -  -----
    group_norm(groups=8)
         5  0.123
    """
    table = [[visible(cell) for cell in row] for row in (headings, *rows)]
    own = widths(table)
    least = min(own[0], LEAST_FIRST)
    if least + sum(wide + 2 for wide in own[1:]) > width:  # several blocks have room for names
        least = min(own[0], max(LEAST_FIRST, width * 2 // 5))
    wide = [i for i in range(1, len(own)) if least + 2 + own[i] > width]
    blocks: list[list[int]] = [[]]
    for i in range(1, len(own)):
        if i in wide:
            continue
        if blocks[-1] and least + sum(own[j] + 2 for j in (*blocks[-1], i)) > width:
            blocks.append([])
        blocks[-1].append(i)
    lines: list[str] = []
    for block in blocks:
        if lines:
            lines.append("")
        lines += _block(table, [own[i] for i in block], block, width)
    for i in wide:
        lines += ["", f"{table[0][i]}:"]
        lines += [part for row in table[1:] for part in wrapped(f"{row[0]}: {row[i]}", width)]
    return lines


def _block(table: list[list[str]], own: list[int], block: list[int], width: int) -> list[str]:
    """Lay out the first column and some others."""
    room = max(1, width - sum(wide + 2 for wide in own))
    fitting = [cell_len(row[0]) for row in table if cell_len(row[0]) <= room]
    first = max(fitting, default=min(room, LEAST_FIRST))
    lines = []
    for index, row in enumerate(table):
        name = row[0]
        if cell_len(name) > first:
            lines += wrapped(name, width)
            name = ""
        lines += _lines([[name, *(row[i] for i in block)]], [first, *own], right=True)
        if index == 0:
            lines += _lines([["-" * wide for wide in (first, *own)]], [first, *own])
    return lines


def _lines(rows: list[list[str]], wide: list[int], right: bool = False) -> list[str]:
    return [
        "  ".join(
            _padded(cell, room, right and place > 0)
            for place, (cell, room) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in rows
    ]


def _padded(cell: str, room: int, right: bool) -> str:
    space = " " * (room - cell_len(cell))
    return space + cell if right else cell + space


def wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    """Break text into lines of at most `width` places, between words; later lines are indented.

    A word that is wider than a line is broken after a sign such as "_" or ",", or where it must.

    >>> wrapped("one two three", 8)
    ['one two', '  three']
    """
    words = text.lstrip(" ")
    lead = text[: len(text) - len(words)]
    lines, line, indent = [], lead, lead + indent
    for part in re.findall(r"\S+|\s+", words):
        if part.isspace():
            line += part if line.strip() else ""
            continue
        if cell_len(line) + cell_len(part) <= width:
            line += part
            continue
        if line.strip():
            lines.append(line.rstrip())
            line = indent
        while cell_len(line) + cell_len(part) > width:
            piece = _piece(part, max(1, width - cell_len(line)))
            lines.append(line + piece)
            line, part = indent, part[len(piece) :]
        line += part
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _piece(word: str, room: int) -> str:
    """Return the longest beginning of a word that fits, and ends where a word may be broken."""
    fits = 1
    while fits < len(word) and cell_len(word[: fits + 1]) <= room:
        fits += 1
    ends = [found.start() for found in BREAKABLE.finditer(word) if 0 < found.start() <= fits]
    return word[: ends[-1] if ends else fits]
