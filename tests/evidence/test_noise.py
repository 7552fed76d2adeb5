"""The noise of like settings: which are like, and how large it is."""

from pathlib import Path

import numpy as np
import pytest

from experiments.imagined_runs import config_of, imagine
from normlab.evidence.noise import MANY, find_noise, known_arms, likeness, seconds_of
from normlab.measures.measures import Measure
from normlab.store.loading import load_runs
from normlab.store.published import shipped_results
from tests.shared.simulated import write, write_run

ACCURACY = Measure.parse("final(test_accuracy)")
A, B, NEW = (config_of(norm, 0) for norm in ("a", "b", "new"))
RNG = np.random.default_rng(0)


def known(**arms):
    return known_arms([imagine(arms)])


def test_the_first_rule_that_holds_says_how_alike_runs_are():
    other = {**A, "train": {**A["train"], "epochs": 7}}
    deeper = {**A, "model": {"name": "imagined", "depth": 3}}
    model = {**A, "model": {"name": "mlp"}}
    data = {**A, "data": {"name": "cifar10"}}
    assert [likeness(A, one) for one in (A, config_of("a", 9), B, other, model, data)] == [
        0, 0, 1, 2, 3, None
    ]  # fmt: skip
    assert likeness({**deeper, "model": {"name": "imagined", "depth": 4}}, deeper) == 2
    later = {**A, "model": {**A["model"], "added": 1}}  # a setting that came later
    assert likeness(later, A) == 0 == likeness(A, later)


def test_few_seeds_of_many_arms_are_pooled():
    arms = {name: RNG.normal(0.6, 0.02, 5) for name in "abcd"}
    found = find_noise([A, B], ACCURACY, known(**arms), paired=False)
    wanted = np.sqrt(np.mean([values.var(ddof=1) for values in arms.values()]))
    assert found.noise.deviations == pytest.approx((wanted, wanted))
    assert (found.rule, found.arms, found.seeds, found.noise.degrees) == (1, 4, (5, 5), 16)
    assert found.noise.base == pytest.approx(arms["b"].mean()) and found.noise.correlation == 0


def test_many_seeds_show_the_deviation_of_each_arm():
    arms = {"a": RNG.normal(0.6, 0.01, MANY), "b": RNG.normal(0.5, 0.05, MANY)}
    found = find_noise([A, B], ACCURACY, known(**arms), paired=True)
    assert found.rule == 0 and found.noise.deviations == pytest.approx(
        tuple(values.std(ddof=1) for values in arms.values())
    )
    correlation = np.corrcoef(arms["a"], arms["b"])[0, 1]
    assert found.noise.correlation == pytest.approx(max(0.0, correlation))
    assert find_noise([A, NEW], ACCURACY, known(**arms), paired=True).rule == 1


def test_the_correlation_is_that_of_the_arms_of_a_seed():
    shared = RNG.normal(0, 0.02, 40)
    arms = {name: 0.6 + shared + RNG.normal(0, 0.02, 40) for name in "abc"}
    found = find_noise([A, NEW], ACCURACY, known(**arms), paired=True)
    mean = np.mean([np.corrcoef(arms[x], arms[y])[0, 1] for x, y in ("ab", "ac", "bc")])
    assert found.noise.correlation == pytest.approx(mean, abs=0.02)


def test_deviations_are_proportional_to_the_means_of_a_ratio():
    arms = {"a": RNG.normal(0.9, 0.09, 5), "b": RNG.normal(0.2, 0.02, 5)}
    found = find_noise([A, B], ACCURACY, known(**arms), paired=False, ratio=2.0)
    relative = [values.std(ddof=1) / values.mean() for values in arms.values()]
    wanted = np.sqrt(np.mean(np.square(relative))) * arms["b"].mean()
    assert found.noise.deviations == pytest.approx((2 * wanted, wanted))


def test_arms_with_seeds_that_did_not_learn_show_nothing():
    arms = {"a": RNG.normal(0.6, 0.02, 5), "b": [0.1, 0.6, 0.1, 0.6, 0.6]}
    found = find_noise([A, B], ACCURACY, known(**arms), paired=False)
    assert found.arms == 1


def test_what_was_not_measured_is_not_found():
    arms = known(a=[0.6, 0.61, 0.62], b=[0.5, 0.52, 0.51])
    for measure in ("final(val_accuracy)", "area(test_accuracy)", "probe(activations.mean, end)"):
        assert find_noise([A, B], Measure.parse(measure), arms, paired=False) is None
    assert find_noise([{**A, "data": {"name": "x"}}], ACCURACY, arms, paired=False) is None


def test_seconds_are_those_of_like_runs(tmp_path):
    folder = tmp_path / "e"
    made = [write_run(folder, "a", seed, 0.6, evaluate_seconds=1.0) for seed in range(2)]
    arms = known_arms([write(folder, made)])
    same = made[0].config
    other = {**same, "norm": {"name": "b"}}
    assert seconds_of(same, arms) == pytest.approx(1.6) == seconds_of(other, arms)
    assert seconds_of({**same, "train": {"epochs": 99}}, arms) is None


def test_the_results_that_come_with_normlab_know_their_own_settings():
    arms = known_arms([load_runs(folder) for folder in shipped_results()])
    catalogue = next(one for one in arms if one.folder.name == "catalogue")
    found = find_noise([catalogue.config], ACCURACY, arms, paired=False)
    assert found.folder.name == "catalogue" and found.rule == 1
    assert 0.005 < found.noise.deviations[0] < 0.05 and isinstance(found.folder, Path)
