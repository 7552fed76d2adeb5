"""Both kinds of covariate shift are right on networks whose step is computed by hand."""

from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.models.plain import MLP
from normlab.norms import BatchNorm
from normlab.probes import CovariateShift
from normlab.probes.covariate_shift import distribution_shift, gradient_shift
from normlab.probes.layers import owners

from .conftest import linear_look, moment, subject

RNG = np.random.default_rng(0)
RATE = 0.2


def gradients(x, targets, kernels):
    """Compute by hand the gradients of half the mean squared distance of `x W0 W1 ...`."""
    inputs = [x]
    for kernel in kernels:
        inputs.append(inputs[-1] @ kernel)
    error, found = (inputs[-1] - targets) / len(x), []
    for taken, kernel in zip(inputs[-2::-1], kernels[::-1], strict=True):
        found.insert(0, taken.T @ error)
        error = error @ kernel.T
    return found


def network(*widths):
    x, targets = RNG.standard_normal((10, widths[0])), RNG.standard_normal((10, widths[-1]))
    return x, targets, [RNG.standard_normal(pair) / 2 for pair in pairwise(widths)]


@pytest.fixture(scope="module")
def three_layers():
    x, targets, kernels = network(4, 5, 3, 2)
    g = gradients(x, targets, kernels)
    after = [w - RATE * change for w, change in zip(kernels, g, strict=True)]
    found = linear_look(CovariateShift(), kernels, x, targets, optimizer=optax.sgd(RATE))
    return found, x, targets, kernels, after, g


def test_the_gradients_shift_is_that_of_the_layers_before_alone(three_layers):
    """Santurkar's definition 2.1 moves only the layers before it."""
    found, x, targets, kernels, after, g = three_layers
    mixed = [gradients(x, targets, after[:i] + kernels[i:])[i] for i in range(3)]
    distance = [np.linalg.norm(a - b) for a, b in zip(g, mixed, strict=True)]
    size = np.array([np.linalg.norm(a) for a in g])
    angle = [
        np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(g, mixed, strict=True)
    ]
    assert found["gradient_distance"].layers == ("Dense_0", "Dense_1", "Dense_2")
    np.testing.assert_allclose(found["gradient_distance"].values, distance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["gradient_change"].values, distance / size, rtol=1e-4)
    np.testing.assert_allclose(found["gradient_cosine"].values, angle, rtol=1e-5)
    assert distance[1] > 0.01 and distance[2] > 0.01


def test_the_first_layer_has_none_before_it(three_layers):
    found = three_layers[0]
    assert float(found["gradient_distance"].values[0]) == 0
    assert found["distance"].layers == ("Dense_1", "Dense_2")


def test_the_inputs_shift_is_that_of_its_channels_in_units_of_their_deviation(three_layers):
    found, x, _, kernels, after, _ = three_layers
    for number in (1, 2):
        before, later = (
            x @ np.linalg.multi_dot([np.eye(4), *w[:number]]) for w in (kernels, after)
        )
        unit = np.sqrt(before.var(axis=0).mean())
        mean = np.sqrt(((later.mean(axis=0) - before.mean(axis=0)) ** 2).mean()) / unit
        deviation = np.sqrt(((later.std(axis=0) - before.std(axis=0)) ** 2).mean()) / unit
        at = number - 1
        np.testing.assert_allclose(found["mean"].values[at], mean, rtol=1e-4)
        np.testing.assert_allclose(found["deviation"].values[at], deviation, rtol=1e-4)
        np.testing.assert_allclose(
            found["distance"].values[at], np.hypot(mean, deviation), rtol=1e-4
        )


def test_a_network_of_one_layer_has_no_gradient_shift():
    x, targets, kernels = network(4, 2)

    def gradient(w):
        return jnp.asarray(gradients(x, targets, [np.asarray(w)])[0], jnp.float32)

    before = jnp.asarray(kernels[0], jnp.float32)
    found = gradient_shift(gradient, before, before - 1, 0, lambda tree: [tree])
    assert found.distance.tolist() == [0] and found.cosine.tolist() == [pytest.approx(1)]


class Scaled(nn.Module):
    """Dense layers with parameters that are not kernels: biases and a normaliser's."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.LayerNorm()(nn.Dense(4)(x))
        x = nn.Dense(4)(x)
        return nn.Dense(3)(x)


def test_biases_and_normalisers_move_with_the_layer_before_them():
    who = subject(Scaled())
    of = owners(who, moment(who, (8, 5)))
    number = {"Dense_0": 0, "LayerNorm_0": 0, "Dense_1": 1, "Dense_2": 2}
    assert of == {name: jax.tree.map(lambda _, n=number[name]: n, of[name]) for name in of}
    assert set(of) == set(number) and set(of["LayerNorm_0"]) == {"scale", "bias"}


def test_at_a_rate_of_zero_nothing_shifts():
    who = subject(MLP(norm=BatchNorm(), classes=3, widths=(4,)), optax.sgd(0.0))
    found = CovariateShift().measure(who, moment(who, (8, 5)))
    for key in ("mean", "deviation", "distance", "gradient_distance", "gradient_change"):
        np.testing.assert_allclose(found[key].values, 0, atol=1e-6, err_msg=key)
    np.testing.assert_allclose(found["gradient_cosine"].values, 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(50, 3), (6, 5, 5, 3)])
@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_a_distribution_that_is_moved_and_stretched_shifts_by_that(shape, scale):
    """Channels of deviation d that become `2 x + 3 d` move by 3 deviations and stretch by one."""
    axes = tuple(range(len(shape) - 1))
    x = RNG.standard_normal(shape)
    x = scale * (x - x.mean(axis=axes)) / x.std(axis=axes)
    shift = distribution_shift(*(jnp.asarray(v, jnp.float32) for v in (x, 2 * x + 3 * scale)))
    np.testing.assert_allclose(shift.mean, 3, rtol=1e-4)
    np.testing.assert_allclose(shift.deviation, 1, rtol=1e-4)
    np.testing.assert_allclose(shift.distance, np.sqrt(10), rtol=1e-4)


def test_a_channel_that_was_constant_makes_no_unit_of_zero():
    x = np.stack([np.full(4, 2.0), [-1.0, 1.0, -1.0, 1.0]], axis=1)
    later = x + np.array([0.5, 0.0])
    shift = distribution_shift(*(jnp.asarray(v, jnp.float32) for v in (x, later)))
    np.testing.assert_allclose(shift.mean, 0.5, rtol=1e-6)  # root mean square of .5, 0 over sqrt .5
    nothing = distribution_shift(jnp.ones((4, 2)), jnp.zeros((4, 2)))
    assert np.isfinite(nothing.distance)
