"""Writes where the noise of a measure comes from, as tables and sentences."""

import math
from collections.abc import Sequence

from normlab.evidence.crossed import Component
from normlab.evidence.variance import ArmVariance
from normlab.reports.english import NONE, count_runs, number
from normlab.reports.text_columns import fitted, visible, wrapped

HEADINGS = ["source", "deviation", "95% interval", "share", "its 95% interval"]

READ = (
    "A deviation is how far a value typically lies from the mean when this source alone is drawn "
    "anew. Variances, the squares of deviations, add up; a share is a source's part of their sum. "
    "Few numbers of a stream say little of it: its interval shows that. A source that the "
    "estimate finds smaller than nothing is shown as 0."
)
SPLIT = (
    "The seed is not split, so initial weights, order and augmentation cannot be told apart. In a "
    "config, seed: {init: 0..4, order: 0..4, augment: 0..4} makes the runs that can."
)


def noise_rows(found: ArmVariance) -> list[list[str]]:
    """Return a row for each source that was measured, and one for their sum."""
    rows = [_row(s.name, s.component) for s in found.sources if s.component is not None]
    return [*rows, ["all together", number(math.sqrt(found.variance)), NONE, "100%", NONE]]


def _row(name: str, component: Component) -> list[str]:
    variance, (low, high), share, shares = component
    ends = f"{number(math.sqrt(low))} to {number(math.sqrt(high))}"
    if math.isnan(share):
        return [name, number(math.sqrt(variance)), ends, NONE, NONE]
    of_share = f"{shares.low:.0%} to {shares.high:.0%}"
    return [name, number(math.sqrt(variance)), ends, f"{share:.0%}", of_share]


def noise_notes(found: ArmVariance) -> list[str]:
    """Say of which sources there is more to know, and which were not measured."""
    known = [s for s in found.sources if s.component is not None and s.note]
    lacking = [s for s in found.sources if s.component is None]
    lines = [f"{s.name[:1].upper()}{s.name[1:]}: {s.note}." for s in known]
    each = "; ".join(f"{source.name} ({source.note})" for source in lacking)
    return [*lines, *([f"Not measured: {each}."] if each else [])]


def noise_heading(found: ArmVariance) -> str:
    """Name an arm, its runs and their mean."""
    left_out = (
        f"; {count_runs(found.left_out)} left out, which lack partners in the crossing"
        if found.left_out
        else ""
    )
    return f"{found.arm}: mean {number(found.mean)} of {count_runs(found.n)}{left_out}"


def noise_sentences(found: Sequence[ArmVariance]) -> list[str]:
    """Return how the tables are to be read, and what would tell more."""
    whole = any(source.name.startswith("the whole seed") for one in found for source in one.sources)
    return [READ, *([SPLIT] if whole else [])]


def noise_text(found: Sequence[ArmVariance], width: int) -> str:
    """Write the tables of all arms for a terminal."""
    lines = []
    for one in found:
        lines += [*wrapped(visible(noise_heading(one)), width), ""]
        lines += [*fitted(HEADINGS, noise_rows(one), width), ""]
        for text in noise_notes(one):
            lines += wrapped(text, width)
        lines.append("")
    for text in noise_sentences(found):
        lines += wrapped(text, width)
    return "\n".join(lines)
