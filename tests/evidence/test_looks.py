"""Looks that are paid for: boundaries against simulation, and verdicts by plan."""

import numpy as np
import pytest
from scipy import stats

from normlab.evidence.looks import anytime_level, level_at, looked_at, nominal_levels, spent
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.reports.english import about_verdict
from tests.shared.simulated import simulate

PLANS = {"two": [5, 10], "five": [4, 8, 12, 16, 20], "one at a time": list(range(4, 13))}


def first_passed(looks, levels, repeats=40_000, seed=0):
    """How often any look of normal data without an effect passes its nominal level."""
    values = np.random.default_rng(seed).normal(size=(repeats, looks[-1]))
    passed = np.zeros(repeats, bool)
    for seeds, level in zip(looks, levels, strict=True):
        passed |= stats.ttest_1samp(values[:, :seeds], 0.0, axis=1).pvalue <= level
    return passed.mean()


@pytest.mark.parametrize("allowed", [0.05, 0.0125])
@pytest.mark.parametrize("plan", PLANS)
def test_all_looks_together_err_as_often_as_allowed(plan, allowed):
    looks = PLANS[plan]
    rate = first_passed(looks, nominal_levels(looks, allowed))
    assert abs(rate - allowed) < 4 * np.sqrt(allowed / 40_000)


def test_normal_boundaries_would_err_too_often():
    # Lan & DeMets's boundaries for a known variance: 2.96 and 1.97 at two equal looks.
    normal = 2 * stats.norm.sf([2.963, 1.969])
    t_values = stats.t.isf(normal / 2, np.array([4, 9]))
    assert np.allclose(stats.norm.sf([2.963, 1.969]) * 2, [0.00305, 0.049], atol=2e-4)
    assert t_values[0] > 5  # as p-values of t they would nearly do; as bounds of t they would not
    as_bounds = 2 * stats.t.sf([2.963, 1.969], [4, 9])
    assert first_passed([5, 10], as_bounds) > 0.08


def test_two_arms_without_pairs_err_no_more_often():
    looks = [4, 8, 12]
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(2, 40_000, 12))
    passed = np.zeros(40_000, bool)
    for seeds, level in zip(looks, nominal_levels(looks, 0.05), strict=True):
        passed |= stats.ttest_ind(left[:, :seeds], right[:, :seeds], axis=1).pvalue <= level
    assert 0.045 < passed.mean() < 0.0525


@pytest.mark.parametrize("look", [0, 1, 2])
@pytest.mark.parametrize("allowed", [0.05, 0.02, 0.3])
def test_the_p_value_of_a_plan_undoes_its_level(look, allowed):
    looks = [5, 10, 20]
    assert looked_at(1 - level_at(allowed, looks, look), looks, look) == pytest.approx(
        allowed, rel=1e-3
    )


def test_the_chance_is_spent_from_nothing_to_all():
    fractions = np.linspace(0.1, 1, 10)
    parts = [spent(0.05, fraction) for fraction in fractions]
    assert parts == sorted(parts) and parts[-1] == 0.05
    # Lan & DeMets (1983): half of the data spend 0.0031 of 0.05 (two-sided, O'Brien-Fleming).
    assert spent(0.05, 0.5) == pytest.approx(0.00305, abs=1e-5)


def test_an_interval_for_any_time_misses_seldom_however_often_one_looks():
    values = np.random.default_rng(2).normal(size=(20_000, 60))
    passed = np.zeros(20_000, bool)
    for seeds in range(2, 61):
        p = stats.ttest_1samp(values[:, :seeds], 0.0, axis=1).pvalue
        passed |= p < 1 - anytime_level(0.05, seeds)
    assert passed.mean() < 0.05


def claim(expect="difference > 0", right="b"):
    return Claim("a beats b", "final(test_accuracy)", "a", right, expect)


RNG = np.random.default_rng(3)
FAR = {"a": RNG.normal(0.7, 0.01, 10), "b": RNG.normal(0.4, 0.01, 10)}
NEAR = {"a": RNG.normal(0.7, 0.05, 10), "b": RNG.normal(0.7, 0.05, 10)}


def planned(tmp_path, arms, looks, seeds=10, *claims):
    plan = {"seeds": list(range(seeds)), "looks": looks}
    return judge(simulate(tmp_path / "e", arms, claims or [claim()], plan=plan))


def cut(arms, seeds):
    return {name: values[:seeds] for name, values in arms.items()}


def test_a_clear_claim_is_decided_at_the_first_look(tmp_path):
    (verdict,) = planned(tmp_path, cut(FAR, 5), [5, 10])
    assert verdict.outcome == "supported" and verdict.look.place == 0 and verdict.look.done == 1
    assert verdict.level == pytest.approx(1 - nominal_levels([5, 10], 0.05)[0], rel=1e-4)


def test_a_decision_stands_at_later_looks(tmp_path):
    (verdict,) = planned(tmp_path, FAR, [5, 10])
    assert verdict.outcome == "supported" and verdict.look.done == 2


def test_an_open_claim_waits_for_the_next_look(tmp_path):
    (verdict,) = planned(tmp_path, cut(NEAR, 6), [5, 10])
    assert verdict.outcome == "undecided" and max(verdict.contrast.n) == 5
    assert (
        verdict.why
        == "the interval does not decide it at look 1 of 2; the next look is at 10 seeds an arm"
    )


def test_one_look_at_all_seeds_is_as_without_a_plan(tmp_path):
    (with_plan,) = planned(tmp_path, FAR, [10])
    (without,) = judge(simulate(tmp_path / "f", FAR, [claim()]))
    assert about_verdict(with_plan) == about_verdict(without)


def test_seeds_of_a_plan_cannot_be_dropped(tmp_path):
    (verdict,) = planned(tmp_path, cut(FAR, 4), [10])
    assert (
        verdict.outcome == "undecided" and "seeds 4, 5, 6, 7, 8, 9 were registered" in verdict.why
    )


def test_seeds_after_the_plan_decide_nothing_and_are_told(tmp_path):
    noisy = {"a": [0.5, 0.9, 0.6, *[0.7] * 3, *RNG.normal(0.75, 0.02, 14)],
             "b": [0.6, 0.5, 0.7, *[0.6] * 3, *RNG.normal(0.55, 0.02, 14)]}  # fmt: skip
    (verdict,) = planned(tmp_path, noisy, [6], 6)
    assert verdict.outcome == "undecided" and max(verdict.contrast.n) == 6
    assert verdict.beyond.added == 14 and verdict.beyond.outcome == "supported"
    assert verdict.beyond.level == anytime_level(0.05, 20)
    assert "14 seeds were added after the plan and decide nothing" in about_verdict(verdict)


def test_holm_holds_over_claims_and_looks(tmp_path):
    claims = [claim(), claim("difference > 0.1"), claim("ratio > 1")]
    verdicts = planned(tmp_path, FAR, [5, 10], 10, *claims)
    clearest = min(verdicts, key=lambda verdict: verdict.p)
    assert clearest.level == pytest.approx(level_at(0.05 / 3, [5, 10], clearest.look.place))
