"""Normalisers whose backward has a memory, step by step against the papers in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.norms import MovingAverageBatchNorm, OnlineNorm, PowerNorm

from .conftest import sample, with_values

SHAPE = (4, 3, 3, 5)
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
OVER = (0, 1, 2)


def steps(number=6):
    for step in range(number):
        x = sample(SHAPE, mean=0.5 * step, std=1 + step, seed=step)
        yield x, sample(SHAPE, seed=90 + step)


@partial(jax.jit, static_argnums=0)
def one_step(norm, params, state, x, dy):
    """Output, gradient of the input, and the state with what the backward left in it."""

    def loss(state, x):
        y, moved = norm.apply(params, state, x, train=True)
        return (y * dy).sum(), (y, moved)

    (left, d_x), (y, moved) = jax.grad(loss, argnums=(0, 1), has_aux=True)(state, x)
    return y, d_x, {**moved, **{name: left[name] for name in norm.facts.backward_state}}


def test_power_norm_follows_its_algorithm():
    norm = PowerNorm(warm_up=2, momentum=0.8)
    params, state = norm.init(5)
    params = with_values(params)
    scale, bias = (np.asarray(params[k], np.float64) for k in ("scale", "bias"))
    square, product = np.ones(5), np.zeros(5)
    for step, (x, dy) in enumerate(steps()):
        y, d_x, state = one_step(norm, params, state, x, dy)
        own = (x.astype(np.float64) ** 2).mean(axis=OVER)
        psi = np.sqrt((own if step < 2 else square) + norm.eps)
        z, g = x / psi, dy * scale
        lam, gamma = (g * z).mean(axis=OVER), (z**2).mean(axis=OVER)
        used = lam if step < 2 else product
        product = lam if step < 2 else product * (1 - 0.2 * gamma) + 0.2 * lam
        square = 0.8 * square + 0.2 * own
        np.testing.assert_allclose(y, z * scale + bias, **CLOSE)
        np.testing.assert_allclose(d_x, (g - used * z) / psi, **CLOSE)
        np.testing.assert_allclose(state["mean_square"], square, **CLOSE)
        np.testing.assert_allclose(state["product"], product, **CLOSE)


def test_moving_average_batch_norm_follows_its_algorithm():
    norm = MovingAverageBatchNorm(memory=2, warm_up=2, r_after=4, momentum=0.8)
    params, state = norm.init(5)
    squares, products, running = [], [], np.ones(5)
    for step, (x, dy) in enumerate(steps(8)):
        y, d_x, state = one_step(norm, params, state, x, dy)
        squares.append((x.astype(np.float64) ** 2).mean(axis=OVER))
        used = squares[-1] if step < 2 else np.mean(squares[-2:], axis=0)
        chi = np.sqrt(used + norm.eps)
        r = np.clip(chi / np.sqrt(running + norm.eps), 1 / 5, 5) if step >= 4 else 1.0
        z, g = x / chi, dy * r
        products.append((g * z).mean(axis=OVER))
        product = products[-1] if step < 2 else np.mean(products[-2:], axis=0)
        running = 0.8 * running + 0.2 * used
        np.testing.assert_allclose(y, z * r, **CLOSE)
        np.testing.assert_allclose(d_x, (g - product * z) / chi, **CLOSE)
        np.testing.assert_allclose(state["mean_square"], running, **CLOSE)


def test_online_norm_follows_its_algorithm():
    norm = OnlineNorm(momentum=0.8, backward_momentum=0.7, eps=1e-6)
    params, state = norm.init(5)
    params = with_values(params)
    scale, bias = (np.asarray(params[k], np.float64) for k in ("scale", "bias"))
    mean, variance, along, total = np.zeros(5), np.ones(5), np.zeros(5), np.zeros(5)
    for x, dy in steps():
        y, d_x, state = one_step(norm, params, state, x, dy)
        for i in range(len(x)):
            values, root = x[i].astype(np.float64), np.sqrt(variance + norm.eps)
            z = (values - mean) / root
            new = values.mean(axis=(0, 1))
            spread = 0.8 * 0.2 * (new - mean) ** 2
            variance = 0.8 * variance + 0.2 * values.var(axis=(0, 1)) + spread
            mean = 0.8 * mean + 0.2 * new
            # Scale, bias and layer scaling have their exact gradients.
            out = z * scale + bias
            rms = np.sqrt((out**2).mean() + norm.eps)
            np.testing.assert_allclose(y[i], out / rms, **CLOSE)
            g = (dy[i] / rms - out * (dy[i] * out).mean() / rms**3) * scale
            g = g - 0.3 * along * z
            along = along + (g * z).mean(axis=(0, 1))
            g = g / root - 0.3 * total
            total = total + g.mean(axis=(0, 1))
            np.testing.assert_allclose(d_x[i], g, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(state["mean"], mean, **CLOSE)
        np.testing.assert_allclose(state["variance"], variance, **CLOSE)
        np.testing.assert_allclose(state["error_along"], along, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(state["error_sum"], total, rtol=2e-4, atol=2e-5)


def test_the_controls_of_online_norm_take_out_what_a_normaliser_does_not_let_through():
    """Over many steps the gradient has next to nothing along the output, nor in the mean."""
    norm = OnlineNorm(momentum=0.9, backward_momentum=0.9)
    params, state = norm.init(5)
    sums = []
    for step in range(60):
        x, dy = sample(SHAPE, seed=step), 1 + sample(SHAPE, seed=500 + step)
        _, d_x, state = one_step(norm, params, state, x, dy)
        sums.append(np.asarray(d_x, np.float64).mean(axis=OVER))
    plain = 1.0  # what each mean would be near, were the gradient passed on
    assert np.abs(np.mean(sums[20:], axis=0)).max() < 0.1 * plain


@pytest.mark.parametrize("norm", [PowerNorm(warm_up=1), MovingAverageBatchNorm(), OnlineNorm()])
def test_gradients_of_gradients_exist(norm):
    params, state = norm.init(5)
    x, v = jnp.asarray(sample(SHAPE)), jnp.asarray(sample(SHAPE, seed=1))
    slope = jax.grad(lambda x: (norm.apply(params, state, x, train=True)[0] ** 3).sum())
    product = jax.jit(lambda x, v: jax.jvp(slope, (x,), (v,))[1])(x, v)
    assert bool(jnp.isfinite(product).all()) and float(jnp.abs(product).max()) > 0
