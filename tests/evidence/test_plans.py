"""Plans of claims: their form, what cannot be planned, and the rows that are shown."""

import numpy as np
import pytest

from experiments.imagined_runs import config_of, imagine
from normlab.evidence.noise import known_arms
from normlab.evidence.plans import Given, SweepPlan, pairing, plan_claim
from normlab.measures.claims import Claim

A, B = config_of("a", 0), config_of("b", 0)
DEEP = {**A, "model": {"name": "imagined", "depth": 9}}
STATED = Given({"": 0.02})


def claim(expect="difference > 0", measure="final(test_accuracy)", right="b", **more):
    return Claim("a beats b", measure, "a", right, expect, **more)


def planned(one=None, arms=(("a", A), ("b", B)), looks=(10,), given=STATED, known=(), **more):
    one = claim() if one is None else one
    if one.right is None:
        arms = arms[:1]
    return plan_claim(one, arms, looks, more.pop("claims", 1), given, known, **more)


def test_runs_will_be_paired_as_the_verdict_pairs_them():
    assert pairing(claim(), [A, B]) == "all"
    assert pairing(claim(), [A, DEEP]) == "none" == pairing(claim(paired=False), [A, B])
    assert pairing(claim(paired=True), [A, DEEP]) == "all"
    assert pairing(claim(), [A, B, A, B]) == "all"
    assert pairing(claim(), [A, B, DEEP, DEEP]) == "pairs"


@pytest.mark.parametrize(
    ("measure", "expect", "looks", "why"),
    [
        ("steps_to(test_accuracy, 0.5)", "ratio < 1", (5,), "may never reach the target"),
        ("diverged", "difference < 0", (5,), "0 or 1"),
        ("parameters", "ratio < 1", (5,), "the config alone settles"),
        ("final(test_accuracy)", "difference > 0", (1,), "sweep over seeds"),
        ("final(test_accuracy)", "difference > 0", (), "different seeds"),
        ("final(test_accuracy)", "ratio > 1", (5,), "--base"),
    ],
)
def test_what_cannot_be_planned_is_said(measure, expect, looks, why):
    plan = planned(claim(expect, measure), looks=looks)
    assert plan.design is None and why in plan.lacking and not plan.rows


def test_a_claim_that_counts_values_of_an_axis_is_not_planned():
    assert "it counts values of data.seed" in planned(claim(unit="data.seed")).lacking


def test_noise_is_asked_for_where_nothing_is_like():
    assert "--pilot 3" in planned(given=Given()).lacking


def test_a_like_setting_in_which_seeds_did_not_learn_is_named():
    known = known_arms([imagine({name: [0.1, 0.6, 0.6] for name in "ab"})])
    assert "seeds that did not learn" in planned(given=Given(), known=known).lacking


def test_a_like_setting_gives_the_noise_and_stated_parts_replace_it():
    rng = np.random.default_rng(0)
    known = known_arms([imagine({name: rng.normal(0.6, 0.03, 8) for name in "abc"})])
    found = planned(given=Given(), known=known)
    assert found.found.arms == 3 and found.design.noise.degrees == 21
    given = planned(given=Given(correlation=0.5, base=0.7), known=known).design.noise
    assert (given.correlation, given.base) == (0.5, 0.7)
    assert given.deviations == found.design.noise.deviations
    assert planned(known=known).design.noise.deviations == (0.02, 0.02)
    low, high = found.smallest_range
    assert low < found.supported[1] < high
    assert planned().smallest_range is None


@pytest.mark.parametrize(
    "expect", ["difference > 0", "difference <= 0.01", "matches within 0.02",
               "differs by more than 0", "differs by more than 0.02"],
)  # fmt: skip
@pytest.mark.parametrize("seeds", [3, 30])
def test_rows_are_few_and_show_what_is_decided(expect, seeds):
    plan = planned(claim(expect), looks=(seeds,))
    effects = [row.effect for row in plan.rows]
    assert effects == sorted(effects) and 3 <= len(effects) <= 9
    assert max(max(row.chances.supported, row.chances.refuted) for row in plan.rows) >= 0.8
    for row in plan.rows:
        assert sum(row.chances) == pytest.approx(1)


def test_a_stated_effect_has_its_row():
    plan = planned(effects=[0.0123])
    assert [row.effect for row in plan.rows if row.stated] == [0.0123]


def test_all_claims_at_once_need_one_stated_truth_each():
    both = [planned(claims=2, effects=[0.02]), planned(claims=2, effects=[0.0])]
    first, second = SweepPlan("e", 2, (10,), 20, 0, both).together
    assert first.supported > 0.3 and second.supported < 0.05
    assert SweepPlan("e", 2, (10,), 20, 0, [both[0], planned(claims=2)]).together is None


def test_an_interaction_is_planned_by_its_four_arms():
    arms = [(name, A) for name in "abcd"]
    plan = planned(claim(across="optimizer"), arms)
    assert plan.design.form.arms == 4 and plan.design.spread == pytest.approx(0.04)
