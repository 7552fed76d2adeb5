"""The table of a comparison's arms as text, for the terminal, Markdown and HTML alike."""

import math

import numpy as np

from normlab.evidence.comparison import Arm, Comparison
from normlab.evidence.doubts import mixed
from normlab.evidence.samples import Sample
from normlab.reports.english import NONE, interval, number


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the headings, and a row of cells for each arm."""
    rows = [_cells(comparison, arm) for arm in comparison.arms]
    return list(rows[0]), [list(row.values()) for row in rows]


def _cells(comparison: Comparison, arm: Arm) -> dict[str, str]:
    is_base = arm.difference is None
    own = arm.sample
    doubtful = " (covers less)" if mixed(own) else ""
    cells = {
        "arm": arm.name + (" (baseline)" if is_base else ""),
        "n": str(len(own)) if own.complete else f"{len(own)} of {own.planned}",
    }
    if any(other.sample.unlearned for other in comparison.arms):  # then these two come first
        count = len(own.unlearned)
        cells |= {"did not learn": f"{count} of {len(own)}" if count else NONE,
                  "IQM": number(arm.middle)}  # fmt: skip
    cells |= {
        f"mean {comparison.measure}": _mean(own),
        "95% interval": interval(arm.mean.interval) + doubtful if len(own) > 1 else NONE,
        "IQM": number(arm.middle),
        "less the baseline": NONE if not arm.difference else
        _estimate(arm.difference.estimate),
        "its 95% interval": NONE if not arm.difference else _difference_interval(arm),
        "P(better)": NONE if math.isnan(arm.better) else f"{arm.better:.2f}",
        "p (Holm)": NONE if math.isnan(arm.holm) else f"{arm.holm:.3f}",
    }  # fmt: skip
    if comparison.measure.definition.unit and not is_base and arm.ratio:
        cells["its 95% interval"] += (
            f"; x{number(arm.ratio.estimate)}, {interval(arm.ratio.interval)}"
        )
    if comparison.target is not None:
        steps, seconds = arm.to_target
        cells[f"steps to {comparison.target:g}"] = _median(steps)
        cells[f"seconds to {comparison.target:g}"] = _median(seconds)
    base = comparison.arm(arm.baseline).prices
    cells["s/step"] = _price(arm.prices, base, "seconds_per_step", "{:.4f}")
    cells["peak MB"] = _price(arm.prices, base, "peak_memory", "{:.1f}")
    cells["not as planned"] = "; ".join(own.troubles) or NONE
    return cells


def _mean(own: Sample) -> str:
    if not len(own):
        return NONE
    if own.censored.any():
        return f"not reached by {int(own.censored.sum())} of {len(own)}"
    return number(float(own.values.mean()))


def _estimate(value: float) -> str:
    return number(value) if math.isnan(value) else f"{'+' if value > 0 else ''}{number(value)}"


def _difference_interval(arm: Arm) -> str:
    found = arm.difference
    assert found is not None
    if min(found.n) < 2:
        return NONE
    return interval(found.interval) + (" (paired)" if found.paired else "")


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
