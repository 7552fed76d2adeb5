"""Weights carried into an NNX model and out of it: the same function, and bit for bit back."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import LinenWeights, NnxWeights, TorchWeights, carry
from normlab.adapters.nnx import Norm
from normlab.errors import UserError
from normlab.norms import BatchNorm

DRAW = np.random.default_rng(0)
IMAGES = DRAW.standard_normal((2, 6, 4, 3)).astype(np.float32)


class Linen(nn.Module):
    flat: bool = False

    @nn.compact
    def __call__(self, x):
        for width in (4, 5):
            x = nn.Conv(width, (3, 3), strides=2, padding=1, use_bias=width == 5)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = x.reshape(x.shape[0], -1) if self.flat else x.mean((1, 2))
        if self.flat:
            x = nn.LayerNorm()(x)
        return nn.Dense(2)(x)


class Cnn(nnx.Module):
    """The network of `Linen`; its attributes' names do not sort in the order of definition."""

    def __init__(self, flat=False, ours=False, stem=4):
        def norm(width):
            if ours:
                return Norm(BatchNorm(), width, use_running_average=True)
            return nnx.BatchNorm(width, use_running_average=True, rngs=rngs)

        def conv(width, out, bias):
            return nnx.Conv(width, out, (3, 3), strides=2, padding=1, use_bias=bias, rngs=rngs)

        rngs = nnx.Rngs(0)
        self.stem = conv(3, stem, False)
        self.stem_norm = norm(stem)
        self.blocks = nnx.List([conv(stem, 5, True), norm(5)])
        self.between: Any = nnx.LayerNorm(10, rngs=rngs) if flat else None
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.a_head = nnx.Linear(10 if flat else 5, 2, rngs=rngs)
        self.flat = flat

    def __call__(self, x):
        x = nnx.relu(self.stem_norm(self.stem(x)))
        x = nnx.relu(self.blocks[1](self.blocks[0](x)))
        x = self.between(x.reshape(len(x), -1)) if self.flat else x.mean((1, 2))
        return self.a_head(self.drop(x))


def flat():
    return Cnn(flat=True)


def drawn(flat=False):
    """A linen model whose every array is drawn, variances positive."""
    model = Linen(flat)

    def one(path, leaf):
        values = DRAW.standard_normal(leaf.shape).astype(np.float32)
        return jnp.asarray(np.exp(values) if path[-1].key == "var" else values)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES))
    return model, jax.tree_util.tree_map_with_path(one, shapes)


def as_torch(variables):
    """The state dict of the same network in torch, written by hand."""
    params, stats = variables["params"], variables["batch_stats"]
    state = {}
    for place in range(2):
        conv, norm = params[f"Conv_{place}"], params[f"BatchNorm_{place}"]
        state[f"conv{place}.weight"] = conv["kernel"].transpose(3, 2, 0, 1)
        if "bias" in conv:
            state[f"conv{place}.bias"] = conv["bias"]
        state[f"bn{place}.weight"], state[f"bn{place}.bias"] = norm["scale"], norm["bias"]
        moving = stats[f"BatchNorm_{place}"]
        state[f"bn{place}.running_mean"] = moving["mean"]
        state[f"bn{place}.running_var"] = moving["var"]
        state[f"bn{place}.num_batches_tracked"] = np.array(7)
    state["fc.weight"], state["fc.bias"] = params["Dense_0"]["kernel"].T, params["Dense_0"]["bias"]
    return {name: np.asarray(values) for name, values in state.items()}


def arrays(model):
    return {path: np.asarray(v.get_value()) for path, v in NnxWeights(model)._variables.items()}


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("ours", [False, True], ids=["flax's batch norm", "ours"])
def test_a_linen_model_becomes_the_same_function_and_comes_back_bit_for_bit(ours):
    model, variables = drawn()
    start = Cnn(ours=ours)
    before = arrays(start)
    carried, report = carry(LinenWeights(model, IMAGES, variables), NnxWeights(start))
    expected: Any = model.apply(variables, IMAGES)
    np.testing.assert_allclose(carried(IMAGES), expected, rtol=1e-6, atol=1e-6)
    assert report.pairs["Conv_1"] == "blocks/0" and report.pairs["Dense_0"] == "a_head"
    assert "order of their names" not in str(report)
    equal(arrays(start), before)
    back, _ = carry(NnxWeights(carried), LinenWeights(model, IMAGES))
    equal(back, variables)


def test_a_torch_state_dict_gives_what_it_gives_in_linen():
    model, variables = drawn()
    source = TorchWeights(as_torch(variables))
    carried, _ = carry(source, NnxWeights(Cnn()))
    linen, _ = carry(source, LinenWeights(model, IMAGES))
    equal(linen, variables)
    equal(carry(NnxWeights(carried), LinenWeights(model, IMAGES))[0], linen)
    state, _ = carry(NnxWeights(carried), source)
    equal(state, source.state_dict)


