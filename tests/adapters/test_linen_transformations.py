"""Linen layers under the lifted transformations, along mapped axes, and in a TrainState."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training.train_state import TrainState
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from normlab.adapters.linen import Norm
from normlab.errors import UserError
from normlab.norms import BatchNorm, OnlineNorm, PowerNorm
from tests.adapters.shared import BACKWARD, SHAPE, images, renamed
from tests.norms.conftest import assert_trees_close, make


class Block(nn.Module):
    """A residual block around a normaliser, for the lifted transformations."""

    norm: object

    @nn.compact
    def __call__(self, x, _=None):
        y = Norm(self.norm, use_running_average=False)(x)
        return x + 0.1 * nn.Dense(x.shape[-1])(y), None


AXES = {"params": 0, "batch_stats": 0, OVERWRITE_WITH_GRADIENT: 0}


@pytest.mark.parametrize("name", ["batch_norm", "power_norm"])
def test_layers_stacked_by_scan_and_remat_are_the_loop_over_them(name):
    norm, x = make(name), images()
    block = nn.remat(Block, prevent_cse=False)
    stack = nn.scan(block, variable_axes=AXES, split_rngs={"params": True}, length=3)(norm)
    variables = stack.init(jax.random.key(0), x)

    @jax.jit
    def scanned(variables, x):
        def loss(variables):
            (y, _), moved = stack.apply(variables, x, mutable=["batch_stats"])
            return (y**2).sum(), moved

        return jax.value_and_grad(loss, has_aux=True)(variables)

    @jax.jit
    def looped(variables, x):
        def loss(variables):
            y, moved = x, []
            for i in range(3):
                own = jax.tree.map(lambda leaf: leaf[i], variables)  # noqa: B023
                (y, _), after = Block(norm).apply(own, y, mutable=["batch_stats"])
                moved.append(after)
            return (y**2).sum(), jax.tree.map(lambda *leaves: jnp.stack(leaves), *moved)

        return jax.value_and_grad(loss, has_aux=True)(variables)

    assert_trees_close(scanned(variables, x), looped(variables, x), 1e-4, 1e-4)


def test_an_ensemble_by_vmap_has_statistics_of_its_own_for_each_member():
    members = nn.vmap(Block, variable_axes=AXES, split_rngs={"params": True})(BatchNorm())
    x = jnp.stack([images(0), images(1)])
    variables = members.init(jax.random.key(0), x)
    _, moved = members.apply(variables, x, mutable=["batch_stats"])
    found = moved["batch_stats"]["Norm_0"]["mean"]
    np.testing.assert_allclose(found, 0.1 * x.mean(axis=(1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("mapped", ["vmap", "shard_map"])
def test_statistics_are_shared_along_axis_name(mapped):
    x = images()
    whole, shard = (Norm(BatchNorm(axis_name=axis), False) for axis in (None, "devices"))
    variables = shard.init(jax.random.key(0), x)
    wanted, after = whole.apply(variables, x, mutable=["batch_stats"])

    def apply(x):
        return shard.apply(variables, x, mutable=["batch_stats"])

    if mapped == "vmap":
        y, moved = jax.vmap(apply, axis_name="devices")(x.reshape(2, 2, *SHAPE[1:]))
        moved = jax.tree.map(lambda leaf: leaf[0], moved)
    else:
        mesh = Mesh(np.array(jax.devices()[:2]), ("devices",))
        spec = P("devices")
        y, moved = jax.jit(
            jax.shard_map(apply, mesh=mesh, in_specs=spec, out_specs=(spec, P()), check_vma=False)
        )(x)
    np.testing.assert_allclose(y.reshape(SHAPE), wanted, rtol=1e-5, atol=1e-5)
    assert_trees_close(moved, after, 1e-5, 1e-6)


@pytest.mark.parametrize("name", BACKWARD)
def test_flaxs_train_state_carries_a_backward_state(name):
    norm, x, target = make(name), images(), images(5)
    layer = Norm(norm, use_running_average=False)
    variables = layer.init(jax.random.key(0), x)
    stats = variables.pop("batch_stats")
    state = TrainState.create(apply_fn=layer.apply, params=variables, tx=optax.sgd(0.1))

    @jax.jit
    def step(state, stats):
        def loss(variables):
            given = {**variables, "batch_stats": stats}
            y, moved = state.apply_fn(given, x, mutable=["batch_stats"])
            return ((y - target) ** 2).mean(), moved["batch_stats"]

        grads, stats_after = jax.grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads), stats_after

    params, own = norm.init(8)
    for _ in range(3):
        state, stats = step(state, stats)

        def loss(params, own):
            y, moved = norm.apply(params, own, x, train=True)
            return ((y - target) ** 2).mean(), moved

        (grads, left), moved = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, own)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        own = {k: left[k] if k in norm.facts.backward_state else moved[k] for k in moved}
    assert_trees_close(state.params["params"], params, 1e-4, 1e-5)
    found = stats | state.params[OVERWRITE_WITH_GRADIENT]
    assert_trees_close(found, renamed(own), 1e-4, 1e-5)
    assert any(abs(own[leaf]).max() > 0 for leaf in norm.facts.backward_state)


@pytest.mark.parametrize("norm", [PowerNorm(), OnlineNorm()])
def test_a_backward_state_cannot_be_forgotten(norm):
    x = images()
    layer = Norm(norm, use_running_average=False)
    variables = layer.init(jax.random.key(0), x)
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss(params, rest):
        y, _ = layer.apply({"params": params, **rest}, x, mutable=["batch_stats"])
        return (y**2).sum()

    with pytest.raises(UserError, match="left out of the differentiation"):
        jax.jit(jax.grad(loss))(variables["params"], rest)
    del rest[OVERWRITE_WITH_GRADIENT]
    with pytest.raises(UserError, match="have no collection '_overwrite_with_gradient'"):
        loss(variables["params"], rest)
