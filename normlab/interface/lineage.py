"""Tells where the normalisers belong and which came from which, from what each entry declares."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from normlab.catalogue import NORMS, PLACEMENTS, Entry
from normlab.reports.text_columns import wrapped

GROUPS = {
    "batch": "statistics of the batch",
    "batch and example": "statistics of the batch and of each example",
    "example": "statistics of each example",
    "element-wise": "no statistics: element by element",
    "fused": "normaliser and activation in one",
}
"""The groups in which the literature places normalisers, in the order of their listing."""

PLACEMENT = "placement"
"""The heading of what is no formula of the input but a place in the network."""

COLOURS = {
    "batch": "#1f5fa8",
    "batch and example": "#6b4fa0",
    "example": "#1c7c54",
    "element-wise": "#8a5a12",
    "fused": "#a8324a",
}
YEAR, LETTER, ROW, LEFT, TOP = 104, 7.2, 34, 30, 64
"""Sizes in the picture: of a year, of a letter, of a row, and the two margins."""


def year(entry: Entry) -> int | None:
    """Return the year of an entry's first paper, if its decorator names one.

    >>> year(NORMS.find("group_norm")), year(NORMS.find("identity"))
    (2018, None)
    """
    paper = str(entry.told.get("paper", ""))
    found = re.match(r"arXiv:(\d\d)\d\d\.|.*?\b((?:19|20)\d\d)\b", paper)
    if found is None:
        return None
    return 2000 + int(found[1]) if found[1] else int(found[2])


def after(entry: Entry) -> tuple[str, ...]:
    """Return the names of the entries that an entry declares it came from."""
    return tuple(entry.told.get("after", ()))


def grouped() -> dict[str, list[Entry]]:
    """Return the normalisers by group, the oldest first.

    >>> [entry.name for entry in grouped()["fused"]]
    ['filter_response_norm', 'evo_norm_b0', 'evo_norm_s0', 'proxy_group_norm']
    """
    found: dict[str, list[Entry]] = {group: [] for group in GROUPS}
    for entry in sorted(NORMS.entries().values(), key=lambda one: (year(one) or 0, one.name)):
        found[entry.told.get("group", "")].append(entry)
    return found


def listing(width: int = 80) -> str:
    """List the normalisers by group, and placements, with years and summaries, in `width` places.

    >>> print(listing().splitlines()[0])
    batch: statistics of the batch
    """
    blocks = []
    longest = max(map(len, NORMS.entries()))
    placed = sorted(PLACEMENTS.entries().values(), key=lambda one: (year(one) or 0, one.name))
    headings = {**GROUPS, PLACEMENT: "where in the network, a section beside norm"}
    for group, entries in {**grouped(), PLACEMENT: placed}.items():
        lines = [f"{group}: {headings[group]}"]
        for entry in entries:
            head = f"  {entry.name:{longest}}  {year(entry) or '':4}  "
            first, *more = wrapped(entry.summary, width - len(head), indent="")
            lines += [head + first, *(" " * len(head) + line for line in more)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def tree(name: str | None = None) -> str:
    """Draw as text what came from an entry, or from every one that came from none.

    An entry that came from several stands below the first; the others follow it.

    Raises:
        UserError: there is no such normaliser.

    >>> print(tree("evo_norm_b0"))
    evo_norm_b0 (2020), also from instance_norm
    """
    entries = NORMS.entries()
    roots = [NORMS.find(name)] if name else [one for one in entries.values() if not after(one)]
    by_age = sorted(roots, key=lambda one: (year(one) or 0, one.name))
    return "\n".join(line for root in by_age for line in _branch(root, "", ""))


def _branch(entry: Entry, head: str, indent: str) -> Iterator[str]:
    parents = after(entry)[1:]
    known = year(entry)
    others = f", also from {' and '.join(parents)}" if parents else ""
    yield f"{head}{entry.name}{f' ({known})' if known else ''}{others}"
    below = [one for one in NORMS.entries().values() if after(one)[:1] == (entry.name,)]
    below.sort(key=lambda one: (year(one) or 0, one.name))
    for i, one in enumerate(below):
        last = i == len(below) - 1
        yield from _branch(
            one, indent + ("└─ " if last else "├─ "), indent + "│  " * (not last) + "   " * last
        )


@dataclass(frozen=True)
class _Box:
    """A name in the picture: its left edge, its width and the middle of its height."""

    entry: Entry
    x: float
    wide: float
    y: float


def _place(entry: Entry, first: int) -> int:
    """Return the year that an entry stands at: its own, or that of the youngest it came from."""
    parents = (_place(NORMS.find(name), first) for name in after(entry))
    return year(entry) or max(parents, default=first)


def picture() -> str:
    """Draw the family as an SVG: years from left to right, a band for each group, a line from each
    entry to those that came from it.

    >>> picture().startswith("<svg") and "batch_renorm" in picture()
    True
    """
    years = [found for one in NORMS.entries().values() if (found := year(one))]
    first, last = min(years), max(years)
    boxes: dict[str, _Box] = {}
    bands, y = [], float(TOP)
    for group, entries in grouped().items():
        ends: list[float] = []
        for entry in sorted(entries, key=lambda one: (_place(one, first), one.name)):
            x, wide = LEFT + (_place(entry, first) - first) * YEAR, len(entry.name) * LETTER + 12
            row = next((i for i, end in enumerate(ends) if end < x), len(ends))
            ends[row : row + 1] = [x + wide + 12]
            boxes[entry.name] = _Box(entry, x, wide, y + 34 + row * ROW)
        bands.append((group, y, 26 + len(ends) * ROW))
        y += bands[-1][2] + 10
    right = max(max(box.x + box.wide for box in boxes.values()), LEFT + (last - first + 1) * YEAR)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + LEFT:.0f} {y:.0f}" '
        'font-family="DejaVu Sans Mono, Menlo, monospace" font-size="12" role="img">',
        "<title>The family of the normalisers: which came from which</title>",
        f'<rect width="{right + LEFT:.0f}" height="{y:.0f}" fill="#ffffff"/>',
    ]
    for group, top, high in bands:
        parts.append(
            f'<rect x="8" y="{top:.0f}" width="{right + LEFT - 16:.0f}" height="{high:.0f}" '
            f'fill="{COLOURS[group]}" fill-opacity="0.06"/>'
            f'<text x="16" y="{top + 15:.0f}" fill="{COLOURS[group]}" font-weight="bold">'
            f"{escape(group)}: {escape(GROUPS[group])}</text>"
        )
    for known in range(first, last + 1):
        x = LEFT + (known - first) * YEAR
        parts.append(
            f'<text x="{x}" y="30" fill="#444444">{known}</text>'
            f'<line x1="{x}" y1="38" x2="{x}" y2="{y - 8:.0f}" stroke="#dddddd"/>'
        )
    parts += [_line(boxes[name], box) for box in boxes.values() for name in after(box.entry)]
    parts += [_named(box) for box in boxes.values()]
    return "\n".join([*parts, "</svg>\n"])


def _line(parent: _Box, child: _Box) -> str:
    colour = COLOURS[child.entry.told["group"]]
    start, end = parent.x + parent.wide, child.x
    bend = max(abs(end - start) / 2, 26)
    path = (
        f"M{start:.0f},{parent.y:.0f} C{start + bend:.0f},{parent.y:.0f} "
        f"{end - bend:.0f},{child.y:.0f} {end:.0f},{child.y:.0f}"
    )
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-opacity="0.55"/>'


def _named(box: _Box) -> str:
    colour = COLOURS[box.entry.told["group"]]
    also = ", ".join(box.entry.told.get("aka", ()))
    told = f"{box.entry.summary} {box.entry.told['paper']}" + (f". Also: {also}" if also else "")
    return (
        f"<g><title>{escape(told)}</title>"
        f'<rect x="{box.x:.0f}" y="{box.y - 11:.0f}" width="{box.wide:.0f}" height="22" rx="4" '
        f'fill="#ffffff" stroke="{colour}"/>'
        f'<text x="{box.x + 6:.0f}" y="{box.y + 4:.0f}" fill="#222222">{box.entry.name}</text></g>'
    )
