"""Layers of existing NNX models replaced in place."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from normlab.adapters import like_flax
from normlab.adapters.nnx import Norm, swap
from normlab.errors import UserError
from normlab.norms import BatchNorm, EvoNormS0, FrozenBatchNorm, GroupNorm, IterativeNorm, LayerNorm
from tests.norms.conftest import sample


class Digits(nnx.Module):
    """Convolutions, batch normalisation and dropout, as in flax's tutorial on digits."""

    def __init__(self, rngs, width=8):
        self.conv1 = nnx.Conv(1, width, kernel_size=(3, 3), rngs=rngs)
        self.norm1 = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
        self.dropout1 = nnx.Dropout(rate=0.1)
        self.conv2 = nnx.Conv(width, 2 * width, kernel_size=(3, 3), rngs=rngs)
        self.norm2 = nnx.BatchNorm(2 * width, momentum=0.9, rngs=rngs)
        self.linear = nnx.Linear(2 * width, 3, rngs=rngs)

    def __call__(self, x, rngs=None):
        x = nnx.relu(self.dropout1(self.norm1(self.conv1(x)), rngs=rngs))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return self.linear(x.mean(axis=(1, 2)))


LABELS = jnp.arange(12) % 3
X = jnp.asarray(sample((12, 6, 6, 1))) + 3 * jnp.asarray(sample((3, 6, 6, 1), seed=1))[LABELS]


@nnx.jit
def step(model, optimizer, rngs):
    def loss(model, rngs):
        logits = model(X, rngs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    value, grads = nnx.value_and_grad(loss)(model, rngs)
    optimizer.update(model, grads)
    return value


def train(model, steps=20):
    model.train()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
    rngs = nnx.Rngs(1)
    return [float(step(model, optimizer, rngs)) for _ in range(steps)]


@pytest.mark.parametrize("norm", [GroupNorm(groups=4), IterativeNorm(group_size=4)])
def test_the_tutorials_network_is_swapped_in_one_line_and_trains(norm):
    model = Digits(nnx.Rngs(0))
    swap(model, nnx.BatchNorm, norm)
    assert model.norm1.normaliser == model.norm2.normaliser == norm
    losses = train(model)
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
    model.eval()
    logits = nnx.jit(model.__class__.__call__)(model, X)
    assert np.isfinite(logits).all() and not nnx.state(model, nnx.RngState)


def test_the_same_normaliser_gives_the_same_network_with_what_it_had_learnt():
    model = Digits(nnx.Rngs(0))
    train(model, 3)
    swapped = nnx.clone(model)
    swap(swapped, nnx.BatchNorm, like_flax)
    for part in (nnx.Param, nnx.BatchStat):
        found, wanted = (nnx.to_pure_dict(nnx.state(m, part)) for m in (swapped, model))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    for mode in ("eval", "train"):
        getattr(model, mode)()
        getattr(swapped, mode)()
        rngs = [nnx.Rngs(2), nnx.Rngs(2)]
        outputs = (m(X, r) for m, r in zip((swapped, model), rngs, strict=True))
        np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


def test_variables_of_the_same_name_and_shape_are_the_layers_own():
    model = Digits(nnx.Rngs(0))
    scale, mean = model.norm1.scale, model.norm1.mean
    model.norm1.use_running_average = True
    swap(model, nnx.BatchNorm, FrozenBatchNorm())
    assert model.norm1.scale is scale and model.norm1.mean is mean
    assert model.norm1.use_running_average and not model.norm2.use_running_average
    swap(model, Norm, GroupNorm(groups=4))  # and a layer of normlab can be swapped again
    assert model.norm1.scale is scale and not nnx.state(model, nnx.BatchStat)


def test_a_compiled_step_compiles_again_after_a_swap():
    model = Digits(nnx.Rngs(0))
    forward = nnx.jit(lambda model, x: model.norm1(x))
    x = jnp.asarray(sample((4, 3, 3, 8)))
    before = forward(model, x)
    swap(model, nnx.BatchNorm, LayerNorm(use_scale=False, use_bias=False))
    after = forward(model, x)
    assert float(abs(after - before).max()) > 0.1
    np.testing.assert_allclose(after.mean(axis=-1), 0, atol=1e-5)


class Pair(NamedTuple):
    first: nnx.Module
    second: nnx.Module


class Holder(nnx.Module):
    """Layers wherever a model may keep them."""

    annotated: nnx.Module

    def __init__(self, rngs):
        def layer():
            return nnx.BatchNorm(4, rngs=rngs)

        self.annotated = layer()
        self._private = layer()
        self.shared = self.annotated
        self.in_list = nnx.List([layer(), nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), layer())])
        self.in_dict = nnx.Dict(a=layer(), b=nnx.data({"c": nnx.LayerNorm(4, rngs=rngs)}))
        self.plain_list = nnx.data([layer()])
        self.in_tuple = nnx.data((layer(), self.annotated))
        self.pair = nnx.data(Pair(layer(), nnx.Linear(4, 4, rngs=rngs)))
        self.number = 3
        self.itself = nnx.data([self])


