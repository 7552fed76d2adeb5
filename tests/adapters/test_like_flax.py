"""Flax's own layers and ours, by the same arguments: values, gradients, running statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import like_flax
from normlab.adapters import linen as of_linen
from normlab.adapters import nnx as of_nnx
from normlab.errors import UserError
from normlab.norms import BatchNorm, GroupNorm, LayerNorm
from normlab.ops.moments import ShapeError
from tests.norms.conftest import sample

SHAPE = (4, 3, 5, 8)
CASES = [
    ("BatchNorm", {}),
    ("BatchNorm", {"momentum": 0.7, "epsilon": 1e-2, "use_scale": False, "axis": -1}),
    ("BatchNorm", {"use_bias": False, "use_fast_variance": False}),
    ("LayerNorm", {}),
    ("LayerNorm", {"epsilon": 1e-2, "use_bias": False, "feature_axes": (-1,)}),
    ("LayerNorm", {"reduction_axes": (1, 2, 3), "use_scale": False}),
    ("LayerNorm", {"reduction_axes": [1, 2], "feature_axes": -1}),
    ("LayerNorm", {"reduction_axes": (-2, -1)}),
    ("GroupNorm", {"num_groups": 2, "epsilon": 1e-2, "use_scale": False}),
    ("GroupNorm", {"num_groups": None, "group_size": 4}),
    ("GroupNorm", {"num_groups": 2, "use_bias": False, "reduction_axes": (1, 2, -1)}),
    ("InstanceNorm", {"epsilon": 1e-2, "use_bias": False, "feature_axes": -1}),
    ("RMSNorm", {}),
    ("RMSNorm", {"epsilon": 1e-2, "use_scale": False}),
]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    return request.param


def drawn(params, seed=5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: jnp.asarray(rng.uniform(0.5, 2, v.shape), v.dtype), params)


def three_steps_and_an_evaluation(layer, params, stats, knows_training):
    """All that comes out: outputs, gradients, running statistics."""

    @jax.jit
    def step(params, stats, x, dy):
        def loss(params, x):
            flag = {"use_running_average": False} if knows_training else {}
            variables = {"params": params, "batch_stats": stats}
            y, moved = layer.apply(variables, x, mutable=["batch_stats"], **flag)
            return (y * dy).sum(), (y, moved.get("batch_stats", {}))

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    found = []
    for seed in range(3):
        x, dy = sample(SHAPE, 1, 1 + seed, seed=seed), sample(SHAPE, seed=70 + seed)
        (_, (y, stats)), grads = step(params, stats, jnp.asarray(x), jnp.asarray(dy))
        found.append((y, grads, stats))
    flag = {"use_running_average": True} if knows_training else {}
    x = jnp.asarray(sample(SHAPE, seed=9))
    return found, layer.apply({"params": params, "batch_stats": stats}, x, **flag)


def assert_close(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, wanted)


def test_a_linen_layer_with_flaxs_arguments_is_flaxs_layer(case):
    name, arguments = case
    theirs = getattr(nn, name)(**arguments)
    ours = of_linen.Norm(like_flax(getattr(nn, name), **arguments))
    assert like_flax(theirs) == ours.normaliser
    flag = {"use_running_average": False} if name == "BatchNorm" else {}
    start, own = (m.init(jax.random.key(0), jnp.ones(SHAPE), **flag) for m in (theirs, ours))
    assert_close(own, start)
    # Flax's variables go into ours as they are.
    params, stats = drawn(start.get("params", {})), start.get("batch_stats", {})
    wanted = three_steps_and_an_evaluation(theirs, params, stats, bool(flag))
    assert_close(three_steps_and_an_evaluation(ours, params, stats, bool(flag)), wanted)


def nnx_steps(layer):
    @nnx.jit
    def step(layer, x, dy):
        def loss(layer, x):
            y = layer(x)
            return (y * dy).sum(), y

        (_, y), grads = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, x)
        return y, jax.tree.leaves(grads)

    found = []
    for seed in range(3):
        x, dy = sample(SHAPE, 1, 1 + seed, seed=seed), sample(SHAPE, seed=70 + seed)
        found.append(step(layer, jnp.asarray(x), jnp.asarray(dy)))
        found.append(jax.tree.leaves(nnx.state(layer, nnx.BatchStat)))
    layer.eval()
    return found, layer(jnp.asarray(sample(SHAPE, seed=9)))


def test_an_nnx_layer_with_flaxs_arguments_is_flaxs_layer(case):
    name, arguments = case
    theirs = getattr(nnx, name)(8, **arguments, rngs=nnx.Rngs(0))
    ours = of_nnx.Norm(like_flax(getattr(nnx, name), **arguments), 8)
    x = jnp.asarray(sample(SHAPE))
    if arguments.get("group_size") is None:
        assert like_flax(theirs) == ours.normaliser
    np.testing.assert_allclose(of_nnx.Norm(like_flax(theirs), 8)(x), theirs(x), **CLOSE)
    state = drawn(nnx.to_pure_dict(nnx.state(theirs)))
    nnx.update(theirs, state)
    nnx.update(ours, state)  # a checkpoint of theirs
    assert_close(nnx_steps(ours), nnx_steps(theirs))


REFUSED = [
    ("BatchNorm", {"axis": 1}, "channels are last"),
    ("BatchNorm", {"axis_index_groups": [[0, 1]]}, "norm_batch"),
    ("BatchNorm", {"eps": 1e-3}, "did you mean 'epsilon'"),
    ("BatchNorm", {"dtype": jnp.bfloat16}, "give it to Norm"),
    ("BatchNorm", {"use_running_average": True}, "give it to Norm"),
    ("BatchNorm", {"scale_init": nn.initializers.zeros}, "give it to Norm"),
    ("LayerNorm", {"reduction_axes": (0, 1)}, "over the batch"),
    ("LayerNorm", {"feature_axes": (1, 2, 3)}, "channels are last"),
    ("LayerNorm", {"axis_name": "devices"}, "not shared between devices"),
    ("GroupNorm", {"num_groups": 2, "group_size": 4}, "give one"),
    ("GroupNorm", {"num_groups": None}, "give one"),
    ("GroupNorm", {"reduction_axes": (1, 2)}, "no counterpart"),
    ("InstanceNorm", {"feature_axes": (-2, -1)}, "channels are last"),
    ("RMSNorm", {"reduction_axes": (1, 2, 3)}, "channels are last"),
]


@pytest.mark.parametrize("module", [nn, nnx], ids=["linen", "nnx"])
@pytest.mark.parametrize(("name", "arguments", "says"), REFUSED)
def test_what_has_no_counterpart_is_refused_with_a_reason(module, name, arguments, says):
    with pytest.raises(UserError, match=says):
        like_flax(getattr(module, name), **arguments)


def test_other_layers_are_refused():
    with pytest.raises(UserError, match="Dense is none of the layers of flax that are known"):
        like_flax(nn.Dense)


def test_defaults_are_flaxs():
    assert like_flax(nn.BatchNorm) == BatchNorm(momentum=0.99, eps=1e-5)
    assert like_flax(nnx.LayerNorm) == LayerNorm(eps=1e-6)
    assert like_flax(nn.GroupNorm) == GroupNorm(groups=32, eps=1e-6)
    assert like_flax(nn.BatchNorm, axis_name="devices").axis_name == "devices"


def test_reduction_axes_never_reach_the_batch():
    norm = like_flax(nn.LayerNorm, reduction_axes=(-3, -2, -1))
    with pytest.raises(ShapeError, match="beside that of the batch"):
        norm.apply(*norm.init(8), jnp.ones((4, 5, 8)), train=True)


def test_a_group_size_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="does not divide the 6 channels"):
        like_flax(nn.GroupNorm, num_groups=None, group_size=4).init(6)


def test_group_norm_over_some_positions_is_linens_where_nnxs_repeats_along_the_wrong_axis():
    arguments, x = {"num_groups": 2, "reduction_axes": (2, -1)}, jnp.asarray(sample(SHAPE))
    of_linens, of_nnxs = (like_flax(m.GroupNorm, **arguments) for m in (nn, nnx))
    assert of_linens == of_nnxs
    y = of_nnx.Norm(of_nnxs, 8)(x)
    theirs = nn.GroupNorm(**arguments)
    wanted = theirs.apply(theirs.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(y, wanted, **CLOSE)
    assert abs(nnx.GroupNorm(8, **arguments, rngs=nnx.Rngs(0))(x) - wanted).max() > 1
