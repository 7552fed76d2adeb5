"""The table of a comparison's arms as text, for the terminal, Markdown, LaTeX and HTML alike."""

import math

import numpy as np

from normlab.evidence.comparison import Arm, Comparison
from normlab.evidence.doubts import mixed
from normlab.evidence.inference import least_p
from normlab.evidence.intervals import LEVEL
from normlab.evidence.samples import Sample
from normlab.reports.english import NONE, count_of, interval, number, signed
from normlab.reports.ranking import ranked

DIFFERENCE, DIFFERENCE_INTERVAL = "difference", "its 95% interval"
IQM, BETTER, HOLM, TROUBLES = "IQM", "P(better)", "p (Holm)", "not as planned"
SHORT = ("arm", "n", "mean", "95% interval", DIFFERENCE, DIFFERENCE_INTERVAL)
"""The headings of the table that is always shown. `table` has all of them."""

MEANING = {
    IQM: "the interquartile mean: the mean of the middle half of the runs, which a run that fails "
    "does not move",
    BETTER: "the chance that a run of the arm, taken at random, is better than one of the baseline",
    HOLM: "the p-value of a permutation test against the baseline, corrected by Holm's rule for "
    "the number of arms compared; it is left out where the runs are too few for it to be below "
    f"{1 - LEVEL:.2g}",
    "s/step": "seconds of training an optimiser step, and in brackets the ratio to the baseline's",
    "peak MB": "megabytes (10^6 bytes) that a training step needs beyond its inputs, and in "
    "brackets the ratio to the baseline's",
}
"""The meaning of a heading, for a reader who meets it for the first time."""


def short_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return what a reader needs of each arm: the headings `SHORT`, and the best arm first."""
    return list(SHORT), [
        [cells[heading] for heading in SHORT]
        for cells in (_cells(comparison, arm) for arm in ranked(comparison))
    ]


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return all headings, and a row of cells for each arm, the best arm first."""
    rows = [_full(comparison, arm) for arm in ranked(comparison)]
    return list(rows[0]), [list(row.values()) for row in rows]


def rest(comparison: Comparison) -> list[dict[str, str]]:
    """Return for each row of `short_table` what it lacks and `table` has, by heading."""
    found = []
    for arm in ranked(comparison):
        shown, whole = _shown(comparison, arm), _full(comparison, arm)
        found.append({h: text for h, text in whole.items() if text not in (NONE, shown.get(h))})
    return found


def rest_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the arms, and those columns of `table` that `short_table` lacks."""
    arms, more = ranked(comparison), rest(comparison)
    headings = _full(comparison, arms[0])
    known = [heading for heading in headings if any(heading in own for own in more)]
    rows = [
        [arm.name, *(own.get(heading, NONE) for heading in known)]
        for arm, own in zip(arms, more, strict=True)
    ]
    return ["arm", *known], rows


def meanings(headings: list[str]) -> list[str]:
    """Explain those headings that need it, each in a line."""
    known = {heading: text for heading, text in MEANING.items() if heading in headings}
    return [f"{heading}: {text}." for heading, text in known.items()]


def _cells(comparison: Comparison, arm: Arm) -> dict[str, str]:
    own = arm.sample
    found = [
        arm.name + (" (baseline)" if arm.difference is None else ""),
        count_of(own),
        _mean(own),
        interval(arm.mean.interval) if len(own) > 1 else NONE,
        NONE if not arm.difference else signed(arm.difference.estimate),
        NONE if not arm.difference else _difference_interval(arm),
    ]
    return dict(zip(SHORT, found, strict=True))


def _shown(comparison: Comparison, arm: Arm) -> dict[str, str]:
    """Return the cells of the short table by the headings of the whole one."""
    cells = _cells(comparison, arm)
    return cells | {f"mean {comparison.measure}": cells["mean"]}


def _full(comparison: Comparison, arm: Arm) -> dict[str, str]:
    own, short = arm.sample, _cells(comparison, arm)
    doubtful = " (covers less)" if mixed(own) else ""
    paired = " (paired)" if arm.difference and arm.difference.paired else ""
    known = short[DIFFERENCE_INTERVAL]
    cells = {"arm": short["arm"], "n": short["n"]}
    if any(other.sample.unlearned for other in comparison.arms):  # then these two come first
        failed = len(own.unlearned)
        cells |= {"did not learn": f"{failed} of {len(own)}" if failed else NONE,
                  IQM: number(arm.middle)}  # fmt: skip
    cells |= {
        f"mean {comparison.measure}": short["mean"],
        "95% interval": short["95% interval"] + (doubtful if len(own) > 1 else ""),
        IQM: number(arm.middle),
        DIFFERENCE: short[DIFFERENCE],
        DIFFERENCE_INTERVAL: known if known == NONE else known + paired,
        BETTER: NONE if math.isnan(arm.better) else f"{arm.better:.2f}",
        HOLM: _holm(comparison, arm),
    }
    if comparison.measure.definition.unit and arm.difference is not None and arm.ratio:
        cells[DIFFERENCE_INTERVAL] += (
            f"; x{number(arm.ratio.estimate)}, {interval(arm.ratio.interval)}"
        )
    if comparison.target is not None:
        steps, seconds = arm.to_target
        cells[f"steps to {comparison.target:g}"] = _median(steps)
        cells[f"seconds to {comparison.target:g}"] = _median(seconds)
    base = comparison.arm(arm.baseline).prices
    cells["s/step"] = _price(arm.prices, base, "seconds_per_step", "{:.4f}")
    cells["peak MB"] = _price(arm.prices, base, "peak_memory", "{:.1f}")
    cells[TROUBLES] = "; ".join(own.troubles) or NONE
    return cells


def _holm(comparison: Comparison, arm: Arm) -> str:
    """Show the corrected p-value where it can be small; where it contradicts the row, say why."""
    if arm.difference is None or math.isnan(arm.holm):
        return NONE
    compared = [one for one in comparison.arms if one.difference is not None]
    floors = [least_p(*map(len, (a.sample, comparison.arm(a.baseline).sample))) for a in compared]
    own = least_p(len(arm.sample), len(comparison.arm(arm.baseline).sample))
    if max(own, len(compared) * min(floors)) > 1 - LEVEL:
        return NONE
    text = f"{arm.holm:.3f}"
    if (arm.holm <= 1 - LEVEL) == arm.distinguished:
        return text
    if arm.p <= 1 - LEVEL < arm.holm:
        return f"{text} ({arm.p:.3f} for this comparison alone)"
    if arm.difference.paired:
        return f"{text} (its test does not pair seeds, as the interval does)"
    return f"{text} (another test than the interval's)"


def _mean(own: Sample) -> str:
    if not len(own):
        return NONE
    if own.censored.any():
        return f"not reached by {int(own.censored.sum())} of {len(own)}"
    return number(float(own.values.mean()))


def _difference_interval(arm: Arm) -> str:
    found = arm.difference
    assert found is not None
    return NONE if min(found.n) < 2 else interval(found.interval)


def _median(own: Sample) -> str:
    """Show the median, or that half or more never reached the target."""
    if not len(own):
        return NONE
    middle = float(np.median(np.where(own.censored, math.inf, own.values)))
    reached = int((~own.censored).sum())
    text = number(middle) if math.isfinite(middle) else "not reached"
    return text if reached == len(own) else f"{text} ({reached} of {len(own)} reached it)"


def _price(own: dict[str, float], base: dict[str, float], name: str, form: str) -> str:
    if name not in own:
        return NONE
    text = form.format(own[name])
    if own is base or not base.get(name):
        return text
    return f"{text} (x{own[name] / base[name]:.2f})"
