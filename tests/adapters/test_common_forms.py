"""Layers that libraries write in other forms are paired, and come back to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from normlab.adapters import LinenWeights, NnxWeights, TorchWeights, carry
from normlab.errors import UserError
from tests.adapters.shared import assert_same_arrays
from tests.norms.conftest import sample


class Attention(nn.Module):
    """Two heads; its layers for queries, keys and values are three."""

    @nn.compact
    def __call__(self, x):
        return nn.MultiHeadDotProductAttention(2, name="attn")(x)


class NnxAttention(nnx.Module):
    def __init__(self):
        self.attn = nnx.MultiHeadAttention(2, 6, decode=False, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.attn(x)


def by_the_equation(x, weight, bias, out, out_bias):
    """Attention of two heads as torch packs its weights, in float64."""
    q, k, v = np.split(x.astype(np.float64) @ weight.T + bias, 3, axis=-1)
    q, k, v = (a.reshape(*a.shape[:2], 2, 3).swapaxes(1, 2) for a in (q, k, v))
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(3)
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return (share @ v).swapaxes(1, 2).reshape(x.shape) @ out.T + out_bias


PACKED = {
    "attn.in_proj_weight": sample((18, 6)),
    "attn.in_proj_bias": sample((18,), seed=1),
    "attn.out_proj.weight": sample((6, 6), seed=2),
    "attn.out_proj.bias": sample((6,), seed=3),
}
TIMMS = dict(
    zip(
        ("attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias"),
        PACKED.values(),
        strict=True,
    )
)


@pytest.mark.parametrize("state", [PACKED, TIMMS], ids=["torch", "timm"])
def test_one_layer_for_queries_keys_and_values_becomes_three_and_one_again(state):
    x = sample((2, 4, 6), seed=5)
    wanted = by_the_equation(x, *state.values())
    variables, report = carry(TorchWeights(state), LinenWeights(Attention(), x))
    np.testing.assert_allclose(Attention().apply(variables, x), wanted, rtol=1e-5, atol=1e-5)
    assert report.pairs["attn.query"] == "attn/query"
    back, _ = carry(LinenWeights(Attention(), x, variables), TorchWeights(state))
    assert_same_arrays(back, state)
    model, _ = carry(TorchWeights(state), NnxWeights(NnxAttention(), x))
    np.testing.assert_allclose(model(jnp.asarray(x)), wanted, rtol=1e-5, atol=1e-5)
    assert_same_arrays(carry(NnxWeights(model, x), TorchWeights(state))[0], state)


def test_three_layers_of_torch_go_to_one_of_flax():
    """As in a network whose own attention has one dense layer."""

    class One(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(6, name="proj")(nn.Dense(18, name="qkv")(x)[..., :6])

    state = {
        f"{name}.{kind}": sample((6, 6) if kind == "weight" else (6,), seed=seed)
        for seed, name in enumerate(("q_proj", "k_proj", "v_proj", "proj"))
        for kind in ("weight", "bias")
    }
    x = sample((2, 6))
    variables, _ = carry(TorchWeights(state), LinenWeights(One(), x))
    kernels = [state[f"{name}_proj.weight"].T for name in "qkv"]
    np.testing.assert_array_equal(
        variables["params"]["qkv"]["kernel"], np.concatenate(kernels, axis=1)
    )
    assert_same_arrays(carry(LinenWeights(One(), x, variables), TorchWeights(state))[0], state)


def test_a_layer_called_qkv_stays_one_where_the_other_side_has_one():
    class One(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(18, name="qkv")(x)

    state = {"qkv.weight": sample((18, 6)), "qkv.bias": sample((18,))}
    _, report = carry(TorchWeights(state), LinenWeights(One(), sample((2, 6))))
    assert report.pairs == {"qkv": "qkv"}


def test_convolutions_of_one_pixel_are_dense_layers_where_the_other_side_has_these():
    """As the MLP of timm's ConvNeXt, and squeeze-and-excitation."""

    class Mlp(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(5, name="fc2")(nn.relu(nn.Dense(8, name="fc1")(x)))

    state = {
        "fc1.weight": sample((8, 5, 1, 1)),
        "fc1.bias": sample((8,)),
        "fc2.weight": sample((5, 8, 1, 1), seed=1),
        "fc2.bias": sample((5,), seed=1),
    }
    x = sample((2, 4, 4, 5))
    variables, _ = carry(TorchWeights(state), LinenWeights(Mlp(), x))
    hidden = np.maximum(x @ state["fc1.weight"][..., 0, 0].T + state["fc1.bias"], 0)
    wanted = hidden @ state["fc2.weight"][..., 0, 0].T + state["fc2.bias"]
    np.testing.assert_allclose(Mlp().apply(variables, x), wanted, rtol=1e-5, atol=1e-5)
    assert_same_arrays(carry(LinenWeights(Mlp(), x, variables), TorchWeights(state))[0], state)


def test_free_parameters_go_by_their_names_or_their_shapes():
    """A scale of torch's shape, a token, and an array with two axes that is not turned over."""

    class Free(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x * self.param("gamma", jax.nn.initializers.ones, (3,)).reshape(1, 1, 3)
            x = x + self.param("places", jax.nn.initializers.zeros, (4, 3))[None]
            token = self.param("token", jax.nn.initializers.zeros, (1, 1, 3))
            return nn.Dense(2, name="fc")(jnp.concatenate([x, jnp.tile(token, (2, 1, 1))], 1))

    state = {
        "token": sample((1, 1, 3)),
        "layer_scale": sample((3, 1, 1), seed=1),
        "places": sample((4, 3), seed=2),
        "fc.weight": sample((2, 3), seed=3),
        "fc.bias": sample((2,), seed=4),
    }
    x = sample((2, 4, 3))
    variables, report = carry(TorchWeights(state), LinenWeights(Free(), x))
    held = variables["params"]
    np.testing.assert_array_equal(held["gamma"], state["layer_scale"].ravel())
    np.testing.assert_array_equal(held["places"], state["places"])
    np.testing.assert_array_equal(held["token"], state["token"])
    assert report.pairs["layer_scale"] == "gamma"
    assert_same_arrays(carry(LinenWeights(Free(), x, variables), TorchWeights(state))[0], state)
    with pytest.raises(UserError, match="no counterpart"):
        carry(TorchWeights({**state, "other": sample((7,))}), LinenWeights(Free(), x))


def test_a_layer_called_norm_is_not_its_block():
    """As in timm's ConvNeXt, whose blocks hold a scale beside it."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            gamma = self.param("gamma", jax.nn.initializers.ones, (3,))
            return nn.LayerNorm(name="norm")(x) * gamma[None]

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.LayerNorm(name="norm")(Block(name="block")(x))

    names = ("block.gamma", "block.norm.weight", "block.norm.bias", "norm.weight", "norm.bias")
    state = {name: sample((3,), seed=seed) for seed, name in enumerate(names)}
    x = sample((2, 3))
    variables, report = carry(TorchWeights(state), LinenWeights(Net(), x))
    assert report.pairs == {n: n.replace(".", "/") for n in ("block.gamma", "block.norm", "norm")}
    assert_same_arrays(carry(LinenWeights(Net(), x, variables), TorchWeights(state))[0], state)
