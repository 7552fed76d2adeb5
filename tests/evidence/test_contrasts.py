"""Values that are all equal show no spread: what then can be said, and what can not."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.intervals import (
    EVERYTHING,
    bootstrap,
    interquartile_mean_interval,
    mean_interval,
)
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.reports.english import about_arm, about_verdict
from normlab.reports.shown_comparison import compare
from tests.shared.simulated import write, write_run

from .coverage import arm, of_few_flips

VARIED = np.array([0.61, 0.63, 0.60, 0.65, 0.62])
FINAL = "final(test_accuracy)"
TEN_IMAGES = {"data": {"name": "shapes", "fingerprint": "0", "classes": 10,
                       "train_examples": 100, "test_examples": 10}}  # fmt: skip


def experiment(folder, arms, *claims, proof=None):
    hashes = {"claims": [claim.hash for claim in claims], **(proof or {})}
    made = [write_run(folder, name, seed, last, proof=hashes)
               for name, values in arms.items() for seed, last in enumerate(values)]  # fmt: skip
    return write(folder, made, claims)


@pytest.mark.parametrize(
    ("values", "expect"),
    [([0.1, 0.1], "mean >= 0.09"), ([0.0, 0.0], "mean <= 0.01"), ([0.1] * 5, "mean >= 0.09")],
)
def test_a_mean_of_equal_values_decides_no_claim(tmp_path, values, expect):
    claim = Claim("at chance", FINAL, "identity", None, expect)
    (verdict,) = judge(experiment(tmp_path / "e", {"identity": values}, claim, proof=TEN_IMAGES))
    assert verdict.outcome == "undecided" and verdict.interval == EVERYTHING
    assert verdict.why == (
        "the values of identity are all equal, which says nothing of their spread"
    )
    assert "interval unbounded" in about_verdict(verdict)


def test_six_seeds_of_which_some_differ_have_the_t_interval_and_a_part_of_an_image(tmp_path):
    values = np.array([0.1, 0.0, 0.0, 0.1, 0.1, 0.1])
    claim = Claim("at chance", FINAL, "identity", None, "mean >= 0.09")
    (verdict,) = judge(experiment(tmp_path / "e", {"identity": values}, claim, proof=TEN_IMAGES))
    t = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    half = math.hypot((t.high - t.low) / 2, 0.1 * math.log(40) / 6)
    assert verdict.interval == pytest.approx((values.mean() - half, values.mean() + half))
    assert verdict.outcome == "undecided"


def test_what_the_config_settles_is_exact_and_a_share_has_wilson_s_interval():
    numbers = replace(arm([1234.0] * 3), exact=True)
    assert mean_of(numbers).interval == (1234, 1234)
    more = replace(arm([1300.0] * 3), exact=True)
    assert contrast(more, numbers).interval == (66, 66)
    assert mean_of(replace(arm([1234.0, 1234.0, 1300.0]), exact=True)).interval.low < 1234
    assert mean_of(replace(arm([0.0] * 5), binary=True)).interval.high == pytest.approx(
        stats.binomtest(0, 5).proportion_ci(method="wilson").high
    )


def test_every_interval_of_equal_values_is_unbounded():
    assert mean_interval([0.5] * 9) == interquartile_mean_interval([0.5] * 9) == EVERYTHING
    assert interquartile_mean_interval([0.1, 0.5, 0.5, 0.5, 0.9]) == EVERYTHING  # its middle is
    assert bootstrap([0.5] * 20) == EVERYTHING
    assert mean_interval([0.1 + 0.2, 0.3, 0.3]) == EVERYTHING  # equal but for rounding


@pytest.mark.parametrize("quantity", ["difference", "ratio"])
@pytest.mark.parametrize("n", [2, 5, 12])
def test_two_arms_of_equal_values_decide_nothing(quantity, n):
    for paired in (None, True, False):
        found = contrast(arm([0.1] * n), arm([0.5] * n), quantity, paired)
        assert found.interval == EVERYTHING and "all equal" in found.lacking
        assert found.p_value(0.0) == 1.0


def test_an_arm_of_equal_values_is_taken_to_spread_like_the_other():
    stuck = np.full(5, 0.1)
    for paired in (None, True):  # pairs with a constant would have its spread for nothing
        found = contrast(arm(VARIED), arm(stuck), paired=paired)
        half = stats.t.ppf(0.975, 4) * VARIED.std(ddof=1) * math.sqrt(2 / 5)
        middle = VARIED.mean() - 0.1
        assert found.interval == pytest.approx((middle - half, middle + half))
        assert "spread of the other" in found.method
    # Fieller: (x - r y)^2 <= t^2 s^2 (1 + r^2 (y/x)^2) / n, at both ends.
    x, y, error = VARIED.mean(), 0.1, VARIED.std(ddof=1) / math.sqrt(5)
    for end in contrast(arm(VARIED), arm(stuck), "ratio").interval:
        t = abs(x - end * y) / (error * math.hypot(1, end * y / x))
        assert t == pytest.approx(stats.t.ppf(0.975, 4))


def test_the_same_runs_under_two_names_are_the_same(tmp_path):
    claims = [Claim("alike", FINAL, "a", "b", "matches within 0.001"),
              Claim("better", FINAL, "a", "b", "difference > 0")]  # fmt: skip
    runs = experiment(tmp_path / "e", {"a": VARIED, "b": VARIED}, *claims)
    alike, better = judge(runs)
    assert (alike.outcome, better.outcome) == ("supported", "refuted")
    assert alike.interval == better.interval == (0, 0)
    comparison = compare(runs)
    assert about_arm(comparison, comparison.arm("b")) == (
        "b is the same as a in every seed (n = 5 and 5)."
    )
    assert comparison.arm("b").ratio.interval == (1, 1)


def test_equal_accuracies_of_different_runs_are_equal_but_for_part_of_an_image(tmp_path):
    made = [write_run(tmp_path / "e", name, seed, last, proof=TEN_IMAGES)
               for name in "ab" for seed, last in enumerate((0.3, 0.5, 0.4, 0.6))]  # fmt: skip
    for run in made[4:]:  # other losses: other runs
        rows = [row | {"test_loss": row["test_loss"] + 0.01} for row in run.metrics]
        (run.path / "metrics.jsonl").unlink()
        for row in rows:
            run.append_metrics(row)
    found = compare(write(tmp_path / "e", made)).arm("b").difference
    half = 0.1 * math.log(40) / 4
    assert found.interval == pytest.approx((-half, half))


def test_a_constant_difference_of_values_without_steps_is_that_constant():
    for paired in (None, True):
        found = contrast(arm(VARIED + 0.1), arm(VARIED), paired=paired)
        assert found.interval == pytest.approx((0.1, 0.1), abs=1e-12)
        assert found.method.endswith("the same difference in every seed")
        found = contrast(arm(VARIED * 3), arm(VARIED), "ratio", paired)
        assert found.interval == pytest.approx((3, 3), abs=1e-5)
    assert contrast(arm(VARIED + 0.1), arm(VARIED), paired=False).interval.low < 0.08


def test_two_seeds_do_not_make_a_constant():
    for quantity, right in (("difference", [0.2, 0.3]), ("ratio", [0.15, 0.2])):
        found = contrast(arm([0.3, 0.4]), arm(right), quantity, paired=True)
        assert found.interval == EVERYTHING and "two seeds are equal" in found.lacking


def test_nor_do_the_two_that_both_arms_have_of_more():
    found = contrast(arm([0.3, 0.4, 0.6, 0.5]), arm([0.2, 0.3]), paired=True)
    assert found.interval == EVERYTHING and found.n == (2, 2)
    one = replace(arm([0.3, 0.4]), seeds=(7, 8))
    assert "fewer than two seeds are in both" in contrast(one, arm([0.2, 0.3]), paired=True).lacking


def test_rounding_is_no_spread():
    # In floating point the differences are 0.1 but for their last bits: once they "supported" all.
    found = contrast(arm([0.7, 0.8]), arm([0.6, 0.7]), paired=True)
    assert np.ptp(np.array([0.7, 0.8]) - [0.6, 0.7]) > 0 and found.interval == EVERYTHING


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("flips", [0.003, 0.02])
def test_accuracies_that_tie_by_chance_mislead_in_at_most_one_case_of_twenty(n, flips):
    above, below = of_few_flips(n, flips, 500)
    assert above + below <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)


def test_without_the_part_of_an_image_they_would():
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(300):
        right = rng.binomial(100, 0.6, 5)
        left = right + rng.binomial(100 - right, 0.003)
        low, high = contrast(arm(left / 100), arm(right / 100), paired=True).interval
        wrong += not low <= 0.4 * 0.003 <= high
    assert wrong / 300 > 0.3
