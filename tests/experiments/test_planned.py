"""What `normlab plan` tells, against the verdicts that then come, in small."""

import pytest

from experiments.planned import KINDS, LOOKS, apart, of_three, plan_of, realised
from tests.shared.thorough import mostly_thorough

CASES = [(kind, looks, effect) for kind in KINDS for looks in LOOKS
         for effect in KINDS[kind].effects]  # fmt: skip
QUICK = [("equivalence", (5, 10), 0.015)]


@pytest.mark.parametrize("case", mostly_thorough(CASES, QUICK))
def test_verdicts_come_as_often_as_planned(case):
    kind, looks, effect = case
    planned = plan_of(kind, looks).design.chances(effect)
    assert apart(planned, realised(kind, effect, looks, 200)) < 0.1


@pytest.mark.thorough
def test_several_claims_are_decided_as_often_as_planned():
    for planned, found in zip(*of_three(100), strict=True):
        assert apart(planned, found) < 0.1
