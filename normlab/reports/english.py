"""Writes what a comparison and a verdict say, in English sentences."""

import math
from collections.abc import Iterable

from normlab.evidence.comparison import Arm, Comparison
from normlab.evidence.doubts import mixed, share
from normlab.evidence.estimates import IntervalEstimate
from normlab.evidence.intervals import LEVEL, Interval, interquartile_mean
from normlab.evidence.power import MOST_SEEDS, between
from normlab.evidence.samples import Sample
from normlab.evidence.verdicts import Beyond, Verdict
from normlab.measures.measures import Measure

NONE, UNBOUNDED = "-", "unbounded"
SAME = Interval(0.0, 0.0)
LEVEL_OF_CLAIMS = (
    "Where there are several claims, the intervals that decide them have a level above 95%, by "
    "Holm's rule, so that the chance of any wrong verdict is at most 5%. So a claim may be "
    "undecided although the 95% interval of the same difference would decide it."
)


def short_name(measure: Measure) -> str:
    """Name a probe's measure by its quantity alone, and any other measure as it is written.

    >>> short_name(Measure.parse("probe(updates.spread, end)"))
    'spread, end'
    """
    if "quantity" not in measure.definition.takes:
        return str(measure)
    quantity, *more = measure.arguments
    return ", ".join([quantity.rpartition(".")[2].replace("_", " "), *map(str, more)])


def axis_words(measure: Measure) -> str:
    """Name a measure at the axis of a picture: in words with its unit.

    >>> axis_words(Measure.parse("final(train_loss)"))
    'training loss at the end (nats)'
    """
    return measure.words if measure.definition.words else short_name(measure)


def number(value: float, digits: int = 3) -> str:
    """Write a number as tables show it.

    >>> number(0.61234), number(12345.6), number(float("nan")), number(float("inf"))
    ('0.612', '12346', '-', '∞')
    """
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    if value == 0 or abs(value) >= 0.0995:
        return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:.{digits}f}" if abs(value) >= 0.001 else f"{value:.1e}"


def signed(value: float) -> str:
    """Write a difference as tables show it, with its sign.

    >>> signed(0.0123), signed(-0.5), signed(0.0)
    ('+0.012', '-0.500', '0.000')
    """
    return f"+{number(value)}" if value > 0 else number(value)


def interval(found: Interval | None, digits: int = 3) -> str:
    """Write an interval as tables show it.

    >>> interval(Interval(0.1, 0.25)), interval(Interval(-math.inf, math.inf))
    ('0.100 to 0.250', 'unbounded')
    """
    if found is None:
        return NONE
    if math.isinf(found.low) and math.isinf(found.high):
        return UNBOUNDED
    return f"{number(found.low, digits)} to {number(found.high, digits)}"


def count_runs(count: int) -> str:
    """Write a count of runs: "1 run", "5 runs"."""
    return f"{count} run{'' if count == 1 else 's'}"


def count_of(one: Sample) -> str:
    """Write how many values a sample has, and of how many planned runs if some are missing.

    >>> import numpy as np
    >>> count_of(Sample("a", (0, 1), np.array([0.6, 0.7]), np.zeros(2, bool), 5))
    '2 of 5'
    """
    return str(len(one)) if one.complete else f"{len(one)} of {one.planned}"


def learning(one: Sample) -> str:
    """Say how many seeds did not learn, with the interquartile mean; empty if all learned.

    >>> import numpy as np
    >>> four = np.array([0.1, 0.6, 0.6, 0.7])
    >>> learning(Sample("a", (0, 1, 2, 3), four, np.zeros(4, bool), 4, unlearned=(0,)))
    '1 of 4 seeds of a did not learn (interquartile mean 0.600)'
    """
    if not mixed(one) or one.censored.any():
        return share(one)
    return f"{share(one)} (interquartile mean {number(interquartile_mean(one.values))})"


def about_arm(comparison: Comparison, arm: Arm) -> str:
    """Compare an arm with the baseline in words: how much, from how many runs, how sure.

    If seeds did not learn, the text begins with how many.
    """
    first = learning(arm.sample)
    if mixed(arm.sample):
        first += ", so the interval of its mean does not cover what it says"
    return f"{first[:1].upper()}{first[1:]}. {_against(comparison, arm)}" if first else _against(
        comparison, arm)  # fmt: skip


def _against(comparison: Comparison, arm: Arm) -> str:
    found, base, measure = arm.difference, arm.baseline, comparison.measure
    assert found is not None
    if min(found.n) == 0:
        return f"{arm.name}: nothing to compare with {base} yet."
    if min(found.n) < 2:
        return f"{arm.name}: one run says nothing of a difference from {base}; sweep over seeds."
    counts = f"n = {found.n[0]} and {found.n[1]}"
    if found.interval == SAME:
        return f"{arm.name} is the same as {base} in every seed ({counts})."
    if not arm.distinguished:
        return f"{arm.name} is not distinguished from {base}{_so_far(found, counts)}"
    larger = found.interval.low > 0
    if measure.higher_is_better is None:
        word, of_runs = "larger" if larger else "smaller", ""
    else:
        word = "better" if larger == measure.higher_is_better else "worse"
        of_runs = f" A run of it beats one of {base} with probability {arm.better:.2f}."
    sure = f"95% interval of the difference {interval(found.interval)}; {counts}"
    if not math.isfinite(found.estimate):  # some runs never reached the target
        return f"{arm.name} is {word} than {base} ({sure}).{of_runs}"
    means = f"{number(arm.mean.estimate)} against {number(comparison.arm(base).mean.estimate)}"
    size = number(abs(found.estimate))
    if arm.sample.censored.any() or comparison.arm(base).sample.censored.any():
        means = "by ranks, as some runs never reached it"
    return f"{arm.name} is {word} than {base} by {size} ({means}; {sure}).{of_runs}"


