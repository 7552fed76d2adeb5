"""What test images add to the noise, on answers whose components are known."""

import math

import numpy as np
import pytest

from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.images import (
    NO_ANSWERS,
    ONE_SEED,
    OTHER_IMAGES,
    ArmAnswers,
    agreement,
    apart,
    arm_answers,
    errors_of,
    image_error,
    widened,
)
from normlab.evidence.inference import sampling_error
from normlab.store.outcomes import Outcomes, write_outcomes
from normlab.store.record import Record
from normlab.store.seeds import split_seed
from tests.shared.simulated import write_run

from .coverage import arm

IMAGES = 400


def answers(right, seeds=None):
    """Answers of two classes that are right where `right` is; every image is of class 0."""
    right = np.asarray(right, bool)
    seeds = tuple(range(len(right))) if seeds is None else seeds
    return ArmAnswers(seeds, np.zeros(right.shape[1], int), np.where(right, 0, 1))


def test_the_error_is_that_of_a_two_way_analysis_of_variance_by_hand():
    rng = np.random.default_rng(0)
    right = rng.random((4, 50)) < rng.random(50)
    seeds, images = right.shape
    rest = right - right.mean(0) - right.mean(1, keepdims=True) + right.mean()
    of_rest = (rest**2).sum() / ((seeds - 1) * (images - 1))
    of_images = seeds * right.mean(0).var(ddof=1)
    expected = math.sqrt((of_images - of_rest) / seeds / images)
    assert image_error([answers(right)], [1]) == pytest.approx(expected)


def test_networks_that_agree_on_every_image_have_the_binomial_error():
    right = np.tile(np.arange(1000) < 600, (5, 1))
    error = image_error([answers(right)], [1])
    assert error == pytest.approx(sampling_error(0.6, 1000), rel=1e-3)
    assert round(error, 4) == 0.0155  # a point and a half
    assert image_error([answers(right), answers(right)], [1, -1]) < 1e-8


def simulated(rng, images, seeds, gain=0.0, hard=1.5, own=0.5, spread=0.03):
    """Two arms: an image's ease, how it suits each arm, each seed's skill, and chance."""
    ease = rng.normal(0.4, hard, images)
    for more in (gain, 0.0):
        suits, skill = rng.normal(0, own, images), rng.normal(more, spread, (seeds, 1))
        yield rng.random((seeds, images)) < 1 / (1 + np.exp(-(ease + suits + skill)))


def test_the_joint_interval_covers_new_seeds_and_new_images_and_the_first_alone_does_not():
    rng, repeats, seeds = np.random.default_rng(1), 200, 5
    left, right = simulated(np.random.default_rng(9), 100_000, 10, gain=0.5)
    truth = left.mean() - right.mean(), left.mean()
    missed = np.zeros(4)
    for _ in range(repeats):
        one, other = map(answers, simulated(rng, IMAGES, seeds, gain=0.5))
        samples = [arm(own.right.mean(1), grain=1 / IMAGES) for own in (one, other)]
        found = contrast(*samples), mean_of(samples[0])
        errors = image_error([one, other], [1, -1]), image_error([one], [1])
        for i, (of_seeds, error, wanted) in enumerate(zip(found, errors, truth, strict=True)):
            both = widened(of_seeds, error, "images")
            for j, estimate in enumerate((of_seeds, both)):
                low, high = estimate.interval
                missed[2 * i + j] += not low <= wanted <= high
    alone, joint = missed[::2] / repeats, missed[1::2] / repeats
    assert (joint <= 0.085).all(), joint  # 5% and more than two standard errors
    assert alone[1] > 0.1  # the mean's interval over seeds says nothing of new images


def test_runs_that_share_a_stream_are_left_out_of_the_pairs():
    seeds = [split_seed(i, 0, a) for i in (0, 1) for a in (0, 1)]
    chosen = apart(seeds, seeds)
    assert chosen.sum() == 4 and chosen[0, 3] and chosen[1, 2]
    # Runs of one start answer alike, and images add nothing.
    rng = np.random.default_rng(2)
    first, second = rng.random((2, 2000)) < 0.5
    error = image_error([answers([first, first, second, second], seeds)], [1])
    assert error < 0.004 < image_error([answers([first, first, second, second])], [1])


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ([None], NO_ANSWERS),
        ([answers(np.ones((2, 5))), answers(np.ones((2, 6)))], OTHER_IMAGES),
        ([answers(np.ones((1, 5)))], ONE_SEED),
    ],
)
def test_why_there_is_no_error_is_told(arms, words):
    error, why = errors_of(arms, [1, -1][: len(arms)])
    assert math.isnan(error) and why == words


def test_agreement_is_the_share_of_equal_answers():
    labels = np.zeros(4, int)
    left = ArmAnswers((0, 1), labels, np.array([[0, 0, 1, 2], [0, 1, 1, 2]]))
    right = ArmAnswers((0, 1), labels, np.array([[0, 0, 0, 0], [0, 0, 0, 1]]))
    found = agreement(left, right)
    # Left 0 with right 1: two of four; left 1 with right 0: one of four.
    assert found == (pytest.approx(3 / 8), pytest.approx(3 / 4), pytest.approx(3 / 4))
    assert found.beyond == pytest.approx(3 / 8)


def test_the_answers_of_an_arm_are_read_from_its_runs(tmp_path):
    made = [write_run(tmp_path, "a", seed, 0.5) for seed in (1, 0)]
    assert arm_answers(map(Record.read, made)) is None
    for run in made:
        predicted = np.array([0, 1, run.seed], np.int32)
        whole = Outcomes(("x", "y"), np.array([0, 1, 1], np.int32), predicted, np.ones(3))
        write_outcomes(run.path, whole)
    found = arm_answers(map(Record.read, made))
    assert found.seeds == (0, 1)
    assert found.right.tolist() == [[1, 1, 0], [1, 1, 1]]
