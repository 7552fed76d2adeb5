"""Masked elements count for nothing, in every entry of the catalogue."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.ops.moments import ShapeError

from .conftest import assert_trees_close, make, sample, with_values
from .reference import REFERENCES, expected

SHAPE = (4, 3, 5, 16)
MASKS = [(4, 3, 5, 1), (4, 1, 1, 1), (1, 3, 1, 1), SHAPE]


def drawn(shape):
    """A mask that drops about a third, and one example (or row) wholly where it can."""
    mask = np.random.default_rng(3).random(shape) < 0.7
    mask.reshape(-1, shape[-1])[-1] = False
    return mask


@partial(jax.jit, static_argnames=("norm", "train"))
def apply(norm, params, x, mask, train=True):
    return norm.apply(params, norm.init(16)[1], x, train=train, mask=mask)


@pytest.mark.parametrize("mask_shape", MASKS, ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_the_masked_equation_is_that_of_the_valid_elements(name, mask_shape):
    norm, mask, x = make(name), drawn(mask_shape), sample(SHAPE, mean=3)
    params = with_values(norm.init(16)[0])
    y, _ = apply(norm, params, jnp.asarray(x), jnp.asarray(mask))
    np.testing.assert_allclose(y, expected(name, norm, params, x, mask), rtol=2e-6, atol=4e-6)
    assert not np.asarray(y)[~np.broadcast_to(mask, SHAPE)].any()


@pytest.mark.parametrize("train", [True, False])
def test_what_is_masked_reaches_no_output_no_state_and_no_gradient(norm, train):
    mask = drawn((4, 3, 5, 1))
    kept = np.broadcast_to(mask, SHAPE)
    params = with_values(norm.init(16)[0])
    dy = jnp.asarray(sample(SHAPE, seed=2))

    @jax.jit
    def everything(x):
        def loss(params, x):
            y, moved = apply(norm, params, x, jnp.asarray(mask), train)
            return (y * dy).sum(), (y, moved)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    x = sample(SHAPE, mean=3)
    clean = everything(jnp.asarray(np.where(kept, x, 7)))
    for junk in (np.nan, np.inf, -np.inf, 1e30, -1e4):
        spoilt = everything(jnp.asarray(np.where(kept, x, junk).astype(np.float32)))
        assert_trees_close(spoilt, clean, rtol=2e-6, atol=2e-6, err_msg=f"{junk} where masked")
    d_x = np.asarray(clean[1][1])
    assert not d_x[~kept].any() and d_x[kept].any()


def test_padding_tokens_changes_nothing(norm):
    """Examples of different lengths, padded to one: each valid token as without the padding."""
    x, longer = sample((4, 4, 16)), sample((4, 9, 16), mean=50)
    longer[:, :4] = x
    mask = jnp.asarray((np.arange(9) < 4).reshape(1, 9, 1))
    params = with_values(norm.init(16)[0])
    padded, moved = apply(norm, params, jnp.asarray(longer), mask)
    alone, state = apply(norm, params, jnp.asarray(x), None)
    np.testing.assert_allclose(padded[:, :4], alone, rtol=2e-6, atol=2e-6)
    assert_trees_close(moved, state, rtol=2e-6, atol=1e-6)


def test_a_mask_of_ones_is_no_mask(norm):
    x = jnp.asarray(sample(SHAPE, mean=3))
    params = with_values(norm.init(16)[0])
    masked = apply(norm, params, x, jnp.ones(MASKS[0], bool))
    assert_trees_close(masked, apply(norm, params, x, None), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", [(4, 16), (4,), (3, 5, 16), (4, 3, 5, 7), (2, 3, 5, 1)], ids=str)
@pytest.mark.parametrize("train", [True, False])
def test_a_mask_that_does_not_fit_is_refused(norm, shape, train):
    with pytest.raises(ShapeError, match="mask of shape"):
        apply(norm, norm.init(16)[0], jnp.ones(SHAPE), jnp.ones(shape, bool), train)
