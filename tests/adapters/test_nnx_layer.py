"""Every normaliser as an NNX layer: its numbers are the normaliser's own, in any surroundings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from normlab.adapters.nnx import Norm, OverwriteWithGradient
from normlab.errors import MaskError, UserError
from normlab.norms import BatchNorm, GroupNorm, LayerNorm, OnlineNorm, PowerNorm
from tests.adapters.shared import SHAPE, SUBJECTS, by_the_normaliser, images, renamed
from tests.norms.conftest import NAMES, assert_trees_close, make, sample


def held(layer, kind):
    return nnx.to_pure_dict(nnx.state(layer, kind))


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_gives_what_the_normaliser_gives_and_its_next_state(name):
    norm, x = make(name), images()
    backward = norm.facts.backward_state
    layer = Norm(norm, 8)
    params, state = norm.init(8)
    assert_trees_close(held(layer, nnx.Param), params, rtol=0)
    stats = {k: v for k, v in state.items() if k not in backward}
    assert_trees_close(held(layer, nnx.BatchStat), renamed(stats), rtol=0)
    assert set(held(layer, OverwriteWithGradient)) == backward

    @nnx.jit
    def ours(layer, x):
        return layer(x), layer(x, use_running_average=True)

    found, (y, after, evaluated) = ours(layer, x), by_the_normaliser(norm, params, state, x)
    assert_trees_close(found, (y, evaluated), 1e-6, 1e-6)
    stats = {k: v for k, v in after.items() if k not in backward}
    assert_trees_close(held(layer, nnx.BatchStat), renamed(stats), 1e-6, 1e-6)


@pytest.mark.parametrize("name", SUBJECTS)
def test_training_moves_params_and_every_kind_of_state(name):
    """Training with masks by Flax's optimiser is compared with the same by hand."""
    norm, x, target = make(name), images(), images(5)
    mask = jnp.asarray(sample((4, 3, 2, 1), seed=3) > -0.5)
    layer = Norm(norm, 8)
    optimizer = nnx.Optimizer(layer, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(layer, optimizer):
        def loss(layer):
            return ((layer(x, mask=mask) - target) ** 2).mean()

        wrt = nnx.DiffState(0, (nnx.Param, OverwriteWithGradient))
        grads = nnx.grad(loss, argnums=wrt)(layer)
        of_params, left = nnx.split_state(grads, nnx.Param, OverwriteWithGradient)
        optimizer.update(layer, of_params)
        nnx.update(layer, left)

    @jax.jit
    def by_hand(params, state):
        def loss(params, state):
            y, moved = norm.apply(params, state, x, train=True, mask=mask)
            return ((y - target) ** 2).mean(), moved

        (grads, left), moved = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, state)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return params, {k: left[k] if k in norm.facts.backward_state else moved[k] for k in moved}

    params, state = norm.init(8)
    for _ in range(3):
        step(layer, optimizer)
        params, state = by_hand(params, state)
    assert_trees_close(held(layer, nnx.Param), params, 1e-4, 1e-5)
    found = held(layer, nnx.BatchStat) | held(layer, OverwriteWithGradient)
    assert_trees_close(found, renamed(state), 1e-4, 1e-5)


@pytest.mark.parametrize("norm", [PowerNorm(), OnlineNorm()])
def test_a_backward_state_cannot_be_forgotten(norm):
    layer = Norm(norm, 8)
    with pytest.raises(UserError, match=r"left out of the differentiation. .*DiffState"):
        nnx.jit(nnx.grad(lambda layer: (layer(images()) ** 2).sum()))(layer)
    layer.eval()
    nnx.grad(lambda layer: (layer(images()) ** 2).sum())(layer)


def test_checkpoints_of_flaxs_batch_norm_go_both_ways():
    theirs = nnx.BatchNorm(8, momentum=0.5, rngs=nnx.Rngs(0))
    ours = Norm(BatchNorm(momentum=0.5), 8)
    for first, second in ((theirs, ours), (ours, theirs)):
        first.train()
        first(images())
        nnx.update(second, nnx.to_pure_dict(nnx.state(first)))
        first.eval()
        second.eval()
        np.testing.assert_allclose(first(images(1)), second(images(1)), rtol=1e-5, atol=1e-5)


def test_train_eval_and_view_reach_the_layer():
    model = nnx.Sequential(Norm(BatchNorm(), 8))
    layer = model.layers[0]
    model.eval()
    assert layer.use_running_average is True
    viewed = nnx.view(model, use_running_average=False)
    assert viewed.layers[0].use_running_average is False and layer.use_running_average is True
    before = held(layer, nnx.BatchStat)
    model(images())
    assert_trees_close(held(layer, nnx.BatchStat), before, rtol=0)
    model.train()
    model(images())
    assert float(abs(layer.mean[...]).max()) > 0
    undecided = Norm(BatchNorm(), 8, use_running_average=None)
    with pytest.raises(UserError, match=r"call model.train\(\)"):
        undecided(images())
    undecided(images(), use_running_average=True)


