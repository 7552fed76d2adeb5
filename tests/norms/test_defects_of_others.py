"""Eleven defects and traps found in other libraries in 2026; none of them is here.

No test rests on another library being wrong. Where flax shows its number cheaply, it is recorded
as a property of the test (`pytest --junitxml=FILE`).
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.norms import BatchNorm, GroupNorm, LayerNorm
from normlab.training.optimizer import clipped

from .conftest import sample


@partial(jax.jit, static_argnums=0)
def train(norm, x, state=None, mask=None):
    params, fresh = norm.init(x.shape[-1])
    return norm.apply(params, fresh if state is None else state, x, train=True, mask=mask)


def flax_train(x, mask=None, axis_name=None):
    """flax's output, and its running statistics after a step that forgets the old ones."""
    layer = nn.BatchNorm(use_running_average=False, momentum=0.0, axis_name=axis_name)
    start = {"mean": jnp.zeros(x.shape[-1:]), "var": jnp.ones(x.shape[-1:])}
    scale = {"scale": jnp.ones(x.shape[-1:]), "bias": jnp.zeros(x.shape[-1:])}
    variables = {"params": scale, "batch_stats": start}
    y, moved = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
    return y, moved["batch_stats"]


def evaluate(norm, x, state):
    return norm.apply(norm.init(x.shape[-1])[0], state, x, train=False)[0]


@pytest.mark.parametrize("steps", [1, 10, 100, 500])
def test_01_early_evaluations_follow_the_stated_average(steps):
    """equinox's "batch" mode debiases an average that starts at one as if it started at zero, so
    its variance is inflated by 99 after one step and by 0.58 after a hundred."""
    x = jnp.asarray(sample((128, 3)))
    norm = BatchNorm(momentum=0.99)
    state = norm.init(3)[1]
    state, _ = jax.lax.scan(lambda s, _: (train(norm, x, s)[1], 0), state, length=steps)
    old = 0.99**steps
    np.testing.assert_allclose(state["variance"], old + (1 - old) * np.var(x, 0), rtol=1e-4)


def test_02_masked_statistics_over_shards_are_weighted_by_what_counts(record_property):
    """flax averages the masked means of the shards as if all had the same number of values."""
    x = jnp.asarray(sample((2, 8, 1), mean=1, std=3))
    mask = jnp.stack([jnp.arange(8) < 7, jnp.arange(8) < 1]).reshape(2, 8, 1)
    norm = BatchNorm(momentum=0.0, axis_name="shard")
    _, state = jax.vmap(lambda x, m: train(norm, x, mask=m), axis_name="shard")(x, mask)
    values = np.asarray(x)[np.asarray(mask)]
    theirs = jax.vmap(partial(flax_train, axis_name="shard"), axis_name="shard")(x, mask)[1]
    record_property("true mean, flax's", (float(values.mean()), theirs["mean"].ravel().tolist()))
    np.testing.assert_allclose(state["mean"], np.full((2, 1), values.mean()), rtol=1e-5)
    np.testing.assert_allclose(state["variance"], np.full((2, 1), values.var()), rtol=1e-5)


def test_03_an_all_masked_batch_does_not_poison_the_running_statistics(record_property):
    """One such batch makes flax's running statistics NaN for ever."""
    x, mask = jnp.ones((4, 3)), jnp.zeros((4, 1), bool)
    record_property("flax's mean", flax_train(x, mask)[1]["mean"].tolist())
    _, state = train(BatchNorm(), x, mask=mask)
    np.testing.assert_array_equal(state["mean"], jnp.zeros(3))
    np.testing.assert_array_equal(state["variance"], jnp.ones(3))


