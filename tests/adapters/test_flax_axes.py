"""Normalisers over any axes, against their equation in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from normlab.adapters.flax_axes import ChannelsAt, OverAxes, features_of, without_axis_name
from normlab.errors import FieldError, ShapeError
from normlab.norms import BatchNorm
from tests.norms.conftest import sample

SHAPES = [(4, 6), (3, 4, 6), (2, 5, 3, 4), (2, 3, 2, 4, 2)]
EPS = 1e-3


def drawn_case(seed):
    """A shape, axes of statistics and of features, and a mask, all at random."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[seed % len(SHAPES)]
    ndim = len(shape)
    over = rng.permutation(ndim)[: rng.integers(1, ndim + 1)]
    features = rng.permutation(ndim)[: rng.integers(1, ndim + 1)]
    signed = [
        tuple(int(axis) - ndim * rng.integers(0, 2) for axis in axes) for axes in (over, features)
    ]
    mask = rng.uniform(size=[size if rng.integers(0, 2) else 1 for size in shape]) < 0.8
    return shape, *signed, mask if seed % 2 else None


def by_the_equation(x, over, features, scale, bias, mask, about_zero):
    over, features = (tuple(axis % x.ndim for axis in axes) for axes in (over, features))
    x = x.astype(np.float64)
    where = np.broadcast_to(True if mask is None else mask, x.shape)
    count = np.maximum(where.sum(over, keepdims=True), 1)
    mean = 0.0 if about_zero else np.where(where, x, 0).sum(over, keepdims=True) / count
    variance = np.where(where, (x - mean) ** 2, 0).sum(over, keepdims=True) / count
    shape = [size if axis in features else 1 for axis, size in enumerate(x.shape)]
    y = (x - mean) / np.sqrt(variance + EPS) * scale.reshape(shape) + bias.reshape(shape)
    return np.where(where, y, 0)


@pytest.mark.parametrize("seed", range(12))
def test_any_axes_any_mask_and_any_dtype(seed):
    shape, over, features, mask = drawn_case(seed)
    about_zero, dtype = bool(seed % 3 == 2), [jnp.float32, jnp.bfloat16][seed % 4 == 3]
    norm = OverAxes(reduction_axes=over, feature_axes=features, about_zero=about_zero, eps=EPS)
    params, _ = norm.init(features_of(norm, shape))
    params = {
        name: jnp.asarray(sample(leaf.shape, 1, 0.3, seed=7)) for name, leaf in params.items()
    }
    x = jnp.asarray(sample(shape, 3, 2, seed=seed)).astype(dtype)
    y = norm.apply(params, {}, x, train=True, mask=mask)[0]
    wanted = by_the_equation(
        np.asarray(x, np.float32),
        over,
        features,
        *map(np.asarray, params.values()),
        mask,
        about_zero,
    )
    close = 1e-2 if dtype == jnp.bfloat16 else 2e-5
    np.testing.assert_allclose(np.asarray(y, np.float32), wanted, rtol=close, atol=close)
    assert y.dtype == dtype


def test_features_are_counted_from_the_front_and_each_once():
    norm = OverAxes(reduction_axes=(1,), feature_axes=(-1, 1, 3))
    assert features_of(norm, (2, 5, 3, 4)) == (5, 4)
    assert {leaf.shape for leaf in norm.init((5, 4))[0].values()} == {(5, 4)}
    assert features_of(BatchNorm(), (2, 5, 3, 4)) == 4