def test_layers_are_found_wherever_they_hang_and_shared_ones_stay_shared():
    model = Holder(nnx.Rngs(0))
    report = swap(model, nnx.BatchNorm, GroupNorm(groups=2))
    assert sorted(report.changed) == [
        "_private",
        "annotated",
        "in_dict/a",
        "in_list/0",
        "in_list/1/layers/1",
        "in_tuple/0",
        "in_tuple/1",
        "pair/0",
        "plain_list/0",
        "shared",
    ]
    assert report.left == {"in_dict/b/c": "LayerNorm is not among the types to replace"}
    assert model.annotated is model.shared is model.in_tuple[1]
    assert isinstance(model.pair, Pair) and isinstance(model.pair.first, Norm)
    assert not [m for _, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
    nnx.split(model)  # still a model to Flax


def test_the_report_prints_and_a_function_chooses():
    model = Digits(nnx.Rngs(0))

    def choose(layer):
        return GroupNorm(groups=layer.num_features // 4) if layer.num_features > 8 else None

    assert str(swap(model, nnx.BatchNorm, choose)) == (
        "changed  norm2: GroupNorm(eps=1e-05, use_scale=True, use_bias=True, zero_centred=False, "
        "groups=4)\n"
        "left     norm1: the function that chooses gave none"
    )
    assert isinstance(model.norm1, nnx.BatchNorm)


@pytest.mark.parametrize("norm", [GroupNorm(groups=2), IterativeNorm(group_size=2)])
def test_layers_stacked_by_vmap_get_their_like(norm):
    @nnx.vmap(in_axes=0)
    def stacked(rngs):
        return nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs))

    layers, x = stacked(nnx.Rngs(0).split(3)), jnp.asarray(sample((6, 4)))
    layers.layers[1].scale[...] = jnp.arange(12.0).reshape(3, 4)
    swap(layers, nnx.BatchNorm, norm)

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def forward(x, layer):
        return layer(x)

    y = nnx.jit(forward)(x, layers)
    for i in range(3):
        linear, own = layers.layers
        x = x @ linear.kernel[...][i]  # its bias is zero
        params = {"scale": own.scale[...][i], "bias": own.bias[...][i]}
        x, _ = norm.apply(params, norm.init(4)[1], x, train=True)
    np.testing.assert_allclose(y, x, rtol=1e-3, atol=1e-4)


def test_axis_name_and_dtype_of_a_layer_are_kept():
    model = nnx.Sequential(
        nnx.BatchNorm(4, axis_name="devices", dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    )
    report = swap(model, nnx.BatchNorm, BatchNorm())
    assert report.changed["layers/0"] == BatchNorm(axis_name="devices")
    assert model.layers[0].dtype == jnp.bfloat16


def test_an_abstract_model_can_be_swapped():
    def build():
        model = Digits(nnx.Rngs(0))
        swap(model, nnx.BatchNorm, GroupNorm(groups=4))
        return model

    abstract = nnx.eval_shape(build)
    assert abstract.norm2.scale.shape == (16,)


def test_a_swap_is_all_or_nothing():
    model = Digits(nnx.Rngs(0), width=6)
    with pytest.raises(UserError, match=r"nothing is swapped(.|\n)*norm1: groups=4 does not"):
        swap(model, nnx.BatchNorm, GroupNorm(groups=4))
    assert isinstance(model.norm1, nnx.BatchNorm) and isinstance(model.norm2, nnx.BatchNorm)
    model.norm2.axis = 1
    with pytest.raises(UserError, match=r"norm2: its channels are at axis=\(1,\)"):
        swap(model, nnx.BatchNorm, LayerNorm())


def test_mistakes_are_told():
    rngs = nnx.Rngs(0)
    with pytest.raises(UserError, match="has no RMSNorm to swap; it has\nleft     norm1: Batch"):
        swap(Digits(rngs), nnx.RMSNorm, LayerNorm())
    with pytest.raises(UserError, match="has no BatchNorm to swap; it is\n"):
        swap(nnx.Sequential(nnx.Linear(2, 2, rngs=rngs)), nnx.BatchNorm, LayerNorm())
    with pytest.raises(UserError, match="the model is itself a BatchNorm"):
        swap(nnx.BatchNorm(4, rngs=rngs), nnx.BatchNorm, LayerNorm())
    with pytest.raises(UserError, match="given by their type"):
        swap(Digits(rngs), "BatchNorm", LayerNorm())
    with pytest.raises(UserError, match="norm1: what comes in the place of a layer is a normal"):
        swap(Digits(rngs), nnx.BatchNorm, lambda layer: layer)
    with pytest.raises(UserError, match="Linear tells its number of channels neither"):
        swap(Digits(rngs), nnx.Linear, LayerNorm())


def test_a_fused_normaliser_tells_of_the_second_activation():
    with pytest.warns(UserWarning, match="EvoNormS0 contains the activation"):
        report = swap(Digits(nnx.Rngs(0)), nnx.BatchNorm, EvoNormS0(groups=4))
    assert list(report.changed) == ["norm1", "norm2"]
