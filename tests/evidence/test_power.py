"""The stated number of seeds has the power that it promises."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.power import power, seeds_to_decide
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from tests.shared.simulated import simulate

from .coverage import arm

REPEATS = 4000


def exactly(mean, deviation, n=6, seed=0):
    """Values of just this mean and deviation."""
    values = np.random.default_rng(seed).normal(0, 1, n)
    return mean + deviation * (values - values.mean()) / values.std(ddof=1)


def reached(n, left, right, bounds, level=0.95, paired=False):
    """Return how often scipy's interval of n seeds an arm leaves every bound on its right side."""
    rng = np.random.default_rng(n)
    a, b = (rng.normal(*own, (REPEATS, n)) for own in (left, right))
    found = (
        stats.ttest_rel(a, b, axis=1) if paired else stats.ttest_ind(a, b, axis=1, equal_var=False)
    ).confidence_interval(level)
    truth = left[0] - right[0]
    clear = [found.high < bound if truth < bound else found.low > bound for bound in bounds]
    return np.all(clear, axis=0).mean()


CASES = {
    "a difference": ((0.60, 0.02), (0.58, 0.02), (0.0,), 0.95),
    "at Holm's level": ((0.60, 0.02), (0.58, 0.02), (0.0,), 0.9875),
    "unequal spreads": ((0.60, 0.04), (0.57, 0.01), (0.0,), 0.95),
    "equivalence of equal arms": ((0.60, 0.02), (0.60, 0.02), (-0.02, 0.02), 0.95),
    "equivalence of near ones": ((0.605, 0.02), (0.60, 0.02), (-0.02, 0.02), 0.95),
    "equivalence at Holm's level": ((0.60, 0.02), (0.60, 0.02), (-0.02, 0.02), 0.99),
}


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_stated_seeds_decide_in_80_percent_of_cases(case, paired):
    left, right, bounds, level = CASES[case]
    one, other = exactly(*left), exactly(*right, seed=1)
    if paired:  # differences whose deviation is that of independent arms
        one = other + exactly(left[0] - right[0], math.hypot(left[1], right[1]), seed=2)
    found = replace(contrast(arm(one), arm(other), paired=paired), n=(2, 2))
    n = found.seeds_to_decide(*bounds, level=level)
    assert 0.77 <= reached(n, left, right, bounds, level, paired) <= 0.86
    assert reached(n - 1, left, right, bounds, level, paired) <= 0.83


def test_a_ratio_needs_its_denominator_told_from_zero_too():
    # Far from the bound in its numerator, it is the denominator that takes the seeds.
    found = contrast(arm(exactly(0.02, 0.02)), arm(exactly(0.4, 0.4, seed=1)), "ratio")
    n = found.seeds_to_decide(0.5)
    rng, decided = np.random.default_rng(0), 0
    for _ in range(500):
        one, other = rng.normal(0.02, 0.02, n), rng.normal(0.4, 0.4, n)
        decided += contrast(arm(one), arm(other), "ratio", paired=False).interval.high < 0.5
    assert decided / 500 >= 0.75


@pytest.mark.parametrize(("n", "distance"), [(5, 1.0), (17, 0.8), (200, 0.2), (3, 40.0)])
def test_the_power_at_one_bound_is_scipy_s(n, distance):
    t = stats.t.ppf(0.975, n - 1)
    exact = stats.nct.sf(t, n - 1, min(distance * math.sqrt(n), 30))
    assert power([(distance, 1.0)], 1.0, n, 0.95) == pytest.approx(exact, abs=1e-6)


def test_the_range_is_that_of_the_spread_s_chi_square_interval():
    values = exactly(0.1, 0.1, n=5)
    found = mean_of(arm(values))
    ends = []
    for tail in (0.975, 0.025):
        deviation = 0.1 * math.sqrt(4 / stats.chi2.ppf(tail, 4))
        ends.append(max(6, seeds_to_decide([(0.1, deviation)], 1.0, 0.95)))
    assert found.seeds_range(0.0) == tuple(ends)
    assert ends[0] <= found.more_seeds(0.0) < ends[1]
    assert found.seeds_range(0.09) == (found.seeds_range(0.09)[0], None)  # over 1000


def test_a_verdict_says_how_many_and_from_where_to_where(tmp_path):
    arms = {"a": exactly(0.62, 0.02, 5), "b": exactly(0.60, 0.02, 5, seed=1)}
    claim = Claim("a beats b", "final(test_accuracy)", "a", "b", "difference > 0")
    (verdict,) = judge(simulate(tmp_path / "e", arms, [claim]))
    least, most = verdict.seeds_range
    assert verdict.outcome == "undecided" and least <= verdict.seeds <= most
    assert verdict.why == (
        f"the interval does not decide it; about {verdict.seeds} seeds an arm would decide it in "
        f"80% of cases if the estimate is the truth ({least} to {most}, as far as 5 seeds show the "
        "spread)"
    )
