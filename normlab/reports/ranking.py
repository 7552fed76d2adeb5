"""Sorts a comparison's arms, the best first, and says in words which of them won."""

import math

from normlab.evidence.comparison import Arm, Comparison
from normlab.evidence.contrasts import contrast, may_be_best
from normlab.evidence.intervals import LEVEL
from normlab.reports.english import count_runs, interval, learning, number

MOST_NAMED = 3
"""A sentence names so many arms; of more it gives the number."""


def ranked(comparison: Comparison) -> list[Arm]:
    """Sort the arms within each setting, the best first; arms without a value come last.

    If neither more nor less of the measure is better, the largest comes first.
    """
    order = {base: place for place, base in enumerate(_settings(comparison))}
    return sorted(comparison.arms, key=lambda arm: (order[arm.baseline], *_rank(comparison, arm)))


def headlines(comparison: Comparison) -> list[str]:
    """Say which arm won, or that this is not decided; one sentence for each setting.

    An arm won if it alone may be the best, at 95% for all arms of the setting together
    (`normlab.evidence.contrasts.may_be_best`).
    """
    settings = _settings(comparison)
    if len(settings) == 1:
        return [_headline(comparison, comparison.arms)]
    return [
        f"Beside {base}: {_headline(comparison, arms)}" for base, arms in settings.items()
    ]  # fmt: skip


def _settings(comparison: Comparison) -> dict[str, list[Arm]]:
    """Group the arms by their baseline, in the order of the plan."""
    found: dict[str, list[Arm]] = {}
    for arm in comparison.arms:
        found.setdefault(arm.baseline, []).append(arm)
    return found


def _rank(comparison: Comparison, arm: Arm) -> tuple[bool, int, float]:
    own = arm.sample
    if not len(own):
        return True, 0, 0.0
    known = own.values[~own.censored]
    mean = float(known.mean()) if len(known) else math.inf
    # A censored value is one that was never reached: the fewer of them, the better.
    return False, int(own.censored.sum()), mean if _less_is_better(comparison) else -mean


def _less_is_better(comparison: Comparison) -> bool:
    return comparison.measure.higher_is_better is False


def _headline(comparison: Comparison, arms: list[Arm]) -> str:
    measure = comparison.measure
    having = sorted((a for a in arms if len(a.sample)), key=lambda arm: _rank(comparison, arm))
    if not having:
        return "No arm has a finished run yet."
    if len(arms) == 1:
        return f"There is one arm, {arms[0].name}, and nothing to compare it with."
    if measure.higher_is_better is None:
        return f"Neither more nor less of {measure} is better, so no arm wins."
    if len(having) == 1:
        return f"Not decided: only {having[0].name} has finished runs."
    if max(len(arm.sample) for arm in having) < 2:
        return (
            f"Not decided: {having[0].name} has the best value, {_value(having[0])}, but one run "
            "an arm does not show how much runs differ; sweep over seeds."
        )
    so_far = "" if all(arm.sample.complete for arm in arms) else "So far: "
    samples = [arm.sample for arm in having]
    left = {one.name for one in may_be_best(samples, not _less_is_better(comparison))}
    leaders = [arm for arm in having if arm.name in left]
    others = len(having) - len(leaders)
    if len(leaders) == 1:
        return so_far + _won(comparison, leaders[0], having)
    text = _undecided(comparison, leaders, others)
    return so_far + (text[:1].lower() + text[1:] if so_far else text)


def _won(comparison: Comparison, winner: Arm, having: list[Arm]) -> str:
    second = next(arm for arm in having if arm is not winner)
    found = contrast(winner.sample, second.sample)
    failed = learning(winner.sample)
    return (
        f"{winner.name} won by {comparison.measure}: {_value(winner)}, against {_value(second)} of "
        f"the second, {second.name} (95% interval of the difference {interval(found.interval)})."
        + (f" But {failed}." if failed else "")
    )


def _undecided(comparison: Comparison, leaders: list[Arm], others: int) -> str:
    first, second = leaders[0], leaders[1]
    if len(leaders) <= MOST_NAMED:
        between = " and ".join(
            [", ".join(f"{arm.name} ({_value(arm)})" for arm in leaders[:-1]),
             f"{leaders[-1].name} ({_value(leaders[-1])})"]
        )  # fmt: skip
        text = f"Not decided between {between}"
    else:
        text = (
            f"Not decided between {len(leaders)} arms, of which {first.name} ({_value(first)}) and "
            f"{second.name} ({_value(second)}) come first"
        )
    found = contrast(first.sample, second.sample)
    low, high = found.interval
    counts = " and ".join(map(str, found.n))
    if found.lacking:
        text += f": {found.lacking}."
    elif low == high == 0:
        text += f": the first two are the same in every seed (n = {counts})."
    else:
        text += (
            f": the 95% interval of the difference of the first two is {interval(found.interval)} "
            f"(n = {counts})."
        )
        if low > 0 or high < 0:
            level = 1 - (1 - LEVEL) / (len(leaders) + others - 1)
            text += (
                f" It leaves out zero; at {100 * level:.3g}%, which allows for all "
                f"{len(leaders) + others} arms, it does not."
                if found.at(level).low <= 0 <= found.at(level).high
                else " It leaves out zero, but the interval to another arm does not."
            )
    if others:
        text += f" The other {'arm is' if others == 1 else f'{others} arms are'} worse."
    return text


def _value(arm: Arm) -> str:
    own = arm.sample
    if own.censored.any():
        reached = int((~own.censored).sum())
        return f"reached by {reached} of {count_runs(len(own))}"
    return number(float(own.values.mean()))
