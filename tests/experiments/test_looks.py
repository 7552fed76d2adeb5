"""The simulation of looks, in small."""

import pytest

from experiments.looks import KINDS, simulate


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_claim_is_supported_wrongly_more_often_than_allowed(kind):
    assert simulate(kind, (4, 8), 500)[0] < 0.05  # 2.5% on this side


def test_looks_that_nobody_pays_for_err_more_often():
    unpaid = simulate("difference", tuple(range(3, 13)), 500, paid=False)[0]
    assert unpaid > 2 * simulate("difference", tuple(range(3, 13)), 500)[0]


def test_an_early_look_saves_seeds_and_costs_little_power():
    share, seeds = simulate("difference", (5, 10, 20), 300, effect=0.03)
    alone, all_ = simulate("difference", (20,), 300, effect=0.03)
    assert seeds < 0.8 * all_ and share > alone - 0.05
