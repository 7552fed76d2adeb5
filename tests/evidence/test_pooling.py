"""Partial pooling, against hand figures, simulation and statsmodels."""

import math

import numpy as np
import pytest
from scipy import stats

from normlab.errors import UserError
from normlab.evidence.pooling import pool


def test_equal_variances_give_the_figures_by_hand():
    y, v = [0.02, 0.03, 0.01, 0.04], 1e-4
    found = pool(y, [v] * 4)
    assert found.estimate == pytest.approx(0.025)
    between = np.var(y, ddof=1) - v
    assert found.spread == pytest.approx(math.sqrt(between))
    error = math.sqrt(np.var(y, ddof=1) / 4)
    assert found.error == pytest.approx(error)
    assert found.interval == pytest.approx(stats.t.interval(0.95, 3, 0.025, error))
    wide = math.sqrt(between + error**2)
    assert found.prediction == pytest.approx(stats.t.interval(0.95, 2, 0.025, wide))
    kept = between / (between + v)
    assert found.settings == pytest.approx([0.025 + kept * (one - 0.025) for one in y])


def test_settings_that_agree_too_well_are_not_surer_than_their_variances():
    found = pool([0.02, 0.0201, 0.0199], [1e-4, 2e-4, 1e-4])
    assert found.spread == 0 and found.error == pytest.approx(math.sqrt(1 / 2.5e4))
    assert found.settings == pytest.approx([found.estimate] * 3)


def test_figures_are_those_of_statsmodels():
    pytest.importorskip("statsmodels")
    from statsmodels.stats.meta_analysis import combine_effects

    y, v = [0.061, 0.020, -0.013, 0.045, 0.110], [3e-4, 1e-4, 5e-4, 2e-4, 4e-4]
    found = pool(y, v)
    other = combine_effects(np.array(y), np.array(v), method_re="iterated", atol=1e-12)
    assert found.spread**2 == pytest.approx(other.tau2, rel=1e-5)
    assert found.estimate == pytest.approx(other.mean_effect_re, rel=1e-6)
    assert found.error == pytest.approx(max(other.sd_eff_w_re_hksj, other.sd_eff_w_re), rel=1e-5)


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_the_interval_covers_with_five_settings(spread):
    rng, repeats, missed, outside = np.random.default_rng(3), 600, 0, 0
    for _ in range(repeats):
        v = rng.uniform(0.5e-4, 4e-4, 5)
        truth = 0.03 + spread * rng.normal(0, 1, 6)
        found = pool(truth[:5] + np.sqrt(v) * rng.normal(0, 1, 5), v)
        missed += not found.interval.low <= 0.03 <= found.interval.high
        outside += not found.prediction.low <= truth[5] <= found.prediction.high
    assert missed / repeats <= 0.07 and outside / repeats <= 0.12


@pytest.mark.parametrize(
    ("y", "v", "words"),
    [([0.1], [1e-3], "at least two"), ([0.1, 0.2], [1e-3, 0.0], "a positive one"),
     ([0.1, math.nan], [1e-3, 1e-3], "a positive one")],
)  # fmt: skip
def test_what_cannot_be_pooled_is_refused(y, v, words):
    with pytest.raises(UserError, match=words):
        pool(y, v)
