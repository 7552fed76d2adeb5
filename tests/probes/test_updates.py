"""`updates` is right where the effect of a step is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.models.plain import MLP
from normlab.norms import BatchNorm, Identity
from normlab.probes import Updates
from normlab.probes.formulas import spread
from normlab.probes.layers import loss_and_gradient
from normlab.probes.updates import angular_update

from .conftest import linear_look, moment, subject

RATE = 0.3


def measured(norm, optimizer):
    """Measure an MLP of two layers, and return its kernels and gradients too, float64."""
    who = subject(MLP(norm=norm, classes=3, widths=(6,), activation="tanh"), optimizer)
    when = moment(who, (12, 4))
    _, gradient = loss_and_gradient(who, when)
    weights, gradients = (
        [np.asarray(tree[f"Dense_{i}"]["kernel"], np.float64) for i in range(2)]
        for tree in (when.params, gradient)
    )
    return Updates().measure(who, when), weights, gradients


def sizes(arrays):
    return np.array([np.linalg.norm(a) for a in arrays])


@pytest.fixture(scope="module")
def normalised():
    return measured(BatchNorm(eps=1e-9), optax.sgd(RATE))


def test_the_ratio_is_that_of_the_norms_and_the_spread_that_of_its_powers_of_ten(normalised):
    found, weights, gradients = normalised
    expected = RATE * sizes(gradients) / sizes(weights)
    np.testing.assert_allclose(found["ratio"].values, expected, rtol=1e-5)
    np.testing.assert_allclose(found["weight_norm"].values, sizes(weights), rtol=1e-5)
    np.testing.assert_allclose(found["spread"], np.log10(expected).std(), rtol=1e-4)
    angles = np.asarray(found["angle"].values, np.float64)
    np.testing.assert_allclose(found["angle_spread"], np.log10(angles).std(), rtol=1e-4)


def test_before_a_normaliser_the_gradient_is_at_right_angles_to_the_weight(normalised):
    cosines = np.abs(normalised[0]["gradient_cosine"].values)
    assert cosines[0] < 1e-4 and cosines[1] > 0.01  # the head has none behind it


def test_a_scale_invariant_weight_turns_by_the_arc_tangent_and_at_the_effective_rate(normalised):
    found, weights, gradients = normalised
    w, g = sizes(weights)[:1], sizes(gradients)[:1]
    np.testing.assert_allclose(found["angle"].values[:1], np.arctan(RATE * g / w), rtol=1e-4)
    effective = found["effective_learning_rate"].values[:1]
    np.testing.assert_allclose(effective, RATE / w**2, rtol=1e-4)


def test_every_weight_turns_by_the_angle_between_it_and_what_comes_after(normalised):
    found, weights, gradients = normalised
    after = [w - RATE * g for w, g in zip(weights, gradients, strict=True)]
    dots = np.array([np.sum(w * a) for w, a in zip(weights, after, strict=True)])
    expected = np.arccos(dots / sizes(weights) / sizes(after))
    np.testing.assert_allclose(found["angle"].values, expected, rtol=1e-4)


def test_weight_decay_shortens_a_weight_and_leaves_its_effective_rate():
    decay = 0.5
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.sgd(RATE))
    found, weights, gradients = measured(BatchNorm(eps=1e-9), optimizer)
    w, g = sizes(weights)[:1], sizes(gradients)[:1]
    effective = found["effective_learning_rate"].values[:1]
    np.testing.assert_allclose(effective, RATE / w**2, rtol=1e-4)
    expected = np.arctan(RATE * g / (w * (1 - RATE * decay)))
    np.testing.assert_allclose(found["angle"].values[:1], expected, rtol=1e-4)


def test_a_rate_of_zero_moves_nothing():
    found, *_ = measured(Identity(), optax.sgd(0.0))
    for key in ("ratio", "angle", "effective_learning_rate"):
        np.testing.assert_array_equal(found[key].values, np.zeros(2, np.float32))
    assert float(found["spread"]) == pytest.approx(0, abs=1e-5)
    # Without a normaliser no weight is scale-invariant.
    assert (np.abs(found["gradient_cosine"].values) > 1e-3).all()


def test_the_optimisers_own_update_is_what_counts():
    """An optimiser may use only the gradient's sign, whatever its size."""
    x, w = np.array([[1.0, -2.0, 4.0]]), np.array([[3.0], [0.0], [4.0]])
    optimizer = optax.sign_sgd(0.01)
    found = linear_look(Updates(), [w], x, np.zeros((1, 1)), optimizer=optimizer)
    np.testing.assert_allclose(found["ratio"].values, [0.01 * np.sqrt(3) / 5], rtol=1e-5)


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 1e3])
def test_an_angle_keeps_its_digits_however_small(size):
    w, u = np.array([3.0, 4.0]), size * np.array([-4.0, 3.0]) / 5
    found = angular_update(jnp.asarray(w, jnp.float32), jnp.asarray(u, jnp.float32))
    np.testing.assert_allclose(found, np.arctan(size / 5), rtol=1e-6)
    turned_round = angular_update(jnp.array([1.0, 0.0]), jnp.array([-3.0, 0.0]))
    assert float(turned_round) == pytest.approx(np.pi)


def test_the_spread_is_in_powers_of_ten_and_neither_units_nor_copies_change_it():
    values = np.array([1e-3, 1e-1, 1e1])
    expected = np.array([-2.0, 0.0, 2.0]).std()
    for given in (values, 7 * values, np.tile(values, 5)):
        found = jax.jit(spread)(jnp.asarray(given, jnp.float32))
        assert float(found) == pytest.approx(expected, rel=1e-5)
