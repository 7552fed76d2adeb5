"""Folded networks give the same logits; what cannot be folded stays, and says why."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.adapters.folding import fold
from normlab.adapters.linen import Norm
from normlab.catalogue import NORMS
from normlab.errors import UserError
from normlab.models.plain import MLP, Convnet
from normlab.models.resnet import Resnet, ResnetV2
from normlab.norms import BatchNorm, GroupNorm, Identity, InstanceNorm, TaperNorm

X = jnp.asarray(np.random.default_rng(0).normal(0, 1, (4, 8, 8, 3)), jnp.float32)


def hostile(shapes):
    """Means many deviations away, variances from tiny to large, scales of both signs."""
    draw = np.random.default_rng(0)

    def one(path, leaf):
        name, values = path[-1].key, draw.standard_normal(leaf.shape)
        if name in ("variance", "var"):
            values = 10.0 ** draw.uniform(-4, 1, leaf.shape)
        elif name == "mean":
            values = 5 * values
        elif name == "kernel":
            values = values / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def given(model, x=X, **call):
    return hostile(jax.eval_shape(lambda: model.init(jax.random.key(0), x, **call)))


def assert_same_logits(model, variables, folded, x=X, **call):
    before = jax.jit(lambda v: model.apply(v, x, **call))(variables)
    after = jax.jit(lambda v: folded.model.apply(v, x, **call))(folded.variables)
    scale = float(jnp.abs(before).max())
    assert np.isfinite(scale) and scale > 0
    np.testing.assert_allclose(after / scale, before / scale, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        MLP(norm=BatchNorm(), classes=3, widths=(8, 6)),
        Convnet(norm=BatchNorm(), classes=3, widths=(4, 6)),
        Convnet(norm=BatchNorm(use_bias=False), classes=3, widths=(4,)),  # has biases already
        Resnet(norm=BatchNorm(), classes=3, depth=8, width=4),
    ],
    ids=["mlp", "convnet", "with biases", "resnet"],
)
def test_a_model_that_folds_wholly_is_that_model_without_a_normaliser(model):
    variables = given(model, train=False)
    folded = fold(model, variables, X)
    assert_same_logits(model, variables, folded, train=False)
    assert not folded.left and folded.model == model.clone(norm=Identity())
    expected = jax.eval_shape(lambda: folded.model.init(jax.random.key(0), X, train=False))
    assert jax.tree.structure(folded.variables) == jax.tree.structure(expected)
    assert jax.tree.map(jnp.shape, folded.variables) == jax.tree.map(jnp.shape, expected)


def test_in_a_preactivation_network_only_the_norms_behind_a_convolution_fold():
    model = ResnetV2(norm=BatchNorm(), classes=3, depth=8, width=4)
    variables = given(model, train=False)
    folded = fold(model, variables, X)
    assert_same_logits(model, variables, folded, train=False)
    assert len(folded.folded) == 3, "one in each of the three blocks"
    reasons = list(folded.left.values())
    assert len(reasons) == 4
    assert reasons[0] == "the output of Conv_0 goes elsewhere too", "the first block's shortcut"
    assert all("not the output of a convolution" in reason for reason in reasons[1:])
    assert "left    NormAct_6/Norm_0: " in str(folded)


class Linen(nn.Module):
    """Flax's own layers and the adapters', a grouped convolution, one norm that cannot fold."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(6, (3, 3), feature_group_count=3, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, epsilon=1e-3)(x))
        x = nn.Conv(4, (1, 1))(x)
        x = Norm(BatchNorm())(x, use_running_average=not train)
        y = nn.Conv(4, (3, 3), name="twice")(x)
        x = nn.relu(y) + nn.BatchNorm(use_running_average=not train, name="after")(y)
        x = nn.GroupNorm(2)(x)
        x = nn.BatchNorm(use_running_average=not train, name="group")(x)
        x = nn.Dense(5, use_bias=False)(x.mean(axis=(1, 2)))
        return nn.BatchNorm(use_running_average=not train, use_scale=False)(x)


def test_a_linen_model_of_flaxs_own_layers_folds_and_keeps_what_it_must():
    variables = given(Linen(), train=False)
    folded = fold(Linen(), variables, X, train=False)
    assert_same_logits(Linen(), variables, folded, train=False)
    assert folded.folded == {
        "BatchNorm_0": "Conv_0",
        "Norm_0": "Conv_1",
        "BatchNorm_1": "Dense_0",
    }
    assert folded.left == {
        "after": "the output of twice goes elsewhere too",
        "group": "its input is not the output of a convolution or dense layer",
    }
    assert set(folded.variables["batch_stats"]) == {"after", "group"}
    assert "bias" in folded.variables["params"]["Conv_0"]


