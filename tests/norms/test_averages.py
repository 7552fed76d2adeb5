"""The running averages of `debiased_batch_norm` and `averaged_batch_norm` against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.norms import AveragedBatchNorm, BatchNorm, DebiasedBatchNorm

from .conftest import sample

pytestmark = pytest.mark.usefixtures("as_users_compile")

BATCHES = np.stack([sample((16, 2), mean=step, std=1 + step, seed=step) for step in range(6)])


def after(norm, batches, masks=None):
    """The state after these batches."""
    state = norm.init(2)[1]
    step = jax.jit(lambda s, x, m: norm.apply(norm.init(2)[0], s, x, train=True, mask=m)[1])
    for index, x in enumerate(batches):
        state = step(state, jnp.asarray(x), None if masks is None else jnp.asarray(masks[index]))
    return state


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_a_debiased_average_weighs_batches_geometrically_and_sums_to_one(momentum):
    state = after(DebiasedBatchNorm(momentum=momentum), BATCHES)
    weights = momentum ** np.arange(len(BATCHES))[::-1].astype(float)
    weights /= weights.sum()
    np.testing.assert_allclose(state["mean"], weights @ BATCHES.mean(1), rtol=2e-5)
    np.testing.assert_allclose(state["variance"], weights @ BATCHES.var(1), rtol=2e-5)


def test_a_debiased_average_of_one_batch_repeated_is_that_batch_s_at_any_step():
    norm, x = DebiasedBatchNorm(momentum=0.99), jnp.asarray(BATCHES[0])
    params, state = norm.init(2)

    def step(state, _):
        state = norm.apply(params, state, x, train=True)[1]
        return state, state["variance"]

    _, variances = jax.lax.scan(step, state, length=1000)
    for t in (1, 2, 10, 1000):
        np.testing.assert_allclose(variances[t - 1], np.var(x, 0), rtol=2e-5)


@pytest.mark.parametrize("cls", [DebiasedBatchNorm, AveragedBatchNorm])
def test_a_channel_that_a_mask_left_out_begins_with_its_own_first_batch(cls):
    masks = np.ones((2, 16, 2), bool)
    masks[0, :, 1] = False
    state = after(cls(momentum=0.9), BATCHES[:2], masks)
    np.testing.assert_array_equal(state["steps"], [2, 1])
    np.testing.assert_allclose(state["mean"][1], BATCHES[1, :, 1].mean(), rtol=1e-5)
    np.testing.assert_allclose(state["variance"][1], BATCHES[1, :, 1].var(), rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("norm", [DebiasedBatchNorm(), DebiasedBatchNorm(momentum=1.0),
                                  AveragedBatchNorm(), BatchNorm()], ids=repr)  # fmt: skip
def test_pooled_microbatches_end_in_the_state_of_the_whole_batch(norm, steps):
    before = after(norm, BATCHES[: steps - 1])
    whole = after(norm, BATCHES[:steps])
    halves = BATCHES[steps - 1].reshape(2, 8, 2)
    params = norm.init(2)[0]
    ended = jax.vmap(lambda x: norm.apply(params, before, x, train=True)[1])(jnp.asarray(halves))
    pooled = norm.pool(ended)
    assert pooled.keys() == whole.keys()
    for name, leaf in whole.items():
        np.testing.assert_allclose(pooled[name], leaf, rtol=2e-5, err_msg=name)


def test_the_gradient_of_an_average_is_the_newest_batch_s_share():
    """`y = (x - m) / s` with m, s moved by a share of 1 - momentum: by finite differences."""
    norm = AveragedBatchNorm(momentum=0.75)
    params, _ = norm.init(2)
    state, dy = after(norm, BATCHES[:2]), sample((16, 2), seed=9)

    def loss(x):
        x = np.asarray(x, np.float64)
        m = 0.75 * np.asarray(state["mean"], np.float64) + 0.25 * x.mean(0)
        v = 0.75 * np.asarray(state["variance"], np.float64) + 0.25 * x.var(0)
        return (dy * (x - m) / np.sqrt(v + norm.eps)).sum()

    x = BATCHES[2].astype(np.float64)
    numeric = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        h = np.zeros_like(x)
        h[index] = 1e-5
        numeric[index] = (loss(x + h) - loss(x - h)) / 2e-5
    ours = jax.grad(lambda x: (norm.apply(params, state, x, train=True)[0] * dy).sum())
    np.testing.assert_allclose(ours(jnp.asarray(BATCHES[2])), numeric, rtol=1e-4, atol=1e-5)
