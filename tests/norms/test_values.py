"""No input does harm: an empty one, NaN, too large a number, a mask of something else.

Every entry of the catalogue is held to the contract in `normlab.core` for these.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab import layer_norm, rms_norm, scale_norm
from normlab.core import pool_states
from normlab.errors import MaskError
from normlab.norms import BatchNorm, MovingAverageBatchNorm, PopulationNorm, SplitBatchNorm

from .conftest import NAMES, make, sample, with_values
from .reference import REFERENCES, element_sets, expected, standardise_gradient

SHAPE = (4, 3, 5, 16)
STATEFUL = [name for name in NAMES if make(name).init(16)[1]]
BY_STEPS = [name for name in STATEFUL if name != "frozen_batch_norm"]
MIXING = {
    "decorrelated_batch_norm": "a group of channels has one matrix",
    "iterative_norm": "a group of channels has one matrix",
    "mode_norm": "the gates of an example see all of its channels",
    "online_norm": "only the example that is not finite is left out",
    "split_batch_norm": "only the domain that has it is left out",
}
"""What does not leave just the channel alone that is not finite, and why."""


def apply(norm, params, state, x, train=True, mask=None):
    return norm.apply(params, state, jnp.asarray(x), train=train, mask=mask)


def moved(norm, x, mask=None):
    """The state after two steps, so that the second begins from one that is not the first."""
    params, state = norm.init(16)
    _, state = apply(norm, params, state, sample(SHAPE, mean=1))
    return state, apply(norm, params, state, x, mask=mask)[1]


def assert_same(found, wanted, channel=slice(None)):
    for name, leaf in wanted.items():
        if leaf.ndim:  # a number alone counts the steps that moved any channel
            np.testing.assert_array_equal(found[name][..., channel], leaf[..., channel], name)


@pytest.mark.parametrize("shape", [(0, 3, 5, 16), (4, 0, 5, 16)], ids=str)
def test_an_empty_batch_comes_out_as_it_is_and_leaves_the_state(norm, shape):
    params, state = norm.init(16)
    params = with_values(params)
    for train in (True, False):
        for mask in (None, jnp.ones((*shape[:-1], 1), bool)):

            def loss(params, x, train=train, mask=mask):
                y, after = apply(norm, params, state, x, train, mask)
                return y.sum(), (y, after)

            x = jnp.zeros(shape)
            grads, (y, after) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
            assert y.shape == grads[1].shape == shape
            assert all(not leaf.any() for leaf in jax.tree.leaves(grads))
            assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after, state))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_batch_of_which_nothing_counts_leaves_the_state(name):
    norm = make(name)
    before, after = moved(norm, sample(SHAPE), jnp.zeros((4, 3, 5, 1), bool))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after, before))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
@pytest.mark.parametrize("name", BY_STEPS)
def test_a_channel_that_is_not_finite_leaves_its_state_alone_and_no_others(name, value):
    norm, x = make(name), sample(SHAPE)
    _, clean = moved(norm, x)
    x[1, 2, 3, 5] = value
    x[1, 2, 3, 6] = -value  # of both signs, for the mean of what is too large is not
    before, after = moved(norm, x)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after))
    if name == "l1_batch_norm" and value == 1e25:  # which takes no squares
        return
    if name not in MIXING:
        assert_same(after, before, slice(5, 7))
        others = np.r_[:4, 8:16]  # those that share no group of two with them
        for name, leaf in clean.items():
            if leaf.ndim:
                found, wanted = after[name][..., others], leaf[..., others]
                np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=name)
    # What is bad for good leaves every leaf alone, whatever is mixed.
    before, after = moved(norm, np.full(SHAPE, value, np.float32) * sample(SHAPE))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after, before))


HOLDS = {"affine", "dynamic_erf", "dynamic_isru", "dynamic_tanh"}
HOLDS |= {"frozen_batch_norm", "identity", "scale_norm"}
"""Those that divide by no sum of what comes in, or take it in units of the largest."""


@pytest.mark.parametrize("name", REFERENCES)
def test_what_is_too_large_is_right_or_not_a_number_and_never_quietly_wrong(name):
    norm, x = make(name), sample(SHAPE)
    params, state = norm.init(16)
    params = with_values(params)
    for exponent in (56, 62, 70, 100):
        big = np.ldexp(x, exponent)
        y = np.asarray(apply(norm, params, state, big)[0], np.float64)
        if name == "decorrelated_batch_norm":  # whose reference iterates, from near to one
            true = expected(name, norm, params, np.ldexp(x, 10).astype(np.float64))
        else:
            true = expected(name, norm, params, big.astype(np.float64))
        known = ~np.isnan(y)
        if name == "online_norm" and not known.all():  # examples before were left out of its state
            continue
        scale = np.abs(true).max()
        np.testing.assert_allclose(y[known] / scale, true[known] / scale, rtol=1e-5, atol=1e-5)
        assert known.all() if exponent == 56 or name in HOLDS else True


@pytest.mark.parametrize("exponent", [-40, 0, 30, 50, 58])
def test_gradients_are_right_as_far_as_outputs_are(exponent):
    """The cube of the root of the variance leaves float32 long before the root does."""
    x, dy = sample((6, 16)), sample((6, 16), seed=2)
    big = np.ldexp(x, exponent)
    true = standardise_gradient(big, dy, element_sets(big, "position"), eps=1e-36)

    def loss(x):
        return (layer_norm(x, eps=1e-36) * dy).sum()

    found = np.asarray(jax.grad(loss)(jnp.asarray(big)), np.float64)
    np.testing.assert_allclose(np.ldexp(found, exponent), np.ldexp(true, exponent), atol=2e-6)


def test_a_gradient_at_zero_is_the_slope_there_however_small_eps_is():
    found = jax.grad(lambda x: rms_norm(x, eps=1e-30)[0, 0])(jnp.zeros((1, 4)))
    np.testing.assert_allclose(found, [[1e15, 0, 0, 0]], rtol=1e-6)


def test_one_bad_element_does_not_pass_for_a_length_of_zero():
    y = scale_norm(jnp.array([[1.0, jnp.nan], [3.0, 4.0]]), 10.0)
    assert jnp.isnan(y[0]).all() and y[1].tolist() == [6.0, 8.0]


def test_a_bad_domain_spoils_no_other():
    norm = SplitBatchNorm(domains=2)
    x, domain = sample((6, 3, 4)), jnp.array([0, 1, 0, 1, 0, 1])
    x[0, 0, 2] = np.nan
    y, state = norm.apply(*norm.init(4), jnp.asarray(x), train=True, domain=domain)
    part = x[1::2].astype(np.float64)
    want = (part - part.mean((0, 1))) / np.sqrt(part.var((0, 1)) + 1e-5)
    np.testing.assert_allclose(y[1::2], want, rtol=1e-5, atol=1e-6)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in state.values())


@pytest.mark.parametrize("norm", [PopulationNorm(), MovingAverageBatchNorm(warm_up=0, memory=2)])
def test_a_channel_begins_with_the_first_batch_that_it_has(norm):
    """A channel left alone at the first step does not carry the zeros and ones of the beginning."""
    params, state = norm.init(2)
    batches = [sample((8, 2), mean=2, seed=seed) for seed in range(3)]
    late = [batches[0].copy(), *batches[1:]]
    late[0][3, 1] = np.nan
    for x in late:
        state = apply(norm, params, state, x)[1]
    _, wanted = norm.init(2)
    for x in batches[1:]:
        wanted = apply(norm, params, wanted, x)[1]
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(state[name][..., 1], leaf[..., 1], name)


def test_a_bad_shard_leaves_the_state_of_all():
    norm, x = BatchNorm(axis_name="shard"), sample((4, 6, 3), mean=2)
    x[2, 1, 1] = np.nan
    params, state = norm.init(3)
    step = jax.vmap(lambda x: apply(norm, params, state, x), axis_name="shard")
    y, after = step(jnp.asarray(x))
    others = np.delete(x.reshape(24, 3).astype(np.float64), 1, axis=1)
    np.testing.assert_array_equal(after["mean"][:, 1], 0)
    np.testing.assert_array_equal(after["variance"][:, 1], 1)
    for shard in range(4):
        np.testing.assert_allclose(after["mean"][shard, ::2], 0.1 * others.mean(0), rtol=1e-5)
    assert jnp.isnan(y[..., 1]).all() and jnp.isfinite(y[..., ::2]).all()


@pytest.mark.parametrize("name", BY_STEPS)
def test_one_bad_microbatch_leaves_a_state_that_is_finite(name):
    norm = make(name)
    good, bad = sample(SHAPE), sample(SHAPE)
    bad[0, 0, 0, 3] = np.nan
    params, state = norm.init(16)
    states = [apply(norm, params, state, x)[1] for x in (good, bad)]
    pooled = pool_states(norm, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in pooled.values())


@pytest.mark.parametrize("train", [True, False])
def test_a_mask_of_floats_is_refused_and_one_of_whole_numbers_is_read_right(norm, train):
    params, state = norm.init(16)
    x, keep = sample(SHAPE), np.arange(5).reshape(1, 1, 5, 1) < 3
    for wrong in (np.where(keep, 0, -np.inf), keep.astype(np.float32), keep * 0.5, keep * 1j):
        with pytest.raises(MaskError, match="booleans"):
            apply(norm, params, state, x, train, jnp.asarray(wrong))
    with pytest.raises(MaskError, match="0 and 1 alone, got"):
        apply(norm, params, state, x, train, jnp.asarray(keep * 2))
    with pytest.raises(MaskError, match=r"outside of jax\.jit"):
        jax.eval_shape(lambda m: apply(norm, params, state, x, train, m), jnp.asarray(keep, int))
    found = apply(norm, params, state, x, train, jnp.asarray(keep, np.uint8))
    wanted = apply(norm, params, state, x, train, jnp.asarray(keep))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, wanted))


def test_the_mask_that_is_added_is_told_how_to_be_one_of_booleans():
    x = jnp.array([[1.0, 2.0, 6.0, 100.0]])
    added = jnp.array([[0.0, 0.0, 0.0, -jnp.inf]])
    with pytest.raises(MaskError, match="mask == 0"):
        layer_norm(x, mask=added)
    y = layer_norm(x, mask=added == 0)
    np.testing.assert_allclose(y, [[-0.926, -0.463, 1.389, 0]], atol=1e-3)
