"""Running statistics, ghost batches, synchronisation, and the edges of a batch."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from normlab.core import pool_states
from normlab.errors import FieldError
from normlab.norms import BatchNorm
from normlab.norms.batch import batch_norm
from normlab.ops.moments import ShapeError

from .conftest import assert_trees_close, sample

pytestmark = pytest.mark.usefixtures("as_users_compile")

DEVICES = jax.devices()
MESH = Mesh(np.array(DEVICES), ("shard",))


@partial(jax.jit, static_argnums=0)
def train(norm, x, mask=None, state=None):
    params, fresh = norm.init(x.shape[-1])
    return norm.apply(params, fresh if state is None else state, x, train=True, mask=mask)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_running_statistics_follow_their_closed_form(momentum, unbiased, steps):
    """After t equal batches: m^t * (0, 1) + (1 - m^t) * (mean, variance)."""
    norm = BatchNorm(momentum=momentum, unbiased_running_variance=unbiased)
    x = jnp.asarray(sample((8, 3), mean=5, std=2))
    state = norm.init(3)[1]

    state, _ = jax.lax.scan(lambda s, _: (train(norm, x, state=s)[1], 0), state, length=steps)
    old = momentum**steps
    mean, variance = np.mean(x, 0), np.var(x, 0, ddof=int(unbiased))
    np.testing.assert_allclose(state["mean"], (1 - old) * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state["variance"], old + (1 - old) * variance, rtol=1e-4)


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    norm = BatchNorm()
    params, _ = norm.init(2)
    state = {"mean": jnp.array([1.0, 2.0]), "variance": jnp.array([4.0, 9.0])}
    x = jnp.array([[3.0, 5.0]])
    y, after = norm.apply(params, state, x, train=False)
    np.testing.assert_allclose(y, [[1.0, 1.0]], rtol=1e-5)
    assert after is state
    direct = batch_norm(x, mean=state["mean"], variance=state["variance"])
    np.testing.assert_array_equal(direct, y)


def test_running_statistics_carry_no_gradient():
    def loss(x):
        _, state = train(BatchNorm(momentum=0.0), x)
        return (state["mean"] + state["variance"]).sum()

    assert not jax.grad(loss)(jnp.asarray(sample((8, 3)))).any()


def test_a_frozen_scale_is_one_and_has_no_parameter():
    norm = BatchNorm(use_scale=False)
    assert set(norm.init(4)[0]) == {"bias"}
    y, _ = train(norm, jnp.asarray(sample((64, 4), std=7)))
    np.testing.assert_allclose(jnp.std(y, axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_small_last_batches_of_images_are_normalised(size):
    x = jnp.asarray(sample((size, 5, 5, 3), mean=4, std=2))
    y, _ = train(BatchNorm(), x)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 4), (1, 1, 1, 4)])
def test_one_value_a_channel_raises_in_training_and_not_in_evaluation(shape):
    norm = BatchNorm()
    with pytest.raises(ShapeError, match="one value"):
        train(norm, jnp.ones(shape))
    params, state = norm.init(4)
    assert norm.apply(params, state, jnp.ones(shape), train=False)[0].shape == shape


def test_an_unbatched_example_is_refused():
    with pytest.raises(ShapeError, match="batch axis"):
        jax.vmap(partial(train, BatchNorm()))(jnp.ones((8, 3)))


@pytest.mark.parametrize("norm_batch", [None, 2, 4])
def test_an_all_masked_batch_leaves_the_state(norm_batch):
    norm = BatchNorm(norm_batch=norm_batch)
    x = jnp.full((4, 3, 3, 2), jnp.nan)
    y, state = train(norm, x, mask=jnp.zeros((4, 1, 1, 1), bool))
    fresh = norm.init(2)[1]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, fresh))
    assert not y.any()


def test_only_the_channels_that_are_masked_keep_their_statistics():
    x = jnp.asarray(sample((8, 2), mean=3))
    mask = jnp.array([True, False]).reshape(1, 2)
    _, state = train(BatchNorm(momentum=0.0), x, mask=mask)
    np.testing.assert_allclose(state["mean"], [float(x[:, 0].mean()), 0.0], rtol=1e-6)
    np.testing.assert_allclose(state["variance"], [float(x[:, 0].var()), 1.0], rtol=1e-5)


def test_a_masked_ghost_group_leaves_the_others_alone():
    x = jnp.asarray(sample((8, 2), mean=3))
    mask = jnp.arange(8).reshape(8, 1) < 4
    y, state = train(BatchNorm(norm_batch=4, momentum=0.0), x, mask=mask)
    alone, own = train(BatchNorm(momentum=0.0), x[:4])
    np.testing.assert_allclose(y[:4], alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state["variance"], own["variance"], rtol=1e-5)


@pytest.mark.parametrize("axes", [(0,), (0, 1), (0, 1, 2, 3)], ids=str)
def test_masked_ghost_groups_are_separate_masked_batches(axes):
    shape = (6, 3, 2, 4)
    x = jnp.asarray(sample(shape, mean=3))
    mask_shape = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    mask = jnp.asarray(np.random.default_rng(4).random(mask_shape) < 0.6)
    y, state = train(BatchNorm(norm_batch=2, momentum=0.0), x, mask)
    parts = [train(BatchNorm(), x[i : i + 2], mask[i : i + 2])[0] for i in (0, 2, 4)]
    np.testing.assert_allclose(y, jnp.concatenate(parts), rtol=1e-5, atol=2e-6)
    whole = train(BatchNorm(momentum=0.0), x, mask)[1]
    np.testing.assert_allclose(state["mean"], whole["mean"], rtol=1e-6)
    np.testing.assert_allclose(state["variance"], whole["variance"], rtol=1e-5)


def test_one_ghost_group_of_all_is_the_plain_batch():
    x = jnp.asarray(sample((6, 3, 2, 4), mean=3))
    ghost, plain = train(BatchNorm(norm_batch=6), x), train(BatchNorm(), x)
    assert_trees_close(ghost, plain, rtol=1e-6, atol=1e-6)


def test_ghost_groups_are_separate_batches_and_the_state_is_that_of_all():
    x = jnp.asarray(sample((12, 3, 3, 4), mean=2) * np.arange(1, 13).reshape(12, 1, 1, 1))
    x = x.astype(jnp.float32)
    y, state = train(BatchNorm(norm_batch=4, momentum=0.0), x)
    parts = [train(BatchNorm(), x[i : i + 4])[0] for i in (0, 4, 8)]
    np.testing.assert_allclose(y, jnp.concatenate(parts), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state["variance"], np.var(x, (0, 1, 2)), rtol=1e-5)


def test_a_ghost_group_that_does_not_divide_is_refused():
    with pytest.raises(ShapeError, match="norm_batch=5 does not divide the 12"):
        train(BatchNorm(norm_batch=5), jnp.ones((12, 3)))


@pytest.mark.parametrize("norm_batch", [None, 4])
def test_every_way_to_run_in_parallel_gives_the_numbers_of_one_device(norm_batch):
    x = jnp.asarray(sample((32, 2, 2, 3), mean=10) * np.linspace(1, 9, 32).reshape(32, 1, 1, 1))
    x = x.astype(jnp.float32)
    plain = BatchNorm(norm_batch=norm_batch, momentum=0.0)
    named = BatchNorm(norm_batch=norm_batch, momentum=0.0, axis_name="shard")
    y, state = train(plain, x)
    spec = PartitionSpec("shard")
    sharded = jax.device_put(x, NamedSharding(MESH, spec))
    split = x.reshape(8, 4, 2, 2, 3)
    by_shard_map = jax.shard_map(
        partial(train, named), mesh=MESH, in_specs=spec, out_specs=(spec, PartitionSpec())
    )
    by_vmap = jax.vmap(partial(train, named), axis_name="shard")(split)
    results = {
        "jit": jax.jit(partial(train, plain))(x),
        "jit, sharded": jax.jit(partial(train, plain))(sharded),
        "shard_map": jax.jit(by_shard_map)(sharded),
        "vmap": (by_vmap[0].reshape(x.shape), jax.tree.map(lambda leaf: leaf[5], by_vmap[1])),
    }
    for how, (found, moved) in results.items():
        np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-5, err_msg=how)
        for key in state:
            np.testing.assert_allclose(moved[key], state[key], rtol=1e-5, err_msg=how)


@pytest.mark.parametrize("counts", [(7, 1, 8, 3, 8, 8, 2, 5), (8, 0, 3, 0, 0, 1, 0, 0)], ids=str)
@pytest.mark.parametrize("norm_batch", [None, 4])
def test_shards_count_by_their_valid_elements(norm_batch, counts):
    """One shard with a single valid example, or with none, in every way to run in parallel."""
    x = jnp.asarray(sample((8, 8, 3)) + np.arange(8, dtype=np.float32).reshape(8, 1, 1) ** 2)
    mask = jnp.arange(8).reshape(1, 8, 1) < jnp.array(counts).reshape(8, 1, 1)
    values = np.asarray(x, np.float64)[np.asarray(mask)[..., 0]]
    mean, variance = values.mean(0), values.var(0)
    want = np.where(mask, (np.asarray(x) - mean) / np.sqrt(variance + 1e-5), 0)

    plain = BatchNorm(momentum=0.0, norm_batch=norm_batch)
    named = dataclasses.replace(plain, axis_name="shard")
    spec, flat = PartitionSpec("shard"), (x.reshape(64, 3), mask.reshape(64, 1))
    sharded = jax.device_put(flat, NamedSharding(MESH, spec))
    by_shard_map = jax.shard_map(
        partial(train, named), mesh=MESH, in_specs=spec, out_specs=(spec, PartitionSpec())
    )
    y, moved = jax.vmap(partial(train, named), axis_name="shard")(x, mask)
    results = {
        "shard_map": by_shard_map(*sharded),
        "jit, sharded": train(plain, *sharded),
        "vmap": (y, jax.tree.map(lambda leaf: leaf[1], moved)),
    }
    for how, (found, moved) in results.items():
        if norm_batch is None:  # else the groups of a shard have statistics of their own
            found = np.asarray(found).reshape(want.shape)
            np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5, err_msg=how)
        np.testing.assert_allclose(moved["mean"], mean, rtol=1e-5, err_msg=how)
        np.testing.assert_allclose(moved["variance"], variance, rtol=1e-5, err_msg=how)


def test_synchronised_gradients_are_those_of_one_device():
    x, dy = jnp.asarray(sample((32, 3), mean=5)), jnp.asarray(sample((32, 3), seed=2))

    def loss(norm, x, dy):
        return (train(norm, x)[0] * dy).sum()

    want = jax.grad(partial(loss, BatchNorm()))(x, dy)

    def shares(x):
        split = jax.vmap(partial(loss, BatchNorm(axis_name="shard")), axis_name="shard")
        return split(x.reshape(8, 4, 3), dy.reshape(8, 4, 3)).sum()

    np.testing.assert_allclose(jax.grad(shares)(x), want, rtol=1e-4, atol=1e-6)


def test_one_example_a_shard_is_enough_when_synchronised():
    x = jnp.asarray(sample((8, 1, 3)))
    y, _ = jax.vmap(partial(train, BatchNorm(axis_name="shard")), axis_name="shard")(x)
    np.testing.assert_allclose(y[:, 0], train(BatchNorm(), x[:, 0])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_microbatches_pool_to_the_state_of_the_whole_batch(parts, momentum):
    norm = BatchNorm(norm_batch=4, momentum=momentum)
    x = jnp.asarray(sample((16, 3), mean=2) * np.linspace(1, 4, 16).reshape(16, 1))
    x = x.astype(jnp.float32)
    _, whole = train(norm, x)
    states = [train(norm, part)[1] for part in jnp.split(x, parts)]
    pooled = pool_states(norm, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
    for key in whole:
        np.testing.assert_allclose(pooled[key], whole[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("momentum", 1.5),
        ("momentum", -0.1),
        ("momentum", np.nan),
        ("eps", 0.0),
        ("eps", -1e-5),
        ("eps", float("inf")),
        ("eps", float("nan")),
        ("eps", 1e-39),
        ("eps", np.nan),
        ("norm_batch", 0),
        ("norm_batch", -4),
    ],
)
def test_a_field_that_cannot_work_is_named(field, value):
    with pytest.raises(FieldError, match=field) as error:
        BatchNorm(**{field: value})
    assert error.value.field == field


def test_half_a_pair_of_statistics_is_refused():
    with pytest.raises(ShapeError, match="both mean and variance"):
        batch_norm(jnp.ones((2, 3)), mean=jnp.zeros(3))
