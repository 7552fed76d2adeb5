"""Many imagined sweeps, judged at once as each is judged alone."""

import numpy as np
import pytest

from normlab.evidence.imagined import (
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Form,
    _one_by_one,
    decide,
    intervals,
    levels_of,
)
from normlab.measures.claims import Expectation

FORMS = {
    "mean": Form("mean", 1),
    "pairs": Form("difference", 2),
    "no pairs": Form("difference", 2, "none"),
    "ratio": Form("ratio", 2),
    "ratio, no pairs": Form("ratio", 2, "none"),
    "interaction": Form("difference", 4),
    "interaction of pairs": Form("difference", 4, "pairs"),
    "interaction, no pairs": Form("difference", 4, "none"),
}


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("steps", [None, 100, 20])
@pytest.mark.parametrize("name", FORMS)
def test_intervals_are_those_of_each_sweep_alone(name, steps, seeds):
    form, rng = FORMS[name], np.random.default_rng(0)
    values = rng.normal(0.6, 0.03, (form.arms, 60, seeds))
    if steps is not None:  # accuracies on few images, so that many values are equal
        values = np.round(values * steps) / steps
        form = form._replace(grain=1 / steps)
    found = np.transpose(intervals(form, values, 0.97))
    alone = [_one_by_one(form, values[:, index]).at(0.97) for index in range(60)]
    np.testing.assert_allclose(found, alone, rtol=1e-9)


@pytest.mark.parametrize(
    "text", ["difference > 0.6", "difference <= 0.6", "matches within 0.6",
             "differs by more than 0.6"],
)  # fmt: skip
def test_sweeps_are_decided_at_the_first_look_that_decides(text):
    values = np.random.default_rng(1).normal(0.6, 0.2, (2, 200, 8)) * [[[1.9]], [[0.9]]]
    form, expected, looks = Form("difference", 2), Expectation.parse(text), (3, 8)
    levels = levels_of(looks, 0.2)
    outcomes, places = decide(form, expected, looks, values, levels)
    words = {"supported": SUPPORTED, "refuted": REFUTED, None: UNDECIDED}
    for index in range(200):
        first, second = (
            words[expected.outcome(*_one_by_one(form, values[:, index, :n]).at(level))]
            for n, level in zip(looks, levels, strict=True)
        )
        assert outcomes[index] == (first or second)
        assert places[index] == (0 if first else 1)
    assert len({*outcomes}) > 1
