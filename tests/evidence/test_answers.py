"""Accuracy by class, mistakes and the hardest examples, against counts by hand and scipy."""

import numpy as np
import pytest
from scipy import stats

from normlab.evidence.answers import class_accuracies, confusion, hardest, mistakes
from normlab.store.outcomes import NOTHING, Outcomes

CLASSES = ("cat", "dog", "cow", "none of this")
LABELS = np.array([0, 0, 0, 0, 1, 1, 2], np.int32)
PREDICTED = np.array([0, 0, 1, NOTHING, 1, 0, 0], np.int32)
PROBABILITY = np.array([0.9, 0.8, 0.2, 0.0, 0.7, 0.4, 0.1], np.float32)
ONE = Outcomes(CLASSES, LABELS, PREDICTED, PROBABILITY)


def test_a_matrix_counts_by_true_and_predicted_class():
    wanted = [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]  # one answer is no number
    assert confusion(ONE).tolist() == wanted


def test_accuracy_in_a_class_has_wilsons_interval():
    cat, dog, _, none = class_accuracies(ONE)
    assert (cat.name, cat.right, cat.count, cat.share) == ("cat", 2, 4, 0.5)
    # Wilson (1927): (p + z^2 / 2n +- z sqrt(p q / n + z^2 / 4n^2)) / (1 + z^2 / n)
    z, n, p = stats.norm.ppf(0.975), 4, 0.5
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    wanted = np.array([middle - half, middle + half]) / (1 + z**2 / n)
    assert cat.interval == pytest.approx(wanted) and dog.share == 0.5
    assert none.count == 0 and np.isnan(none.share) and none.interval == (0.0, 1.0)


def test_mistakes_are_sorted_and_counted():
    found = [(one.true, one.taken_for, one.count, one.of) for one in mistakes(ONE)]
    assert found == [("cat", "dog", 1, 4), ("dog", "cat", 1, 2), ("cow", "cat", 1, 1)]


def test_the_hardest_are_those_whose_class_is_least_probable_over_all_runs():
    other = Outcomes(CLASSES, LABELS, np.array([0, 0, 0, 1, 1, 0, 0]), PROBABILITY[::-1])
    assert [one.index for one in hardest([ONE], 2)] == [3, 6]
    assert hardest([ONE], 1)[0].taken_for == "not a number"
    mean = (PROBABILITY + PROBABILITY[::-1]) / 2
    found = hardest([ONE, other], 3)
    assert [one.index for one in found] == np.argsort(mean, kind="stable")[:3].tolist()
    two = next(one for one in hardest([ONE, other], 7) if one.index == 2)
    assert (two.true, two.wrong, two.runs) == ("cat", 1, 2)
