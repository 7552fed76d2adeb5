"""Cells in columns, for text that is read in a terminal."""


def widths(rows: list[list[str]]) -> list[int]:
    """The width of each column's widest cell."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def columns(rows: list[list[str]], indent: str = "") -> list[str]:
    """Cells as lines, each column as wide as its widest cell.

    >>> columns([["arm", "seed"], ["identity", "0"]])
    ['arm       seed', 'identity  0']
    """
    wide = widths(rows)
    return [
        indent + "  ".join(c.ljust(w) for c, w in zip(row, wide, strict=True)).rstrip()
        for row in rows
    ]
