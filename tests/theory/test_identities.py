"""One normaliser equals another in the limits and identities that papers state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.norms import BatchNorm, BatchRenorm, DynamicTanh, EvoNormS0
from normlab.norms.batch import batch_norm
from normlab.norms.batch_renorm import batch_renorm
from normlab.norms.filter_response import filter_response_norm
from normlab.norms.group import group_norm
from normlab.norms.instance import instance_norm
from normlab.norms.layer import layer_norm_image
from normlab.norms.rms import rms_norm

N, SIZE, C = 8, 5, 12


def drawn(*shape, mean=0.0, std=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, std, shape).astype(np.float32)


X, DY = drawn(N, SIZE, SIZE + 1, C, mean=3, std=2), drawn(N, SIZE, SIZE + 1, C, seed=1)
SCALE, BIAS = np.linspace(0.5, 2, C, dtype=np.float32), np.linspace(-1, 1, C, dtype=np.float32)


def value_and_gradient(function):
    """Compute the value at X, and the gradient of its product with DY."""

    @jax.jit
    def both(x, dy):
        value, pull = jax.vjp(function, x)
        return value, pull(dy)[0]

    return both(X, DY)


def of_x(function, **settings):
    return jax.jit(partial(function, **settings))(X, SCALE, BIAS)


def test_group_norm_is_layer_norm_with_one_group_and_instance_norm_with_as_many_as_channels():
    """Wu & He 2018 (arXiv:1803.08494), section 3."""
    for groups, other in ((1, layer_norm_image), (C, instance_norm)):
        np.testing.assert_array_equal(of_x(group_norm, groups=groups), of_x(other))


def test_ghost_batches_of_all_examples_are_the_batch_and_those_of_one_are_instance_norm():
    """Hoffer et al. 2017 (arXiv:1705.08741), algorithm 1, at its two ends."""
    np.testing.assert_array_equal(of_x(batch_norm, norm_batch=N), of_x(batch_norm))
    np.testing.assert_array_equal(of_x(batch_norm, norm_batch=1), of_x(instance_norm))


def test_ghost_batches_in_the_layer_have_the_gradients_of_chunks_whose_gradients_are_averaged():
    """Hoffer et al. 2017; the authors' code runs chunks of the batch one after another. Gradients
    are the same in a network of several such layers; running statistics are not: chunks move them
    once each, the last the most, and a layer once by the moments of all."""
    chunks, size, momentum = 3, 4, 0.9
    x, y = drawn(chunks * size, 5, mean=1), drawn(chunks * size, 2, seed=1)
    weights = drawn(5, 6, seed=2), drawn(6, 6, seed=3), drawn(6, 2, seed=4)
    start = [BatchNorm().init(6)[1]] * 2

    def loss(weights, states, x, y, norm_batch):
        norm, moved, h = BatchNorm(momentum=momentum, norm_batch=norm_batch), [], x
        for weight, state in zip(weights, states, strict=False):
            h, state = norm.apply({}, state, h @ weight, train=True)
            h, moved = jax.nn.relu(h), [*moved, state]
        return ((h @ weights[-1] - y) ** 2).mean(), moved

    slope = jax.jit(jax.grad(loss, has_aux=True), static_argnums=4)
    whole, after_one = slope(weights, start, x, y, size)
    parts, after_each = [], start
    for chunk in zip(np.split(x, chunks), np.split(y, chunks), strict=True):
        part, after_each = slope(weights, after_each, *chunk, None)
        parts.append(part)
    for ghost, *each in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(ghost, np.mean(each, axis=0), rtol=1e-5, atol=1e-6)

    inputs = np.asarray(x @ weights[0], np.float64)
    means, share = inputs.reshape(chunks, size, -1).mean(axis=1), momentum ** np.arange(chunks)
    np.testing.assert_allclose(after_one[0]["mean"], (1 - momentum) * means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        after_each[0]["mean"], (1 - momentum) * (share[::-1] @ means), rtol=1e-5
    )
    variance = after_one[0]["variance"]
    np.testing.assert_allclose(variance, momentum + (1 - momentum) * inputs.var(0), rtol=1e-5)
    variances = inputs.reshape(chunks, size, -1).var(axis=1)
    np.testing.assert_allclose(
        after_each[0]["variance"],
        momentum**chunks + (1 - momentum) * (share[::-1] @ variances),
        rtol=1e-5,
    )


def test_batch_renorm_without_room_is_batch_norm():
    """Ioffe 2017 (arXiv:1702.03275), section 3: r = 1 and d = 0. To rounding, in value and
    gradient: the two take their statistics in different orders."""
    ours = value_and_gradient(
        lambda x: batch_renorm(x, SCALE, BIAS, mean=BIAS, deviation=SCALE, r_max=1.0, d_max=0.0)
    )
    plain = value_and_gradient(lambda x: batch_norm(x, SCALE, BIAS))
    for found, wanted in zip(ours, plain, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_batch_renorm_without_limits_has_the_values_of_frozen_statistics_and_not_their_gradient():
    """Ioffe 2017, section 3: training then computes what inference will; r and d are constants to
    the gradient, which is therefore batch norm's times r."""
    norm = BatchRenorm(r_max=1e6, d_max=1e6, warm_up=0, r_rise=0, d_rise=0)
    params, state = {"scale": SCALE, "bias": BIAS}, {"mean": BIAS, "deviation": SCALE}
    state = {**state, "steps": np.float32(0)}
    training, frozen = (
        value_and_gradient(lambda x, train=train: norm.apply(params, state, x, train=train)[0])
        for train in (True, False)
    )
    np.testing.assert_allclose(training[0], frozen[0], rtol=1e-5, atol=1e-5)
    r = X.std(axis=(0, 1, 2)) / SCALE
    plain = value_and_gradient(lambda x: batch_norm(x, SCALE))[1]
    np.testing.assert_allclose(training[1], r * np.asarray(plain), rtol=1e-4, atol=1e-5)
    assert np.abs(training[1] - frozen[1]).max() > 0.1


