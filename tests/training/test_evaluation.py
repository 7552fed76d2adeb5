"""Evaluation covers every test example once, and rows of metrics are the right means."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.models.slots import NORM_STATE
from normlab.training.fit import Loop
from normlab.training.state import Clock

SEED = 2


def by_numpy(model, state, images, labels, data):
    """Compute mean loss and accuracy of all examples at once, in float64 from the logits on."""
    pixels = data.train.images.astype(np.float64)
    inputs = jnp.asarray((images - pixels.mean()) / pixels.std(), jnp.float32)
    variables = {"params": state.params, NORM_STATE: state.norm_state}
    logits = np.asarray(model.apply(variables, inputs, train=False), np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return losses.mean(), (logits.argmax(axis=1) == labels).mean()


@pytest.fixture(scope="module")
def trained(compiled):
    made = compiled(epochs=1)
    fitted = Loop(made, SEED).run(made.init(SEED), Clock())
    return jax.device_get(fitted.state), fitted.history[-1]


@pytest.mark.parametrize("size", [1, 5, 11, 21, 22, 500])
def test_evaluation_is_exact_whatever_its_batch_size(compiled, program, trained, data, size):
    state, row = trained
    found = compiled(eval_batch_size=size, label_smoothing=0.5).evaluate(state)
    loss, accuracy = found["loss"], found["accuracy"]
    expected_loss, expected_accuracy = by_numpy(program().model, state, *data.test, data)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    assert accuracy == pytest.approx(expected_accuracy, abs=1e-6)
    assert 0 < accuracy < 1  # else a count of the padding might pass
    np.testing.assert_allclose(row["test_loss"], expected_loss, rtol=1e-5)


@pytest.mark.parametrize("size", [5, 500])
def test_logits_of_all_examples_need_no_program_but_the_evaluations(
    compiled, program, trained, data, size, caplog
):
    made, (state, _) = compiled(eval_batch_size=size), trained
    made.evaluate(state)
    with jax.log_compiles():
        found = made.logits(state)
        assert not caplog.records
        jax.jit(lambda x: x + 1)(found)
        assert caplog.records  # else a compilation would not be heard
    pixels = data.train.images.astype(np.float64)
    inputs = jnp.asarray((data.test.images - pixels.mean()) / pixels.std(), jnp.float32)
    variables = {"params": state.params, NORM_STATE: state.norm_state}
    expected = program().model.apply(variables, inputs, train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_row_is_the_mean_over_the_batches_since_the_last_row(compiled):
    made = compiled(epochs=2, eval_every=3)
    fitted = Loop(made, SEED).run(made.init(SEED), Clock())
    state, losses, correct = made.init(SEED), [], []
    for step in range(8):
        state, loss = made.step(state, made.order(SEED, step // 4), SEED)
        losses.append(float(loss))
        correct.append(float(state.meter.correct))
    correct = np.diff(correct, prepend=0)
    assert [row["step"] for row in fitted.history] == [3, 6, 8]
    assert [row["epoch"] for row in fitted.history] == [0.75, 1.5, 2.0]
    for row, start in zip(fitted.history, (0, 3, 6), strict=True):
        chosen = slice(start, row["step"])
        np.testing.assert_allclose(row["train_loss"], np.mean(losses[chosen]), rtol=1e-6)
        np.testing.assert_allclose(row["train_accuracy"], np.mean(correct[chosen]) / 16, rtol=1e-6)


def test_evaluation_changes_nothing(compiled):
    """However often it happens, the run is bitwise the same."""
    ends = []
    for every in (1, 100):
        made = compiled(epochs=2, eval_every=every)
        fitted = Loop(made, SEED).run(made.init(SEED), Clock())
        ends.append((fitted.state, fitted.history[-1]["test_loss"]))
        assert len(fitted.history) == (8 if every == 1 else 1)
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_training_learns(compiled):
    made = compiled(epochs=15, augmentations=(), optimizer=optax.sgd(0.3))
    history = Loop(made, SEED).run(made.init(SEED), Clock()).history
    assert history[-1]["test_accuracy"] > 0.9 > history[0]["test_accuracy"]
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
