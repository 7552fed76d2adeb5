"""Where the variance of a measure comes from, on runs whose sources are known."""

import json
import math

import numpy as np
import pytest

from normlab.errors import UserError
from normlab.evidence.variance import complete, image_variance, variances
from normlab.measures.measures import Measure
from normlab.reports.noise import noise_text
from normlab.store.outcomes import Outcomes, write_outcomes
from normlab.store.seeds import split_seed
from tests.shared.simulated import write, write_run

from .test_images import answers, apart

ACCURACY, LOSS = Measure.parse("final(test_accuracy)"), Measure.parse("final(train_loss)")


def values_of(rng, inits, augments, of_init, of_augment, rest):
    """Accuracies by split seed, with known deviations of each source."""
    by_init, by_augment = rng.normal(0, of_init, inits), rng.normal(0, of_augment, augments)
    return {
        split_seed(i, 0, a): 0.6 + by_init[i] + by_augment[a] + rng.normal(0, rest)
        for i in range(inits)
        for a in range(augments)
    }


def written(folder, values, name="a"):
    return write(folder, [write_run(folder, name, seed, last) for seed, last in values.items()])


def by_name(found):
    return {source.name: source for source in found.sources}


@pytest.fixture
def crossed(tmp_path):
    values = values_of(np.random.default_rng(4), 8, 6, 0.03, 0.01, 0.005)
    return written(tmp_path / "e", values)


def test_each_stream_has_its_own_part_near_the_truth(crossed):
    (found,) = variances(crossed, ACCURACY)
    sources = by_name(found)
    truth = {"initial weights": 0.03, "augmentation": 0.01, "interplay and the rest": 0.005}
    for name, deviation in truth.items():
        low, high = sources[name].component.interval
        assert low <= deviation**2 <= high
    assert sources["order of the examples"].note == "one number in every run: 0"
    assert sources["choice of test images"].component is None
    assert sum(s.component.share for s in found.sources if s.component) == pytest.approx(1)
    assert found.variance == pytest.approx(0.03**2 + 0.01**2 + 0.005**2, rel=0.6)


def test_plain_seeds_have_one_part_and_the_text_says_how_to_split_them(tmp_path):
    accuracies = [0.6, 0.62, 0.59, 0.64]
    (found,) = variances(written(tmp_path / "e", dict(enumerate(accuracies))), ACCURACY)
    whole = by_name(found)["the whole seed"]
    assert whole.component.variance == pytest.approx(np.var(accuracies, ddof=1), rel=1e-4)
    text = noise_text([found], 80)
    assert "seed: {init: 0..4, order: 0..4, augment: 0..4}" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_runs_that_lack_partners_are_left_out_and_counted(tmp_path):
    values = values_of(np.random.default_rng(0), 4, 3, 0.03, 0.01, 0.005)
    del values[split_seed(3, 0, 1)]
    (found,) = variances(written(tmp_path / "e", values), ACCURACY)
    assert (found.n, found.left_out) == (9, 2)
    text = noise_text([found], 200)
    assert "9 runs, crossed: initial weights 3, augmentation 3; 2 runs left out, which" in text
    assert complete([split_seed(0, 0), split_seed(0, 1), split_seed(1, 0)]) in (
        (split_seed(0, 0), split_seed(0, 1)), (split_seed(0, 0), split_seed(1, 0)))  # fmt: skip


def test_the_images_part_is_what_new_images_would_change(tmp_path):
    folder, rng = tmp_path / "e", np.random.default_rng(3)
    right = rng.random((6, 500)) < rng.beta(0.5, 0.4, 500)
    made = [write_run(folder, "a", seed, float(own.mean())) for seed, own in enumerate(right)]
    for run, own in zip(made, right, strict=True):
        predicted = np.where(own, 0, 1).astype(np.int32)
        write_outcomes(run.path, Outcomes(("x", "y"), np.zeros(500, np.int32), predicted, own))
    (found,) = variances(write(folder, made), ACCURACY)
    images = by_name(found)["choice of test images"]
    # Beta(0.5, 0.4) has this variance; it is the covariance of two runs on one image.
    truth = 0.5 * 0.4 / (0.9**2 * 1.9) / 500
    low, high = images.component.interval
    assert low < truth < high and images.note == "500 images"
    (of_loss,) = variances(write(folder, made), LOSS)
    assert by_name(of_loss)["choice of test images"].component is None


def test_the_interval_of_the_images_part_covers():
    rng, hits = np.random.default_rng(5), 0
    truth = 0.5 * 0.4 / (0.9**2 * 1.9) / 300
    for _ in range(200):
        one = answers(rng.random((4, 300)) < rng.beta(0.5, 0.4, 300))
        variance, error = image_variance(one, apart(one.seeds, one.seeds))
        hits += abs(variance - truth) <= 1.96 * error
    assert hits >= 180


def test_runs_made_again_elsewhere_show_the_rounding(tmp_path):
    here = written(tmp_path / "here", {0: 0.60, 1: 0.70, 2: 0.65})
    there = written(tmp_path / "there", {0: 0.61, 1: 0.70, 3: 0.65})
    (alone,) = variances(here, ACCURACY)
    assert by_name(alone)["rounding of the machine"].component is None
    (found,) = variances(here, ACCURACY, [there])
    rounding = by_name(found)["rounding of the machine"]
    assert rounding.component.variance == pytest.approx((0.01**2 / 2 + 0) / 2)
    assert rounding.note == "2 runs made again; a part of the rest"
    assert found.variance == alone.variance  # it is a part of what the seeds show


def test_a_measure_of_several_runs_has_no_sources(tmp_path):
    with pytest.raises(UserError, match="is taken over several runs"):
        variances(written(tmp_path / "e", {0: 0.5}), Measure.parse("largest_stable(learning_rate)"))


def test_one_run_tells_nothing_and_fails_nowhere(tmp_path):
    (found,) = variances(written(tmp_path / "e", {0: 0.6}), ACCURACY)
    assert all(source.component is None for source in found.sources)
    assert "Not measured" in noise_text([found], 80)
    assert json.dumps(found.to_dict()) and math.isclose(found.mean, 0.6)
