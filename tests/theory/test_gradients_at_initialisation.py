"""Gradients and signals of deep random networks are as papers predict or measured.

The same for smaller models, measured by the library's probe, is in
tests/probes/test_propagation.py.
"""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from normlab.norms.batch import batch_norm

SEEDS = range(3)


@cache
def gaussian_kernels(seed, depth, width):
    """Draw kernels `(depth, width, width)` with variance 1 / width."""
    draw = np.random.default_rng(seed).standard_normal((depth, width, width), np.float32)
    return draw * np.float32(width**-0.5)


# How gradients grow through batch norm.

DEPTH = 40


@partial(jax.jit, static_argnames="activation")
def squared_gradients(kernels, x, towards, activation):
    """Sum the squared gradient of each normaliser's input over the batch, first layer first."""

    def layer(h, row):
        kernel, nudge = row
        return activation(batch_norm(h @ kernel + nudge, eps=1e-12)), None

    def output(nudges):
        return (lax.scan(layer, x, (kernels, nudges))[0] * towards).sum()

    gradient = jax.grad(output)(jnp.zeros((DEPTH, *x.shape)))
    return (gradient**2).sum(axis=(1, 2))


def identity(h):
    return h


def growth(width, batch, activation):
    """Compute their growth factor per layer, without those next to the input and the end."""
    rng, logs = np.random.default_rng(batch), []
    for seed in SEEDS:
        x, towards = rng.standard_normal((2, batch, width), np.float32)
        kernels = gaussian_kernels(seed, DEPTH, width)
        squares = squared_gradients(kernels, x, towards, activation)
        logs.append(np.log(squares[1] / squares[-3]) / (DEPTH - 4))
    return np.exp(np.mean(logs))


LINEAR = {batch: (batch - 2) / (batch - 3) for batch in (8, 16, 32, 128)}


@pytest.fixture(scope="module")
def measured():
    """Measure linear networks, by width and batch."""
    batches = {128: (8, 16), 512: LINEAR}
    return {w: {b: growth(w, b, identity) for b in batches[w]} for w in batches}


@pytest.mark.parametrize("batch", LINEAR)
@pytest.mark.thorough
def test_through_linear_batch_norm_gradients_grow_by_the_batch_alone(measured, batch):
    """They grow by (B - 2) / (B - 3) per layer (Yang et al. 2019, arXiv:1902.08129), within 2%."""
    assert measured[512][batch] == pytest.approx(LINEAR[batch], rel=0.02)


@pytest.mark.thorough
def test_the_wider_the_network_the_nearer_it_comes_to_that_theory(measured):
    """The theory is of infinite width. The test is on the excess over 1, which explodes."""
    short = [
        np.mean([1 - (measured[width][b] - 1) / (LINEAR[b] - 1) for b in (8, 16)])
        for width in (128, 512)
    ]
    assert abs(short[1]) < 0.12 and short[0] > 2 * abs(short[1])


def test_through_batch_norm_and_relu_gradients_grow_by_nearly_a_half_a_layer():
    """They grow by pi / (pi - 1) = 1.467 for a large batch (Yang et al. 2019), within 1%."""
    assert growth(512, 256, nn.relu) == pytest.approx(np.pi / (np.pi - 1), rel=0.01)


# What Bjorck et al. 2018 (arXiv:1806.02375) see in networks of ReLUs without batch norm.


@cache
def random_network(normalised, residual, depth=30, width=256, batch=64):
    """Average over seeds the layers' outputs and the gradients of He-initialised kernels, by depth.

    Returns:
        The mean square over channels of a channel's mean over the batch, the mean of its variance,
        the mean of one over the other, and the kurtosis of the gradient of a layer's kernel. A
        plain layer's output is its normaliser's input, and a residual block's is the sum.
    """

    norm = batch_norm if normalised else identity

    def layer(h, kernel):
        if residual:
            h = given = h + nn.relu(norm(h)) @ kernel
        else:
            given = h @ kernel
            h = nn.relu(norm(given))
        mean, variance = given.mean(axis=0), given.var(axis=0)
        return h, ((mean**2).mean(), variance.mean(), (mean**2 / variance).mean())

    def loss(kernels, x, head, labels):
        h, seen = lax.scan(layer, x, kernels)
        return -(nn.log_softmax(h @ head) * labels).sum(axis=1).mean(), seen

    slope = jax.jit(jax.grad(loss, has_aux=True))
    found = []
    for seed in SEEDS:
        rng = np.random.default_rng(100 + seed)
        x, head = (rng.standard_normal(size, np.float32) for size in ((batch, width), (width, 10)))
        labels = np.eye(10, dtype=np.float32)[rng.integers(10, size=batch)]
        kernels = gaussian_kernels(seed, depth, width) * np.float32(2**0.5)
        gradient, seen = slope(kernels, x, head * np.float32(width**-0.5), labels)
        gradient = np.asarray(gradient, np.float64).reshape(depth, -1)
        found.append([*seen, stats.kurtosis(gradient, axis=1, fisher=False)])
    return np.mean(np.array(found, np.float64), axis=0)


def slope_by_depth(values, begin=5):
    """Fit the slope of the logarithm per layer, without the first layers."""
    layers = np.arange(begin, len(values))
    return stats.linregress(layers, np.log(values[begin:])).slope


@pytest.mark.thorough
def test_channel_means_outgrow_deviations_with_depth_unless_batch_norm_takes_them_away():
    """All examples become alike. With batch norm the mean is only what ReLU creates, whose
    square over the variance is 1 / (pi - 1) at any depth."""
    *_, without, _ = random_network(normalised=False, residual=False)
    *_, with_norm, _ = random_network(normalised=True, residual=False)
    assert slope_by_depth(without) > 0.03 and without[-1] > 2 * without[5]
    assert without[-1] > 10 * with_norm[-1]
    assert abs(slope_by_depth(with_norm)) < 0.01
    assert with_norm[5:].mean() == pytest.approx(1 / (np.pi - 1), rel=0.15)


def test_channel_means_and_variances_of_residual_networks_double_a_block_without_batch_norm():
    """Figure 5, ResNet-110: growth is almost exponential, and linear with batch norm."""
    square, variance, *_ = random_network(normalised=False, residual=True)
    for values in (square, variance):
        assert slope_by_depth(values) == pytest.approx(np.log(2), rel=0.15)
    square, variance, ratio, _ = random_network(normalised=True, residual=True)
    for values in (square, variance):
        blocks = np.arange(len(values))
        assert stats.linregress(blocks, values).rvalue > 0.99
        assert values[-1] < 2 * len(values)
    assert abs(slope_by_depth(ratio)) < 0.01


@pytest.mark.parametrize("residual", [False, True])
def test_first_gradients_have_heavy_tails_without_batch_norm(residual):
    """Figure 4 shows a layer half way. A normal distribution has a kurtosis of 3."""
    *_, without = random_network(normalised=False, residual=residual)
    *_, with_norm = random_network(normalised=True, residual=residual)
    assert without[15] > 3 * with_norm[15]
    assert with_norm[15] < 5 < 10 < without[15]