def test_evonorm_s0_without_its_gate_divides_by_the_deviation_of_a_group():
    """Liu et al. 2020 (arXiv:2004.02967), table 2: with v = 0 the gate is one half everywhere."""
    norm = EvoNormS0(groups=4, eps=1e-12)
    params, state = norm.init(C)
    y, _ = jax.jit(partial(norm.apply, train=True))({**params, "v": jnp.zeros(C)}, state, X)
    grouped = X.astype(np.float64).reshape(N, SIZE, SIZE + 1, 4, -1)
    wanted = grouped / grouped.std(axis=(1, 2, 4), keepdims=True)
    np.testing.assert_allclose(2 * y, wanted.reshape(X.shape), rtol=1e-5)


def test_filter_response_norm_is_rms_norm_over_positions():
    """Singh & Krishnan 2020 (arXiv:1911.09737), equation 1, without the threshold."""
    rows = np.moveaxis(X, -1, 1).reshape(N, C, -1)
    wanted = np.asarray(jax.jit(partial(rms_norm, eps=1e-6))(rows)).reshape(N, C, SIZE, SIZE + 1)
    found = jax.jit(filter_response_norm)(X)
    np.testing.assert_allclose(found, np.moveaxis(wanted, 1, -1), rtol=1e-6)


def test_dynamic_tanh_of_small_slope_is_affine():
    """Zhu et al. 2025 (arXiv:2503.10622): tanh(a x) / a is x to within a^2 |x|^3 / 3, and no less
    than half of that."""
    alpha = 0.03
    params = {"scale": SCALE / alpha, "bias": BIAS, "alpha": np.float32(alpha)}
    found, _ = jax.jit(partial(DynamicTanh().apply, train=True))(params, {}, X)
    apart = np.abs(found - (SCALE * X + BIAS))
    cubes = SCALE * alpha**2 * np.abs(X) ** 3 / 3
    assert (apart <= cubes + 1e-5).all()
    large = cubes > 1e-3
    assert large.any() and (apart[large] > cubes[large] / 2).all()


DISTRIBUTIONS = {"normal": 0.0, "uniform": -1.2, "laplace": 3.0}
"""And the excess of their kurtosis."""


@pytest.mark.parametrize("batch", [8, 32, 128])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_batches_of_m_cost_a_regression_what_decay_of_gamma_would(name, batch):
    """Luo et al. 2019 (arXiv:1809.00846), section 3: in expectation batch norm's loss is that of
    population statistics and `z gamma^2`, `z = (kurtosis excess + 2) / (8 M) + 1 / (2 M)` for a
    linear unit and half squares. Here at its solution, where the loss by population statistics is
    zero, within 20%. (An example is in its own batch, so away from there it is `z gamma gamma_0`.)
    """
    h = getattr(np.random.default_rng(0), name)(size=(500 * batch, 16)).astype(np.float32)
    by_population = jnp.asarray((h - h.mean()) / h.std())
    by_batch = jax.jit(lambda h: batch_norm(h, eps=1e-12, norm_batch=batch))(jnp.asarray(h))
    cost = 0.5 * np.square(np.asarray(by_batch - by_population, np.float64)).mean()
    assert cost == pytest.approx((DISTRIBUTIONS[name] + 6) / (8 * batch), rel=0.2)