@pytest.mark.parametrize("axes", [(1,), (-3,), (1, 3)])
def test_channels_elsewhere_are_channels_last_moved(axes):
    """Training, evaluation and the running statistics, masked."""
    plain, norm = (
        BatchNorm(momentum=0.6),
        ChannelsAt(feature_axes=axes, normaliser=BatchNorm(momentum=0.6)),
    )
    x, mask = jnp.asarray(sample((3, 5, 2, 4), 2, 3)), sample((3, 5, 2, 1), seed=1) > -0.7
    ends = tuple(range(4 - len(axes), 4))

    def last(values):
        moved = jnp.moveaxis(jnp.broadcast_to(values, x.shape), axes, ends)
        return moved.reshape(*moved.shape[: 4 - len(axes)], -1)

    held = norm.init(features_of(norm, x.shape))
    y, after = norm.apply(*held, x, train=True, mask=mask)
    flat = plain.init(last(x).shape[-1])
    wanted, moved = plain.apply(*flat, last(x), train=True, mask=last(mask))
    np.testing.assert_array_equal(last(y), wanted)
    for name, leaf in after.items():
        assert leaf.shape == held[1][name].shape
        np.testing.assert_array_equal(leaf.ravel(), moved[name])
    evaluated, _ = norm.apply(held[0], after, x, train=False)
    np.testing.assert_array_equal(
        last(evaluated), plain.apply(flat[0], moved, last(x), train=False)[0]
    )
    assert norm.frozen().normaliser == plain.frozen()
    assert norm.facts.uses_batch and not norm.facts.affine_in_evaluation


def test_statistics_over_a_mapped_axis_are_those_of_all_shards():
    norm = OverAxes(reduction_axes=(1,), axis_name="shards")
    x = jnp.asarray(sample((2, 3, 4, 5), 1, 2))  # shards, examples, positions, channels
    params, _ = norm.init(5)
    y = jax.vmap(lambda x: norm.apply(params, {}, x, train=True)[0], axis_name="shards")(x)
    together = x.transpose(1, 0, 2, 3).reshape(3, 8, 5)
    apart = without_axis_name(norm)
    wanted = apart.apply(params, {}, together, train=True)[0].reshape(3, 2, 4, 5)
    np.testing.assert_allclose(y, wanted.transpose(1, 0, 2, 3), rtol=1e-5, atol=1e-6)
    inside = ChannelsAt(feature_axes=(1,), normaliser=BatchNorm(axis_name="shards"))
    assert without_axis_name(inside).normaliser == BatchNorm()


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize(
    "norm",
    [
        OverAxes(reduction_axes=(1, 2), feature_axes=(1,)),
        OverAxes(reduction_axes=(0, 2, 3), groups=2),
        ChannelsAt(feature_axes=(1,), normaliser=BatchNorm()),
    ],
    ids=["features", "groups", "batch"],
)
def test_a_mesh_changes_nothing(norm, kind):
    mesh = jax.make_mesh((4, 2), ("four", "two"), axis_types=(kind,) * 2)
    x = jnp.asarray(sample((4, 8, 3, 4), 1, 2))
    held = norm.init(features_of(norm, x.shape))
    wanted = norm.apply(*held, x, train=True)

    @jax.jit
    def on_the_mesh(held, x):
        return norm.apply(*held, x, train=True)

    with jax.sharding.set_mesh(mesh):
        spread = jax.device_put(x, NamedSharding(mesh, P("four", "two")))
        found = on_the_mesh(jax.device_put(held, NamedSharding(mesh, P())), spread)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)


def test_mistakes_are_told():
    x = jnp.ones((2, 3, 4))
    for norm, wrong, says in (
        (OverAxes(reduction_axes=(3,)), ShapeError, "3 axes does not have all of the axes"),
        (OverAxes(feature_axes=(-4,)), ShapeError, "does not have"),
        (OverAxes(feature_axes=(0, 1)), ShapeError, "name the first axis"),
        (OverAxes(reduction_axes=(0, 1), groups=2), ShapeError, "must name the last axis"),
    ):
        with pytest.raises(wrong, match=says):
            norm.apply({}, {}, x, train=True)
    with pytest.raises(FieldError, match="groups=3 does not divide the 4"):
        OverAxes(reduction_axes=(0, 1, 2), groups=3).init(4)
    with pytest.raises(FieldError, match="group_size=3 does not divide the 4"):
        OverAxes(group_size=3).init(4)
    with pytest.raises(FieldError, match="a positive number"):
        OverAxes(group_size=0).init(4)


def test_statistics_of_one_value_give_the_bias_and_a_warning():
    norm = OverAxes(feature_axes=(1, 2))
    x, params = jnp.asarray(sample((2, 3, 4))), {"bias": jnp.full((3, 4), 2.0)}
    with pytest.warns(UserWarning, match="each value has a mean of its own"):
        y = norm.apply(params, {}, x, train=True)[0]
    np.testing.assert_array_equal(y, jnp.full(x.shape, 2.0))