def test_split_merge_clone_and_abstract_layers_hold_the_same():
    layer = Norm(BatchNorm(), 8)
    copy = nnx.clone(layer)
    merged = nnx.merge(*nnx.split(nnx.clone(layer), nnx.Param, nnx.BatchStat, ...))
    y = layer(images())
    for other in (merged, copy):
        np.testing.assert_array_equal(other(images()), y)
        assert_trees_close(held(other, nnx.BatchStat), held(layer, nnx.BatchStat), rtol=0)
    abstract = nnx.eval_shape(lambda: Norm(BatchNorm(), 8))
    assert isinstance(abstract.mean.get_value(), jax.ShapeDtypeStruct)
    nnx.update(abstract, nnx.state(layer))
    np.testing.assert_array_equal(abstract(images()), layer(images()))


class Block(nnx.Module):
    """A residual block around a normaliser."""

    def __init__(self, rngs):
        self.norm = Norm(BatchNorm(), 8, rngs=rngs)
        self.linear = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x):
        return x + 0.1 * self.linear(self.norm(x))


@nnx.vmap(in_axes=0)
def stacked(rngs):
    return Block(rngs)


def test_layers_stacked_by_scan_and_remat_are_the_loop_over_them():
    layers, x = stacked(nnx.Rngs(0).split(3)), images()
    graph, state = nnx.split(layers)
    singles = [nnx.merge(graph, jax.tree.map(lambda leaf: leaf[i], state)) for i in range(3)]  # noqa: B023

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    @nnx.remat
    def forward(x, layer):
        return layer(x)

    y = nnx.jit(forward)(x, layers)
    for layer in singles:
        x = layer(x)
    np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5)
    means = jnp.stack([layer.norm.mean[...] for layer in singles])
    np.testing.assert_allclose(layers.norm.mean[...], means, rtol=1e-4, atol=1e-5)


def test_members_of_an_ensemble_have_statistics_of_their_own():
    members, x = stacked(nnx.Rngs(0).split(2)), jnp.stack([images(0), images(1)])
    nnx.vmap(lambda member, x: member(x), in_axes=0)(members, x)
    np.testing.assert_allclose(members.norm.mean[...], 0.1 * x.mean(axis=(1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("mapped", ["vmap", "shard_map"])
def test_statistics_are_shared_along_axis_name(mapped):
    x, whole = images(), Norm(BatchNorm(), 8)
    shard = Norm(BatchNorm(axis_name="devices"), 8)
    wanted = whole(x)

    def apply(layer, x):
        return layer(x)

    if mapped == "vmap":
        axes = nnx.StateAxes({...: None})
        mapped_apply = nnx.vmap(apply, in_axes=(axes, 0), axis_name="devices")
        y = mapped_apply(shard, x.reshape(2, 2, *SHAPE[1:]))
    else:
        mesh, spec = Mesh(np.array(jax.devices()[:2]), ("devices",)), P("devices")
        y = nnx.shard_map(apply, mesh=mesh, in_specs=(P(), spec), out_specs=spec)(shard, x)
    np.testing.assert_allclose(y.reshape(SHAPE), wanted, rtol=1e-5, atol=1e-5)
    assert_trees_close(held(shard, nnx.BatchStat), held(whole, nnx.BatchStat), 1e-5, 1e-6)


def test_dtype_and_initialisers_are_flaxs():
    x = images().astype(jnp.bfloat16)
    wide = Norm(LayerNorm(), 8, dtype=jnp.float32)(x)
    np.testing.assert_array_equal(wide, Norm(LayerNorm(), 8)(x.astype(jnp.float32)))
    assert Norm(LayerNorm(), 8, dtype=jnp.bfloat16)(images()).dtype == jnp.bfloat16
    layer = Norm(
        LayerNorm(),
        8,
        param_dtype=jnp.bfloat16,
        scale_init=nnx.initializers.zeros,
        bias_init=nnx.initializers.constant(0.5),
        rngs=nnx.Rngs(0),
    )
    assert layer.scale.dtype == layer.bias.dtype == jnp.bfloat16
    np.testing.assert_array_equal(layer(images()), jnp.full(SHAPE, 0.5))


def test_the_layers_after_it_start_as_after_flaxs():
    kernels = []
    for make_norm in (
        lambda rngs: Norm(BatchNorm(), 8, rngs=rngs),
        lambda rngs: nnx.BatchNorm(8, rngs=rngs),
    ):
        rngs = nnx.Rngs(0)
        make_norm(rngs)
        kernels.append(nnx.Linear(2, 2, rngs=rngs).kernel[...])
    np.testing.assert_array_equal(*kernels)


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"has 8 channels \(last axis\), and this layer num_f"):
        Norm(LayerNorm(), 4)(images())
    with pytest.raises(UserError, match="does not divide"):
        Norm(GroupNorm(groups=3), 8)


def test_a_mask_of_floats_and_an_empty_batch():
    layer, x = Norm(BatchNorm(), 3), jnp.ones((4, 3))
    with pytest.raises(MaskError, match="booleans"):
        layer(x, mask=jnp.zeros((4, 1)))
    assert layer(x[:0]).shape == (0, 3)
    np.testing.assert_array_equal(layer.mean[...], 0)
    np.testing.assert_array_equal(layer.var[...], 1)
