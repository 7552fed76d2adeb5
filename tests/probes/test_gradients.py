"""`gradients` equals norms of gradients by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.probes import Gradients, look
from normlab.probes.formulas import cosine, dot, norm

from .conftest import half_squares, linear_look

RNG = np.random.default_rng(0)


def test_of_two_linear_layers_they_are_those_by_hand():
    x, first, last = (RNG.standard_normal(shape) for shape in ((10, 4), (4, 5), (5, 2)))
    targets = RNG.standard_normal((10, 2))
    error = (x @ first @ last - targets) / 10
    gradients = [x.T @ error @ last.T, (x @ first).T @ error]
    norms = np.array([np.linalg.norm(g) for g in gradients])
    rms = np.array([np.sqrt(np.mean(g**2)) for g in gradients])

    found = linear_look(Gradients(), [first, last], x, targets)
    assert found["norm"].layers == found["rms"].layers == ("Dense_0", "Dense_1")
    np.testing.assert_allclose(found["norm"].values, norms, rtol=1e-5)
    np.testing.assert_allclose(found["rms"].values, rms, rtol=1e-5)
    np.testing.assert_allclose(found["total"], np.sqrt((norms**2).sum()), rtol=1e-5)
    np.testing.assert_allclose(found["spread"], np.log10(rms).std(), rtol=1e-4, atol=1e-6)


def test_the_total_contains_the_biases_and_a_layers_norm_does_not():
    x, kernel, bias = (RNG.standard_normal(shape) for shape in ((6, 3), (3, 2), (2,)))
    error = (x @ kernel + bias) / 6
    squares = np.sum((x.T @ error) ** 2), np.sum(error.sum(axis=0) ** 2)
    single = [jnp.asarray(value, jnp.float32) for value in (kernel, bias, x)]
    params = dict(zip(("kernel", "bias"), single[:2], strict=True))
    model, targets = nn.Dense(2, dtype=jnp.float32), jnp.zeros((6, 2))
    model = nn.Sequential([model])
    variables = {"params": {"layers_0": params}}
    found = look(model, variables, single[2], targets, [Gradients()], loss=half_squares)
    found = found["gradients"]
    np.testing.assert_allclose(found["norm"].values, [np.sqrt(squares[0])], rtol=1e-5)
    np.testing.assert_allclose(found["total"], np.sqrt(sum(squares)), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norms_and_angles_of_any_scale_neither_vanish_nor_overflow(scale):
    one, other = RNG.standard_normal(7), RNG.standard_normal(7)
    tree, other_tree = (
        {"a": jnp.asarray(v[:4], jnp.float32), "b": jnp.asarray(v[4:], jnp.float32).reshape(1, 3)}
        for v in (scale * one, other)
    )
    size = np.linalg.norm(one)
    np.testing.assert_allclose(norm(tree) / scale, size, rtol=1e-5)
    angle = one @ other / size / np.linalg.norm(other)
    np.testing.assert_allclose(cosine(tree, other_tree), angle, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dot(tree, other_tree) / scale, one @ other, rtol=1e-5, atol=1e-6)
    nothing = {"a": jnp.zeros(4), "b": jnp.zeros((1, 3))}
    assert float(norm(nothing)) == float(cosine(tree, nothing)) == 0


def test_a_network_of_ones_own_is_warned_of_images_with_their_channels_first():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x.reshape(len(x), -1))

    x, labels = jnp.ones((4, 3, 8, 8)), jnp.zeros(4, jnp.int32)
    variables = Own().init(jax.random.key(0), x)
    with pytest.warns(UserWarning, match=r"channels first.*transpose\(0, 2, 3, 1\)"):
        look(Own(), variables, x, labels, [Gradients()])
