"""Flax's own layers and ours, by the same arguments: values, gradients, running statistics."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import like_flax
from normlab.adapters import linen as of_linen
from normlab.adapters import nnx as of_nnx
from normlab.adapters.linen import swap
from normlab.errors import UserError
from normlab.norms import BatchNorm, GroupNorm, LayerNorm
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
CASES += [  # axes that no normaliser of the catalogue has
    ("BatchNorm", {"axis": 1, "momentum": 0.7}),
    ("BatchNorm", {"axis": -2, "use_bias": False}),
    ("LayerNorm", {"reduction_axes": 1, "feature_axes": 1, "use_fast_variance": False}),
    ("LayerNorm", {"reduction_axes": (0, 1)}),
    ("LayerNorm", {"reduction_axes": (-4, -1), "feature_axes": -2, "use_bias": False}),
    ("GroupNorm", {"num_groups": None, "group_size": 4, "reduction_axes": (1, 2, 3)}),
    ("InstanceNorm", {"feature_axes": 1}),
    ("RMSNorm", {"reduction_axes": (1, 2, 3)}),
    ("RMSNorm", {"reduction_axes": -2, "feature_axes": 1}),
]
OF_LINEN = [  # flax's nnx knows no sizes of several axes, and repeats means of groups along axis 1
    ("BatchNorm", {"axis": (1, 3)}),
    ("LayerNorm", {"feature_axes": (1, 2, 3)}),
    ("LayerNorm", {"reduction_axes": (1, 2, 3), "feature_axes": (-1, 1), "use_scale": False}),
    ("InstanceNorm", {"feature_axes": (-2, -1), "use_fast_variance": False}),
    ("GroupNorm", {"num_groups": 4, "reduction_axes": (0, 1, 2, 3)}),
    ("RMSNorm", {"reduction_axes": (1, 2), "feature_axes": (1, 2)}),
]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


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


@pytest.mark.parametrize("case", CASES + OF_LINEN, ids=str)
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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_nnx_layer_with_flaxs_arguments_is_flaxs_layer(case):
    name, arguments = case
    features = (
        SHAPE[arguments.get("feature_axes", arguments.get("axis", -1))]
        if (isinstance(arguments.get("feature_axes", -1), int))
        else 8
    )
    theirs = getattr(nnx, name)(features, **arguments, rngs=nnx.Rngs(0))
    ours = of_nnx.Norm(like_flax(getattr(nnx, name), **arguments), features)
    x = jnp.asarray(sample(SHAPE))
    if arguments.get("group_size") is None:
        assert like_flax(theirs) == ours.normaliser
    np.testing.assert_allclose(of_nnx.Norm(like_flax(theirs), features)(x), theirs(x), **CLOSE)
    state = drawn(nnx.to_pure_dict(nnx.state(theirs)))
    nnx.update(theirs, state)
    nnx.update(ours, state)  # a checkpoint of theirs
    assert_close(nnx_steps(ours), nnx_steps(theirs))


REFUSED = [
    ("BatchNorm", {"axis_index_groups": [[0, 1]]}, "norm_batch"),
    ("BatchNorm", {"eps": 1e-3}, "did you mean 'epsilon'"),
    ("BatchNorm", {"dtype": jnp.bfloat16}, "give it to Norm"),
    ("BatchNorm", {"use_running_average": True}, "give it to Norm"),
    ("BatchNorm", {"scale_init": nn.initializers.zeros}, "give it to Norm"),
    ("GroupNorm", {"num_groups": 2, "group_size": 4}, "give one"),
    ("GroupNorm", {"num_groups": None}, "give one"),
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


LAYERS = ["BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm"]


def arguments_of(name):
    arguments = {"use_fast_variance": False}
    return arguments | ({"num_groups": 2} if name == "GroupNorm" else {})


@pytest.mark.parametrize("name", LAYERS)
def test_complex_input_is_flaxs(name):
    """Output, gradient and running statistics; the variance is that of absolute distances."""
    arguments = arguments_of(name)
    theirs = getattr(nn, name)(**arguments)
    ours = of_linen.Norm(like_flax(getattr(nn, name), **arguments))
    x = jax.lax.complex(*(jnp.asarray(sample(SHAPE, seed + 1, 2, seed=seed)) for seed in (0, 1)))
    flag = {"use_running_average": False} if name == "BatchNorm" else {}

    def made(layer, x):
        held = layer.init(jax.random.key(0), x, **flag)
        held = {**held, "params": drawn(held["params"])}

        def loss(x):
            y, moved = layer.apply(held, x, mutable=["batch_stats"], **flag)
            return (jnp.abs(y) ** 3).sum(), (y, moved)

        (_, (y, moved)), slope = jax.value_and_grad(loss, has_aux=True)(x)
        stands = {"use_running_average": True} if flag else {}
        return y, slope, moved, layer.apply({**held, **moved}, x, **stands)

    found = jax.jit(partial(made, ours))(x)
    with jax.numpy_dtype_promotion("standard"):  # flax multiplies by real scales
        wanted = jax.jit(partial(made, theirs))(x)
    assert_close(found, wanted)
    assert found[0].dtype == jnp.complex64


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(8,), (5, 8), (1, 8), (3, 1, 8), (4, 3, 5, 8)])
def test_masks_of_lower_rank_are_of_the_last_axes(name, shape):
    """Flax leaves what is masked as it comes out; ours is zero there."""
    arguments, x = arguments_of(name), jnp.asarray(sample(SHAPE, 1, 2))
    mask = np.random.default_rng(3).uniform(size=shape) < 0.6
    mask[..., ::4] = True  # some of each group
    theirs = getattr(nn, name)(**arguments)
    flag = {"use_running_average": False} if name == "BatchNorm" else {}
    held = theirs.init(jax.random.key(0), x, **flag)
    of_flax, _ = theirs.apply(held, x, mask=jnp.asarray(mask), mutable=["batch_stats"], **flag)
    wanted = np.where(mask, of_flax, 0)
    normaliser = like_flax(getattr(nn, name), **arguments)
    ours, in_nnx = of_linen.Norm(normaliser), of_nnx.Norm(normaliser, 8)
    found, _ = ours.apply(held, x, mask=jnp.asarray(mask), mutable=["batch_stats"], **flag)
    np.testing.assert_allclose(found, wanted, **CLOSE)
    np.testing.assert_allclose(in_nnx(x, mask=jnp.asarray(mask)), wanted, **CLOSE)


def test_instance_norm_of_vectors_gives_the_bias_as_flaxs_does():
    x = jnp.asarray(sample((4, 8)))
    theirs, ours = nn.InstanceNorm(), of_linen.Norm(like_flax(nn.InstanceNorm))
    held = theirs.init(jax.random.key(0), x)
    held["params"]["bias"] = jnp.arange(8.0)
    with pytest.warns(UserWarning, match="each value has a mean of its own"):
        y = ours.apply(held, x)
    np.testing.assert_array_equal(y, theirs.apply(held, x))


@pytest.mark.parametrize("module", [nn, nnx], ids=["linen", "nnx"])
def test_a_swap_keeps_axes_that_like_flax_reads(module):
    x = jnp.asarray(sample(SHAPE, 1, 2))
    if module is nn:
        model = nn.Sequential([nn.LayerNorm(reduction_axes=1, feature_axes=(1, 2)), nn.relu])
        swapped = swap(model, nn.LayerNorm, like_flax)
        held = model.init(jax.random.key(0), x)
        y, wanted = swapped.apply(held, x), model.apply(held, x)
    else:
        model = nnx.Sequential(nnx.BatchNorm(3, axis=1, rngs=nnx.Rngs(0)), nnx.relu)
        wanted = model(x)
        of_nnx.swap(model, nnx.BatchNorm, like_flax)
        y = model(x)
        with pytest.raises(UserError, match="has 5 channels"):
            model(x.swapaxes(1, 2))
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)


def test_a_layer_is_normalised_in_init_and_its_statistics_stay():
    x = jnp.asarray(sample(SHAPE, 1, 2))
    theirs = nn.BatchNorm(use_running_average=False, axis_name="devices")
    ours = of_linen.Norm(like_flax(theirs), use_running_average=False)
    wanted, start = theirs.init_with_output(jax.random.key(0), x)
    found, own = ours.init_with_output(jax.random.key(0), x)
    assert_close((found, own), (wanted, start))
    standing = of_linen.Norm(like_flax(theirs), use_running_average=True)
    y, _ = standing.init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(y, x / np.sqrt(1 + 1e-5), rtol=1e-6)
    one, _ = ours.init_with_output(jax.random.key(0), jnp.ones((1, 8)))  # too few for a variance
    np.testing.assert_allclose(one, np.ones((1, 8)) / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_metadata_and_promotion_of_dtypes_are_nnxs():
    def halved(values, dtype):
        return tuple(None if v is None else v.astype(jnp.float16) for v in values)

    given = {"scale_metadata": {"about": "the scale"}, "promote_dtype": halved}
    layer = of_nnx.Norm(like_flax(nnx.LayerNorm), 8, **given)
    theirs = nnx.LayerNorm(8, **given, rngs=nnx.Rngs(0))
    assert layer.scale.get_metadata() == theirs.scale.get_metadata()
    x = jnp.asarray(sample(SHAPE, 100, 1))
    rounded = x.astype(jnp.float16).astype(jnp.float32)
    plain = of_nnx.Norm(like_flax(nnx.LayerNorm), 8)
    np.testing.assert_array_equal(layer(x), plain(rounded))
