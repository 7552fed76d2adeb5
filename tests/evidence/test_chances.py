"""The chances of verdicts before any run, against other formulas."""

import numpy as np
import pytest
from scipy import stats

from normlab.evidence.chances import Design, Noise, together
from normlab.evidence.imagined import REFUTED, SUPPORTED, Form
from normlab.measures.claims import Expectation

PAIRS = Form("difference", 2)


def design(text="difference > 0", form=PAIRS, looks=(10,), deviation=0.02, claims=1, **noise):
    return Design(
        form, Expectation.parse(text), looks, Noise((deviation,) * form.arms, **noise), claims
    )


@pytest.mark.parametrize("effect", [-0.02, 0.0, 0.01, 0.03])
@pytest.mark.parametrize("claims", [1, 4])
def test_one_look_is_the_noncentral_t(effect, claims):
    n, alpha = 6, 0.05 / claims
    found = design(looks=(n,), claims=claims).chances(effect)
    shift = effect * np.sqrt(n) / (0.02 * np.sqrt(2))
    t = stats.t.isf(alpha / 2, n - 1)
    assert found.supported == pytest.approx(stats.nct.sf(t, n - 1, shift), abs=2e-4)
    assert found.refuted == pytest.approx(stats.nct.cdf(-t, n - 1, shift), abs=2e-4)
    assert sum(found) == pytest.approx(1)


def test_equivalence_has_both_bounds():
    planned = design("matches within 0.02", looks=(8,))
    rng = np.random.default_rng(0)
    values = rng.normal(0.005, 0.02 * np.sqrt(2), (200_000, 8))
    low, high = (
        values.mean(1) + way * stats.t.ppf(0.975, 7) * stats.sem(values, axis=1) for way in (-1, 1)
    )
    assert planned.chances(0.005).supported == pytest.approx(
        ((low > -0.02) & (high < 0.02)).mean(), abs=0.004
    )


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_pairs_differ_by_their_correlation(correlation):
    shown = design(correlation=correlation).spread
    assert shown == pytest.approx(0.02 * np.sqrt(2 * (1 - correlation)))


def test_simulated_chances_are_the_exact_ones():
    exact = design().chances(0.02)
    looked = design(looks=(9, 10)).chances(0.02)  # the first of such looks takes little
    np.testing.assert_allclose(exact, looked, atol=0.03)
    unpaired = design(form=Form("difference", 2, "none")).chances(0.02)
    shift = 0.02 / (0.02 * np.sqrt(2 / 10))
    power = stats.nct.sf(stats.t.isf(0.025, 18), 18, shift)  # equal spreads: Student's
    assert unpaired.supported == pytest.approx(power, abs=0.015)


def test_the_smallest_effect_is_decided_in_four_cases_of_five():
    for text, bound in (("difference > 0", 0.0), ("difference >= 0.01", 0.01)):
        planned = design(text)
        _, above = planned.decided_from(SUPPORTED)
        below, _ = planned.decided_from(REFUTED)
        assert planned.chances(above).supported == pytest.approx(0.8, abs=1e-3)
        assert planned.chances(below).refuted == pytest.approx(0.8, abs=1e-3)
        assert above - bound == pytest.approx(bound - below, rel=1e-2)


def test_a_match_is_out_of_reach_where_the_noise_is_large():
    assert design("matches within 0.02").decided_from(SUPPORTED) == (None, None)
    low, high = design("matches within 0.02", looks=(40,)).decided_from(SUPPORTED)
    assert -0.02 < low < 0 < high < 0.02
    below, above = design("matches within 0.02", looks=(40,)).decided_from(REFUTED)
    assert below < -0.02 and above > 0.02


@pytest.mark.parametrize("form", [PAIRS, Form("difference", 2, "none")])
def test_the_seeds_that_an_effect_needs_decide_it_and_one_fewer_does_not(form):
    seeds = design(form=form).seeds_needed(0.02)
    assert design(form=form, looks=(seeds,)).chances(0.02).supported > 0.79
    assert design(form=form, looks=(seeds - 1,)).chances(0.02).supported < 0.81


def test_a_ratio_is_planned_at_its_base():
    planned = design("ratio > 1", Form("ratio", 2), deviation=0.02, base=0.5)
    same = design("difference > 0", looks=(10,))  # a ratio of 1.04 is a difference of 0.02
    assert planned.chances(1.04).supported == pytest.approx(same.chances(0.02).supported, abs=0.02)
    _, above = planned.decided_from(SUPPORTED)
    assert planned.chances(above).supported == pytest.approx(0.8, abs=0.01)


def test_claims_together_lie_between_the_strictest_and_the_least_level():
    one, effect = design(claims=3), 0.02
    for found in together([one] * 3, [effect] * 3):
        strict, lenient = one.chances(effect), one.chances(effect, 0.05)
        assert strict.supported - 0.01 < found.supported < lenient.supported + 0.01
    alone = together([one] * 3, [effect, 0.0, 0.0])[0].supported
    assert alone == pytest.approx(one.chances(effect).supported, abs=0.02)
