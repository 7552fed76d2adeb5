"""Writes where noise comes from and what intervals speak of, as tables and sentences."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from normlab.evidence.beyond_seeds import KINDS, agreements, wider
from normlab.evidence.comparison import Comparison
from normlab.evidence.crossed import Component
from normlab.evidence.variance import ArmVariance, variances
from normlab.reports.english import NONE, count_runs, interval, number, signed
from normlab.reports.text_columns import fitted, visible, wrapped
from normlab.store.seeds import is_split

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


class Table(NamedTuple):
    """A table of a report, with a sentence before it and more behind it."""

    heading: str
    says: str
    headings: list[str]
    rows: list[list[str]]
    notes: Sequence[str] = ()


SPEAKS_OF: dict[str, tuple[str, str]] = {
    "images": (
        "new seeds and images",
        "New seeds and images means that the test images are drawn anew as well, from where these "
        "come from.",
    ),
    "tuning": (
        "new seeds and tuning",
        "New seeds and tuning means that the tuning seeds are drawn anew as well, so that another "
        "value may be chosen.",
    ),
}
"""The heading of each wider interval, and what it means."""

NEW_SEEDS = (
    "Each interval says where a value would lie if its runs were made again. New seeds means that "
    "test images and tuning stay."
)
DECIDES = (
    "Claims are decided by the first interval, unless a claim says so, as in generalise: [seeds, "
    "images]."
)

ALIKE = (
    "The share of test images on which two networks answer alike, right or wrong: one of the arm "
    "and one of {base}, of different seeds; then two networks of the same arm. Where arms are "
    "alike, two arms agree as often as two seeds of one arm. The last column is by how much less "
    "often they do."
)


def noise_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of what seeds do not show; none where nothing is known of it."""
    return [*_of_wider(comparison), *_of_agreement(comparison), *_of_sources(comparison)]


def _of_wider(comparison: Comparison) -> list[Table]:
    found = wider(comparison)
    kinds = [kind for kind in KINDS if any(kind in one.others for one in found)]
    if not kinds:
        return []
    headings = ["what", str(comparison.measure), "new seeds"]
    rows = [
        [
            one.what,
            (signed if one.seeds.quantity == "difference" else number)(one.seeds.estimate),
            interval(one.seeds.interval),
            *(interval(one.others[k].interval) if k in one.others else NONE for k in kinds),
        ]
        for one in found
    ]
    says = " ".join([NEW_SEEDS, *(SPEAKS_OF[kind][1] for kind in kinds)])
    headings += [SPEAKS_OF[kind][0] for kind in kinds]
    return [Table("What the intervals speak of", says, headings, rows, [DECIDES])]


def _of_agreement(comparison: Comparison) -> list[Table]:
    found = agreements(comparison)
    if not found:
        return []
    headings = ["arm", "with the baseline", "two seeds of it", "two of the baseline", "less often"]
    rows = [
        [arm.name, *map(_share, (one.between, one.left, one.right, one.beyond))]
        for arm, one in found
    ]
    says = ALIKE.format(base=comparison.against)
    return [Table("Do the arms answer alike?", says, headings, rows)]


def _share(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.1%}"


def _of_sources(comparison: Comparison) -> list[Table]:
    """Return a table an arm of where its noise comes from, if its seeds are split."""
    split = any(is_split(record.seed) for record in comparison.records)
    if not split or comparison.measure.axis is not None:
        return []
    found = variances(comparison.runs, comparison.measure)
    tables = [
        Table(
            f"Where the noise comes from: {one.arm}",
            f"{noise_heading(one)}.",
            HEADINGS,
            noise_rows(one),
            noise_notes(one),
        )
        for one in found
    ]
    last = tables[-1]
    return [*tables[:-1], last._replace(notes=[*last.notes, *noise_sentences(found)])]


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
    each = ", ".join(f"{name} {count}" for name, count in found.numbers.items())
    crossed = f", crossed: {each}" if each else ""
    runs = count_runs(found.n)
    return f"{found.arm}: mean {number(found.mean)} of {runs}{crossed}{left_out}"


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