def test_04_group_norm_takes_a_mask_that_broadcasts_over_channels():
    """flax's GroupNorm reshapes the mask to groups of channels, which fails for (N, T, 1)."""
    x = jnp.asarray(sample((2, 5, 8)))
    mask = jnp.arange(5).reshape(1, 5, 1) < 3
    y, _ = train(GroupNorm(groups=2), x, mask=jnp.broadcast_to(mask, (2, 5, 1)))
    alone, _ = train(GroupNorm(groups=2), x[:, :3])
    np.testing.assert_allclose(y[:, :3], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mean", [1e2, 1e3, 1e4])
def test_05_a_mean_far_above_the_deviation_does_not_spoil_the_variance(mean, record_property):
    """flax's default gives a deviation of 157 instead of 1 at a mean of 1e4; haiku gives NaN."""
    x = jnp.asarray(sample((4096, 1), mean=mean))
    record_property("flax's deviation", float(flax_train(x)[0].std()))
    y, _ = train(BatchNorm(), x)
    assert float(y.std()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("mean", [10, 30, 100])
def test_06_narrow_input_has_float32_statistics_and_state(mean):
    """haiku squares and averages in bfloat16: at mean/deviation 30 its output deviates by 273."""
    x = jnp.asarray(sample((4096, 2), mean=mean)).astype(jnp.bfloat16)
    y, state = train(BatchNorm(), x)
    spread = np.asarray(x, np.float64).std(0)
    assert {leaf.dtype for leaf in state.values()} == {jnp.dtype("float32")}
    true = (np.asarray(x, np.float64) - np.asarray(x, np.float64).mean(0)) / spread
    np.testing.assert_allclose(np.asarray(y, np.float64), true, rtol=8e-3, atol=8e-3)


def test_07_training_and_evaluation_agree_on_the_same_statistics_in_bfloat16():
    """flax's nnx.BatchNorm rounds the running statistics to bfloat16 in evaluation alone."""
    x = jnp.asarray(sample((512, 4), mean=30)).astype(jnp.bfloat16)
    norm = BatchNorm(momentum=0.0)
    y, state = train(norm, x)
    np.testing.assert_allclose(
        np.asarray(evaluate(norm, x, state), np.float32), np.asarray(y, np.float32), atol=0.016
    )


def test_08_ghost_groups_mean_the_same_in_every_way_to_run():
    """In flax the same layer is synchronised under jit and per shard under vmap, and groups of
    devices exist under pmap alone. Here `norm_batch` says it, and mapping examples away is refused.
    (Sharded jit, shard_map and vmap: test_batch_norm.py.)"""
    x = jnp.asarray(sample((8, 4), std=2) * np.arange(1, 9).reshape(8, 1)).astype(jnp.float32)
    norm = BatchNorm(norm_batch=4)
    whole, _ = jax.jit(lambda x: train(norm, x))(x)
    halves = jax.vmap(lambda x: train(norm, x)[0])(x.reshape(2, 4, 4))
    np.testing.assert_allclose(halves.reshape(8, 4), whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="vmap"):
        jax.vmap(lambda x: train(BatchNorm(), x)[0])(x)


def test_09_the_batch_that_a_model_is_initialised_with_leaves_no_trace():
    """haiku's running statistics are those of the batch that `init` saw: on zeros, the evaluation
    after it has a deviation of 326. Here `init` is given a number of channels and nothing else."""
    norm = BatchNorm()
    x = jnp.asarray(sample((64, 2)))
    np.testing.assert_allclose(evaluate(norm, x, norm.init(2)[1]), x, rtol=1e-4)


def test_10_one_channel_with_a_mask_works_and_divides_by_the_count():
    """keras squeezes the only channel away and fails; it divides by count + 1e-7; and it takes a
    mask of shape (N, C) for one over positions."""
    x = jnp.asarray(sample((5, 3, 1)))
    mask = jnp.arange(3).reshape(1, 3, 1) < 2
    _, state = train(BatchNorm(momentum=0.0), x, mask=jnp.broadcast_to(mask, (5, 3, 1)))
    np.testing.assert_allclose(state["mean"], [np.mean(x[:, :2])], rtol=1e-6)
    with pytest.raises(ValueError, match="mask of shape"):
        train(LayerNorm(), jnp.ones((5, 3, 4)), mask=jnp.ones((5, 4), bool))


def test_11_recomputation_moves_the_running_statistics_once():
    """torch.utils.checkpoint runs the forward pass twice and moves them twice. (The other half of
    this entry, adaptive gradient clipping by the wrong unit in optax, has no counterpart: normlab
    clips by the global norm.)"""
    norm = BatchNorm(momentum=0.5)
    x = jnp.asarray(sample((16, 2), mean=4))

    def loss(x):
        y, state = jax.checkpoint(lambda x: train(norm, x))(x)
        return (y**3).sum(), state

    _, state = jax.grad(loss, has_aux=True)(x)
    np.testing.assert_allclose(state["mean"], 0.5 * np.mean(x, 0), rtol=1e-5)

    gradient = {"conv1d": jnp.array([[[3.0]], [[4.0]]]), "bias": jnp.array([12.0])}
    optimizer = clipped(optax.sgd(1.0), 1.3)
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(updates["bias"], [-1.2], rtol=1e-6)