def _so_far(found: IntervalEstimate, counts: str) -> str:
    bounds = interval(found.interval)
    if bounds == UNBOUNDED:
        reason = found.lacking or "too few runs, or a target that they never reached"
        bounds = f"no bounds: {reason}"
    text = f" ({bounds}; {counts})."
    if not found.foretells:
        return text
    seeds = found.more_seeds(0.0)
    if seeds is None:
        return f"{text} More than {MOST_SEEDS} seeds an arm would be needed to tell them apart."
    return (
        f"{text} About {seeds} seeds an arm would tell them apart in 80% of cases if the "
        f"difference is what it seems ({between(found.seeds_range(0.0))}, as far as "
        f"{max(found.n)} seeds show the spread)."
    )


def about_verdict(verdict: Verdict) -> str:
    """Write a verdict in one or two sentences, to follow the claim."""
    said = _by_numbers(verdict)
    return f"Withdrawn: {verdict.retracted} By the numbers: {said}" if verdict.retracted else said


def raised(verdicts: Iterable[Verdict]) -> bool:
    """Return whether the level of some verdict is above 95%, because there are several claims."""
    return any(verdict.contrast and verdict.level > LEVEL + 1e-9 for verdict in verdicts)


def _unless_alone(verdict: Verdict) -> str:
    """Say that the 95% interval would decide, if only the number of claims prevents it."""
    found = verdict.contrast
    if found is None or verdict.outcome != "undecided" or verdict.level <= LEVEL + 1e-9:
        return ""
    if verdict.look is not None and len(verdict.look.seeds) > 1:
        return ""  # the level allows for the looks as well
    outcome = verdict.claim.expectation.outcome(*found.interval)
    if outcome is None:
        return ""
    return (
        f"; its 95% interval {interval(found.interval)} alone would have it {outcome}, but the "
        "level allows for the number of claims (Holm's rule)"
    )


def _quantity_of(verdict: Verdict) -> str:
    """Name the quantity that a claim is about, with the names of its arms."""
    claim, names = verdict.claim, [arm.name for arm in verdict.arms]
    left, right = [*names, "left", "right"][:2] if len(names) != 1 else (names[0], "right")
    if len(names) > 2:
        first, second = (f"({a} minus {b})" for a, b in (names[:2], names[2:]))
        return f"{claim.measured}, {first} minus {second},"
    return {
        "difference": f"{claim.measured} of {left} minus that of {right}",
        "ratio": f"{claim.measured} of {left} over that of {right}",
        "mean": f"mean {claim.measured} of {left}",
    }[claim.expectation.quantity]


def _by_numbers(verdict: Verdict) -> str:
    """Write a verdict by its interval alone; it begins with seeds that did not learn."""
    claim, found = verdict.claim, verdict.contrast
    what = _quantity_of(verdict)
    if found is None:
        return f"{verdict.outcome.capitalize()}: {verdict.why}."
    counts = " and ".join(str(n) for n in found.n)
    unit = claim.unit or "seed"
    paired = f", paired by {unit}{correlated(found)}" if found.paired else ""
    if claim.unit and not found.paired:
        paired = f", each a {unit}"
    known = f"is {number(found.estimate)}"
    if math.isnan(found.estimate):
        known = "has no estimate, as runs never reached the target"
    at = ""
    if verdict.look is not None and len(verdict.look.seeds) > 1:
        at = f", look {verdict.look.place + 1} of {len(verdict.look.seeds)}"
    shares = dict.fromkeys(filter(None, map(learning, verdict.arms)))
    first = f"{', and '.join(shares)}; " if shares else ""
    return (
        f"{verdict.outcome.capitalize()}: {first}{what} {known}, "
        f"{100 * verdict.level:.3g}% interval {interval(verdict.interval)} "
        f"(n = {counts}{paired}{at}; {found.method}), expected {claim.expectation.text}: "
        f"{verdict.why}{_unless_alone(verdict)}.{_beside(verdict)}{_beyond(verdict.beyond)}"
    )


def correlated(found: IntervalEstimate) -> str:
    """Write the correlation of two arms over their pairs; empty where it is not known."""
    known = math.isfinite(found.correlation)
    return f", correlation {round(found.correlation, 2) + 0:.2f}" if known else ""


def _beside(verdict: Verdict) -> str:
    """Say what the interval is that does not decide: for new images too, or for seeds alone."""
    if verdict.beside is None or verdict.beside.lacking:
        return ""
    ends = interval(verdict.beside.at(verdict.level))
    if verdict.claim.generalise is not None:
        return f" For new seeds alone, with all else the same, the interval is {ends}."
    return (
        f" For new test images as well as new seeds the interval is {ends}; it decides nothing, "
        "because the claim speaks of new seeds."
    )


def _beyond(found: Beyond | None) -> str:
    """Say what all seeds show, where some were added after the plan."""
    if found is None:
        return ""
    seeds = "1 seed was" if found.added == 1 else f"{found.added} seeds were"
    says = {"supported": "would support the claim", "refuted": "would refute the claim",
            "undecided": "leaves the claim open as well"}[found.outcome]  # fmt: skip
    return (
        f" {seeds} added after the plan and decide nothing. All {max(found.contrast.n)} seeds "
        f"together give {number(found.contrast.estimate)} ({100 * found.level:.4g}% interval "
        f"{interval(found.interval)}, valid however often one looks), which {says}."
    )
