"""Area under the curve and balanced accuracy equal values by hand, definition and scipy."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from normlab.errors import FieldError
from normlab.training import metrics
from normlab.training.fit import Loop
from normlab.training.metrics import auc, balanced_accuracy
from normlab.training.recipe import Recipe
from normlab.training.state import Clock


def of_two(margins):
    """Make logits of two classes with a given difference."""
    margins = np.asarray(margins, float)
    return np.stack([np.zeros_like(margins), margins], axis=1)


def by_pairs(scores, positive):
    """Compute the share of pairs in which the positive is ranked higher; a tie counts half."""
    ahead = scores[positive][:, None] - scores[~positive][None, :]
    return ((ahead > 0) + 0.5 * (ahead == 0)).mean()


def test_the_area_by_hand():
    labels = np.array([0, 0, 1, 1])
    assert auc(of_two([1, 2, 3, 4]), labels) == 1
    assert auc(of_two([4, 3, 2, 1]), labels) == 0
    assert auc(of_two([1, 3, 2, 4]), labels) == 0.75
    assert auc(of_two([1, 1, 1, 1]), labels) == 0.5


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_of_two_classes_with_many_ties_it_is_the_definition_and_the_test_of_ranks(rows):
    margins, positive = (np.array(column) for column in zip(*rows, strict=True))
    found = auc(of_two(margins), positive.astype(int))
    if positive.all() or not positive.any():
        assert np.isnan(found)
        return
    assert found == pytest.approx(by_pairs(margins, positive), abs=1e-12)
    u = mannwhitneyu(margins[positive], margins[~positive]).statistic
    assert found == pytest.approx(u / (positive.sum() * (~positive).sum()), abs=1e-12)


def test_of_several_classes_it_is_the_mean_of_each_against_the_rest_by_its_probability():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)  # none of the last class
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean([by_pairs(chances[:, k], labels == k) for k in range(3)])
    assert auc(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_confident_logits_are_still_told_apart():
    # In float32 all of these probabilities are 1.
    assert auc(of_two([40, 50, 60, 70]).astype(np.float32), np.array([0, 0, 1, 1])) == 1
    shifted = of_two([1, 2, 3, 4]) + np.array([[0], [1e3], [-1e3], [500]])
    assert auc(shifted, np.array([0, 0, 1, 1])) == 1  # what is added to all logits says nothing


def test_a_logit_that_is_no_number_leaves_no_area():
    assert np.isnan(auc(of_two([1, np.nan, 2]), np.array([0, 1, 1])))


def test_balanced_accuracy_by_hand_and_without_reward_for_the_larger_class():
    labels = np.array([0] * 9 + [1])
    assert balanced_accuracy(of_two([-1] * 10), labels) == 0.5  # accuracy: 0.9
    assert balanced_accuracy(of_two([-1] * 6 + [1] * 4), labels) == pytest.approx((6 / 9 + 1) / 2)
    logits = np.eye(4)[[0, 1, 1, 2]]
    assert balanced_accuracy(logits, np.array([0, 0, 1, 2])) == pytest.approx((0.5 + 1 + 1) / 3)


def test_padding_does_not_count():
    batches = [jnp.asarray(of_two([1, 2])), jnp.asarray(of_two([3, 99]))]
    found = metrics.of(("auc", "balanced_accuracy"), batches, np.array([0, 1, 1]))
    assert found == {"auc": 1.0, "balanced_accuracy": 0.5}
    assert metrics.of(None, batches, np.array([0, 1, 1])) == {}


@pytest.mark.parametrize("size", [5, 22])
def test_a_run_records_what_its_recipe_asks_for(compiled, size):
    made = compiled(epochs=1, eval_batch_size=size, metrics=("auc", "balanced_accuracy"))
    fitted = Loop(made, 2).run(made.init(2), Clock())
    plain = Loop(compiled(epochs=1), 2)
    state = fitted.state
    row, without = fitted.history[-1], plain.run(plain.compiled.init(2), Clock()).history[-1]
    assert row.keys() - without.keys() == {"test_auc", "test_balanced_accuracy"}
    images, labels = made.data.standardised(made.data.test.images), made.data.test.labels
    variables = {"params": state.params, "norm_state": state.norm_state}
    logits = np.asarray(made.program.model.apply(variables, images, train=False))
    assert row["test_auc"] == pytest.approx(auc(logits, np.asarray(labels)), abs=1e-6)
    assert row["test_balanced_accuracy"] == balanced_accuracy(logits, np.asarray(labels))
    for name in without.keys() - {"train_seconds"}:
        assert row[name] == pytest.approx(without[name], rel=1e-6)


def test_a_metric_that_is_not_there_is_refused():
    with pytest.raises(FieldError, match="metrics must be of auc, balanced_accuracy, or null"):
        Recipe(metrics=("f1",))  # type: ignore[arg-type]


def test_a_logit_that_is_nan_names_no_class_and_nothing_has_no_share():
    logits = np.array([[np.nan, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, np.nan]])
    assert balanced_accuracy(logits, np.array([0, 0, 1, 1])) == 0.5
    assert np.isnan(balanced_accuracy(np.zeros((0, 2)), np.zeros(0, int)))
    assert np.isnan(auc(np.zeros((0, 2)), np.zeros(0, int)))