def test_behind_a_flattened_image_rows_are_reordered_as_told():
    model, variables = drawn(flat=True)
    told = {"between": (2, 1, 5), "a_head": (2, 1, 5)}
    linen = LinenWeights(model, IMAGES, variables)
    head = variables["params"]["Dense_0"]["kernel"]
    torchs = np.asarray(head).reshape(2, 1, 5, 2).transpose(2, 0, 1, 3).reshape(10, 2)
    carried, report = carry(linen, NnxWeights(flat(), flattened=told))
    equal(carried.a_head.kernel[...], head)
    expected: Any = model.apply(variables, IMAGES)
    np.testing.assert_allclose(carried(IMAGES), expected, rtol=1e-6, atol=1e-6)
    assert "a_head: its inputs are in another order" in str(report)
    norms = {"n.weight": np.arange(10, dtype="f"), "n.bias": np.zeros(10, "f")}
    state = {**norms, "fc.weight": torchs.T, "fc.bias": np.zeros(2, "f")}
    whole = as_torch(variables)
    state = {**{n: v for n, v in whole.items() if not n.startswith("fc")}, **state}
    from_torch, _ = carry(TorchWeights(state), NnxWeights(flat(), flattened=told))
    equal(from_torch.a_head.kernel[...], head)
    equal(from_torch.between.scale[...], np.arange(10).reshape(5, 2, 1).transpose(1, 2, 0).ravel())
    equal(carry(NnxWeights(from_torch, flattened=told), TorchWeights(state))[0], state)


def test_what_may_take_a_flattened_image_is_refused_until_told():
    with pytest.raises(UserError, match=r"(?s)a_head.*takes 10 .*between.*as a_head") as found:
        NnxWeights(flat()).units()
    assert "flattened={name: (H, W, C)}" in str(found.value)
    with pytest.raises(UserError, match="between"):
        NnxWeights(flat(), flattened={"a_head": (2, 1, 5)}).units()
    assert NnxWeights(flat(), flattened={"a_head": (10,)}).units()
    with pytest.raises(UserError, match="does not take 15 = 3"):
        NnxWeights(flat(), flattened={"a_head": (3, 1, 5)}).units()
    with pytest.raises(UserError, match="no layer head; it has stem"):
        NnxWeights(flat(), flattened={"head": (2, 1, 5)})
    assert any("a_head of NNX: taken to have no" in line for line in NnxWeights(Cnn()).remarks())


def test_a_mismatch_lists_everything_and_leaves_the_model():
    model, variables = drawn()
    start = Cnn(stem=6)
    before = arrays(start)
    with pytest.raises(UserError) as found:
        carry(LinenWeights(model, IMAGES, variables), NnxWeights(start))
    for name in ("Conv_0", "BatchNorm_0", "Conv_1", "stem ", "stem_norm", "blocks/0"):
        assert name in str(found.value)
    equal(arrays(start), before)


def test_a_transposed_convolution_and_an_embedding_are_those_of_linen():
    class Both(nnx.Module):
        def __init__(self, turned):
            rngs = nnx.Rngs(0)
            self.table = nnx.Embed(3, 2, rngs=rngs)
            self.up = nnx.ConvTranspose(2, 5, (3, 3), transpose_kernel=turned, rngs=rngs)

    state = {
        "table.weight": DRAW.standard_normal((3, 2)).astype("f"),
        "up.weight": DRAW.standard_normal((2, 5, 3, 3)).astype("f"),
        "up.bias": np.zeros(5, "f"),
    }
    for turned in (False, True):
        carried, _ = carry(TorchWeights(state), NnxWeights(Both(turned)))
        equal(carried.table.embedding[...], state["table.weight"])
        image = np.zeros((1, 5, 5, 2), "f")
        image[0, 2, 2] = 1  # an impulse: what comes out is torch's kernel as it stands
        expected = state["up.weight"].sum(0).transpose(1, 2, 0)
        np.testing.assert_allclose(carried.up(image)[0, 1:4, 1:4], expected, rtol=1e-5, atol=1e-6)
        equal(carry(NnxWeights(carried), TorchWeights(state))[0], state)


def test_a_model_that_lost_the_order_of_definition_is_told_of():
    for lost in (nnx.clone(Cnn()), nnx.eval_shape(Cnn)):
        assert "order of their names" in " ".join(NnxWeights(lost).remarks())
    model, variables = drawn()
    linen = LinenWeights(model, IMAGES, variables)
    carried, _ = carry(linen, NnxWeights(nnx.eval_shape(Cnn)))
    equal(carried.a_head.kernel[...], variables["params"]["Dense_0"]["kernel"])
    with pytest.raises(UserError, match="only a shape"):
        carry(NnxWeights(nnx.eval_shape(Cnn)), LinenWeights(model, IMAGES))


def test_stacked_layers_and_tied_variables_are_refused():
    stacked = nnx.vmap(lambda key: nnx.Linear(2, 2, rngs=nnx.Rngs(key)))(
        jax.random.split(jax.random.key(0), 3)
    )
    with pytest.raises(UserError, match=r"stacked by nnx.vmap.*\n.*kernel \(3, 2, 2\)"):
        NnxWeights(nnx.Sequential(stacked))
    one, other = (nnx.Linear(2, 2, rngs=nnx.Rngs(0)) for _ in range(2))
    other.kernel = one.kernel
    with pytest.raises(UserError, match="layers/0/kernel and layers/1/kernel are one variable"):
        NnxWeights(nnx.Sequential(one, other))