NAMES = [n for n in NORMS.entries() if not NORMS.load(n).facts.fuses_activation]


@pytest.mark.parametrize("name", NAMES)
def test_facts_name_just_what_is_a_factor_and_an_offset_a_channel(name):
    norm = NORMS.load(name)()
    draw = np.random.default_rng(2)
    params, state = jax.tree.map(
        lambda leaf: jnp.asarray(draw.uniform(0.2, 0.9, leaf.shape), jnp.float32), norm.init(16)
    )
    x, change = (jnp.asarray(draw.normal(1, 1, (3, 2, 2, 16)), jnp.float32) for _ in range(2))

    if any(word in name for word in ("split", "conditional")) or not (params or state):
        pytest.skip("its parameters are not one a channel, or it has none")

    @jax.jit
    def around(x):
        def evaluated(x):
            return norm.apply(params, state, x, train=False)[0]

        y, push = jax.linearize(evaluated, x)
        return y, evaluated(x + change), push(change), push(jnp.ones_like(x))[:1, :1, :1]

    y, further, pushed, factor = around(x)
    affine = np.allclose(pushed, factor * change, rtol=1e-4, atol=1e-4)
    affine = affine and np.allclose(further, y + pushed, rtol=1e-3, atol=1e-2)
    assert affine == norm.facts.affine_in_evaluation


def test_every_foldable_normaliser_folds():
    x = X[:, 0, 0]
    foldable = [cls for cls in map(NORMS.load, NAMES) if cls.facts.affine_in_evaluation]
    assert len(foldable) == 12
    for cls in foldable:
        model = MLP(norm=cls(), classes=2, widths=(8,))
        variables = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.5, given(model, x, train=False))
        assert_same_logits(model, variables, fold(model, variables, x), x, train=False)


def test_what_fades_folds_when_it_has_faded():
    x, norm = X[:, 0, 0], TaperNorm(warm_up=1, fade=2)
    model = MLP(norm=norm, classes=2, widths=(8,))
    variables = given(model, x, train=False)
    with pytest.raises(UserError, match="more than a factor and an offset"):
        fold(model, variables, x)
    for _ in range(4):
        _, moved = model.apply(variables, x, train=True, mutable=["norm_state"])
        variables = {**variables, **moved}
    folded = fold(model, variables, x)
    assert not folded.left and folded.model.norm == Identity()
    assert_same_logits(model, variables, folded, x, train=False)


def test_layers_that_stand_for_several_or_are_called_several_times_stay():
    class Shared(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv, norm = nn.Conv(3, (1, 1)), nn.BatchNorm(use_running_average=True)
            return norm(conv(norm(conv(x))))

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.BatchNorm(use_running_average=True)(nn.Conv(3, (1, 1))(x)), None

    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"params": 0, "batch_stats": 0}
            scan = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=2)
            return scan()(x, None)[0]

    for model, reason in ((Shared(), "several times"), (Scanned(), "several layers")):
        with pytest.raises(UserError, match=reason):
            fold(model, given(model), X)


def test_a_layer_that_transforms_its_kernel_stays():
    """A standardised kernel would be standardised again."""

    def promote(*arrays, dtype=None, inexact=True):
        x, kernel, bias = arrays
        return nn.dtypes.promote_dtype(x, 2 * kernel, bias, dtype=dtype, inexact=inexact)

    class Transformed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=True)(nn.Conv(3, (1, 1), promote_dtype=promote)(x))
            return nn.BatchNorm(use_running_average=True)(nn.Conv(3, (1, 1))(x))

    folded = fold(Transformed(), given(Transformed()), X)
    assert folded.folded == {"BatchNorm_1": "Conv_1"}
    assert folded.left == {"BatchNorm_0": "the kernel of Conv_0 is transformed before it is used"}


def test_what_does_not_fold_is_refused_with_the_reason():
    for norm in (GroupNorm(groups=1), InstanceNorm()):
        model = Convnet(norm=norm, classes=2, widths=(4,), layers=1)
        with pytest.raises(UserError, match="more than a factor and an offset"):
            fold(model, given(model, train=False), X)
    plain = Convnet(norm=Identity(), classes=2, widths=(4,), layers=1)
    with pytest.raises(UserError, match="the model has none"):
        fold(plain, given(plain, train=False), X)
