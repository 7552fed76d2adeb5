"""Lays out cells in columns for a terminal."""


def visible(text: str) -> str:
    """Make text safe to print in one line; characters without a glyph are spelt out.

    >>> visible("two\\nlines \\x1b[31m")
    'two\\\\nlines \\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def widths(rows: list[list[str]]) -> list[int]:
    """Return the width of each column's widest cell."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def columns(rows: list[list[str]], indent: str = "") -> list[str]:
    """Lay out cells as lines; each column is as wide as its widest cell.

    >>> columns([["arm", "seed"], ["identity", "0"]])
    ['arm       seed', 'identity  0']
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    wide = widths(rows)
    return [
        indent + "  ".join(c.ljust(w) for c, w in zip(row, wide, strict=True)).rstrip()
        for row in rows
    ]
