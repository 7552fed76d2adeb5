"""Golden values: published examples, small cases by hand, and scipy's own answers."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from normlab.evidence import inference
from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.intervals import (
    EVERYTHING,
    fieller,
    interquartile_mean,
    interquartile_mean_interval,
    mann_whitney_cdf,
    mean_interval,
    proportion_difference,
    proportion_interval,
    rank_interval,
    welch,
)

from .coverage import arm
from .test_coverage import pairs

A = np.array([0.61, 0.63, 0.60, 0.65, 0.62])
B = np.array([0.55, 0.59, 0.52, 0.60, 0.51, 0.57])


def test_newcombe_s_own_example():
    # Newcombe 1998, Statistics in Medicine 17:873, table II, (a): 56/70 against 48/80.
    assert proportion_difference((56, 48), (70, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_wilson_by_hand():
    # (p + z^2 / 2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = 0, n = 5, z = 1.95996
    assert proportion_interval(0, 5) == pytest.approx((0, 3.8415 / (5 + 3.8415)), abs=1e-4)


def test_student_and_welch_are_scipy_s():
    one = stats.ttest_1samp(A, 0).confidence_interval(0.95)
    assert mean_interval(A) == pytest.approx((one.low, one.high))
    two = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.9)
    assert welch(A, B, 0.9) == pytest.approx((two.low, two.high))


def test_the_trimmed_mean_s_interval_by_hand():
    # One cut at each end: 2, 3, 4 stay; winsorised 2 2 3 4 4, deviation 1, h = 3, df = 2.
    half = 4.302653 * 1.0 / (0.6 * math.sqrt(5))
    assert interquartile_mean_interval([1, 2, 3, 4, 50]) == pytest.approx((3 - half, 3 + half))


@pytest.mark.parametrize("paired", [False, True])
def test_fieller_holds_the_ratios_that_a_t_test_does_not_reject(paired):
    right = B[:5] if paired else B
    low, high = fieller(A, right, paired=paired)
    if paired:
        for ratio, p in ((low, 0.05), (high, 0.05), ((low + high) / 2, 1.0)):
            found = stats.ttest_1samp(A - ratio * right, 0).pvalue
            assert found == pytest.approx(p, abs=1e-6) or (p == 1.0 and found > 0.05)
    else:  # whose degrees of freedom are those at the estimate
        ratio = A.mean() / B.mean()
        freedom = stats.ttest_ind(A, ratio * B, equal_var=False).df
        for end in (low, high):
            error = math.sqrt(A.var(ddof=1) / 5 + end**2 * B.var(ddof=1) / 6)
            t = abs(A.mean() - end * B.mean()) / error
            assert 2 * stats.t.sf(t, freedom) == pytest.approx(0.05)


def test_a_ratio_to_something_that_may_be_zero_is_unbounded():
    assert fieller(A, np.array([-1.0, 1.0, 0.1])) == EVERYTHING


@pytest.mark.parametrize(("n", "m"), [(2, 3), (4, 4)])
def test_the_distribution_of_ranks_is_that_of_all_orders(n, m):
    counts = np.zeros(n * m + 1)
    for left in itertools.combinations(range(n + m), n):
        right = set(range(n + m)) - set(left)
        counts[sum(a > b for a in left for b in right)] += 1
    assert mann_whitney_cdf(n, m) == pytest.approx(np.cumsum(counts) / counts.sum())


def test_the_rank_interval_ends_where_the_rank_test_does():
    low, high = rank_interval(pairs(A, B), (5, 6), 0.95)
    for end, inside in ((low, 1e-9), (high, -1e-9)):

        def p(shift):
            return stats.mannwhitneyu(A - shift, B, method="exact").pvalue

        assert p(end - inside) < 0.05 <= p(end + inside)


def test_three_runs_an_arm_give_ranks_nothing_to_decide_by():
    assert rank_interval(pairs(A[:3], B[:3]), (3, 3)) == EVERYTHING


def test_too_few_runs_give_no_interval_and_no_nan():
    assert mean_interval([0.5]) == mean_interval([]) == EVERYTHING
    one = contrast(arm([0.5]), arm([0.4, 0.3]))
    assert one.interval == EVERYTHING and one.estimate == pytest.approx(0.15)
    assert math.isnan(contrast(arm([]), arm([0.4])).estimate)
    assert mean_of(arm([])).interval == EVERYTHING


def test_the_p_value_is_the_t_test_s():
    found = contrast(arm(A), arm(B), paired=False)
    assert found.p_value(0.0) == pytest.approx(stats.ttest_ind(A, B, equal_var=False).pvalue)
    assert found.p_value(0.02) == pytest.approx(
        stats.ttest_ind(A - 0.02, B, equal_var=False).pvalue, rel=1e-6
    )


def test_a_nearer_bound_or_a_higher_level_needs_more_seeds():
    rng = np.random.default_rng(0)
    found = contrast(arm(rng.normal(0.60, 0.02, 5)), arm(rng.normal(0.56, 0.02, 5)), paired=False)
    n = found.seeds_to_decide(0.0)
    assert found.seeds_to_decide(0.01) > n
    assert found.seeds_to_decide(0.0, level=0.99) > n
    assert replace(found, n=(40, 40)).seeds_to_decide(0.0) == 40
    assert contrast(arm([0.5, 0.6]), arm([0.6, 0.5]), paired=False).seeds_to_decide(0.0) is None


def test_censored_values_lie_above_their_limit_and_nothing_more():
    never = np.array([False, True, True, True, True])
    left, right = arm([10.0] * 5), arm([40, 60, 60, 60, 60], never)
    found = contrast(left, right, "ratio")
    assert found.interval.low == 0 and found.interval.high == pytest.approx(10 / 40)
    assert inference.probability_better(left, right, higher_is_better=False) == 1.0
    both = contrast(right, right)
    assert both.interval.low == -math.inf and both.interval.high == math.inf
    assert mean_of(right).interval == EVERYTHING


def test_permutations_are_counted_exactly_where_they_are_few():
    low, high = arm([1, 2, 3, 4, 5]), arm([11, 12, 13, 14, 15.5])
    assert inference.permutation_p(low, high) == pytest.approx(2 / 252)
    assert inference.permutation_p(low, high, paired=True) == pytest.approx(2 / 32)
    assert math.isnan(inference.permutation_p(low, arm([1.0])))


@pytest.mark.parametrize("paired", [False, True])
def test_few_permutations_give_scipy_s_p_with_ties_too(paired):
    rng = np.random.default_rng(1)
    for digits in (0, 1, 9):
        left, right = rng.normal(size=(2, 6)).round(digits)
        found = stats.permutation_test(
            (left, right),
            lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
            permutation_type="samples" if paired else "independent",
            vectorized=True,
        )
        assert inference.permutation_p(arm(left), arm(right), paired=paired) == found.pvalue


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 3), (50, 1000), (9, 9)])
def test_wilson_is_scipy_s(successes, n):
    found = stats.binomtest(successes, n).proportion_ci(0.9, method="wilson")
    assert proportion_interval(successes, n, 0.9) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize("n", [1, 3, 4, 11])
def test_the_interquartile_mean_is_scipy_s_trimmed_mean(n):
    values = np.random.default_rng(n).normal(size=n)
    assert interquartile_mean(values) == stats.trim_mean(values, 0.25)


def test_holm_keeps_the_order_and_what_is_not_known():
    assert inference.holm([0.01, math.nan, 0.02]) == pytest.approx(
        [0.03, math.nan, 0.04], nan_ok=True
    )
    assert inference.holm([0.9, 0.8]) == [1.0, 1.0]


def test_shares_of_diverged_runs_are_counts_not_quantities():
    none, all_of = (replace(arm([v] * 5), binary=True) for v in (0.0, 1.0))
    found = contrast(all_of, none)
    assert found.interval == pytest.approx(proportion_difference((5, 0), (5, 5)))
    assert mean_of(none).interval == pytest.approx((0, 0.434), abs=1e-3)


def test_a_profile_counts_every_data_set_alike_and_its_band_holds_it():
    scores = {"a": [0.2, 0.4, 0.6, 0.8], "b": [0.9]}
    levels = [0.1, 0.5, 0.85, 0.95]
    found = inference.performance_profile(scores, levels)
    assert found.tolist() == [1.0, 0.75, 0.5, 0.0]
    low, high = inference.profile_band(scores, levels)
    assert (low <= found).all() and (found <= high).all() and high[1] > low[1]
    assert np.array_equal(low, inference.profile_band(scores, levels)[0])
