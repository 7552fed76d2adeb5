"""Each slot of a model keeps its contract."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import DictKey, GetAttrKey

from normlab.catalogue import MODELS
from normlab.core import normaliser
from normlab.models.plain import MLP
from normlab.models.resnet import Resnet
from normlab.models.slots import (
    ACTIVATIONS,
    NORM_STATE,
    NormAct,
    needs_bias,
    parameter_role,
    pool_norm_states,
)
from normlab.norms import Affine, BatchNorm, Identity, LayerNorm, RMSNorm


@normaliser(paper="none: made here", fuses_activation=True)
@dataclass(frozen=True)
class Clip:
    """A fused normaliser that clips at +-1, which no activation does."""

    def init(self, features):
        return {}, {}

    def apply(self, params, state, x, *, train, mask=None):
        return jnp.clip(x, -1.0, 1.0), state


@normaliser(paper="none: made here")
@dataclass(frozen=True)
class Counter:
    """A normaliser whose state is not a statistic: it counts its calls, even in evaluation."""

    def init(self, features):
        return {}, {"steps": jnp.zeros((), jnp.float32)}

    def apply(self, params, state, x, *, train, mask=None):
        return x, {"steps": state["steps"] + 1.0}


X = jnp.array([[-3.0, -0.5, 0.5, 3.0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", [0, 0, 0.5, 3]),
        ("identity", [-3, -0.5, 0.5, 3]),
        ("sigmoid", 1 / (1 + np.exp([3, 0.5, -0.5, -3]))),
        ("tanh", np.tanh([-3, -0.5, 0.5, 3])),
        ("silu", np.array([-3, -0.5, 0.5, 3]) / (1 + np.exp([3, 0.5, -0.5, -3]))),
        # x * Phi(x) in the tanh approximation that flax takes by default.
        ("gelu", [-0.003637, -0.154286, 0.345714, 2.996363]),
    ],
)
def test_an_activation_follows_a_normaliser(name, expected):
    np.testing.assert_allclose(
        NormAct(Identity(), name).apply({}, X, train=False)[0], expected, atol=1e-6
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_activation_follows_a_fused_normaliser(name):
    np.testing.assert_array_equal(
        NormAct(Clip(), name).apply({}, X, train=False), [[-1, -0.5, 0.5, 1]]
    )


@pytest.mark.parametrize("model", ["mlp", "convnet", "resnet_v2", "skipinit"])
def test_a_model_around_a_fused_normaliser_has_no_activation_of_its_own(model):
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    made = MODELS.load(model)(norm=Clip(), classes=3, activation="relu")
    variables = made.init(jax.random.key(1), x, train=False)
    other = made.copy(activation="tanh")
    np.testing.assert_array_equal(
        made.apply(variables, x, train=False), other.apply(variables, x, train=False)
    )


def test_the_activation_after_an_addition_is_in_no_slot_and_stays():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    made = Resnet(norm=Clip(), classes=3, depth=8, width=4, activation="relu")
    variables = made.init(jax.random.key(1), x, train=False)
    other = made.copy(activation="identity")
    assert not np.allclose(
        made.apply(variables, x, train=False), other.apply(variables, x, train=False)
    )


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (Identity(), True),
        (BatchNorm(), False),
        (BatchNorm(use_bias=False), True),
        (LayerNorm(use_scale=False), False),
        (RMSNorm(), True),
        (RMSNorm(use_bias=True), False),
        (Affine(use_bias=False), True),
        (Clip(), True),
    ],
    ids=repr,
)
def test_a_layer_has_a_bias_where_its_normaliser_has_none(norm, expected):
    assert needs_bias(norm, 4) is expected
    model = MLP(norm=norm, classes=2, widths=(4,))
    params = model.init(jax.random.key(0), jnp.ones((3, 5)), train=False)["params"]
    assert ("bias" in params["Dense_0"]) is expected


@pytest.mark.parametrize(
    ("path", "role"),
    [
        (("Conv_0", "kernel"), "weight"),
        (("Conv_0", "bias"), "bias"),
        (("NormAct_0", "Norm_0", "norm", "scale"), "norm"),
        (("Norm_0", "norm", "bias"), "norm"),
        (("norm", "anything"), "norm"),
        (("Block_0", "Dense_0", "embedding"), "weight"),
        (("norm_free", "bias"), "bias"),
    ],
)
def test_the_role_of_a_parameter_is_read_off_its_path(path, role):
    assert parameter_role(tuple(map(DictKey, path))) == role
    # As in a module whose parameters are attributes: what the key is called does not matter.
    outer = (GetAttrKey("layers"), *map(DictKey, path))
    assert parameter_role(outer) == role


def test_any_state_moves_once_a_training_step_and_at_no_other_time():
    model = MLP(norm=Counter(), classes=2, widths=(4, 4))
    x = jnp.ones((3, 5))
    variables = model.init(jax.random.key(0), x, train=True)
    for _ in range(3):
        _, moved = model.apply(variables, x, train=True, mutable=[NORM_STATE])
        variables = {**variables, **moved}
        _, same = model.apply(variables, x, train=False, mutable=[NORM_STATE])
        jax.tree.map(np.testing.assert_array_equal, same, moved)
    assert [float(leaf) for leaf in jax.tree.leaves(moved)] == [3.0, 3.0]


def test_states_of_microbatches_are_pooled_at_every_slot_in_the_normalisers_own_way():
    """The groups have means 1 and 3 without spread; momentum is 0.5 from mean 0 and variance 1."""
    states = {
        "NormAct_0": {"Norm_0": {"norm": {"mean": jnp.array([[0.5], [1.5]]), "variance": half()}}},
        "Norm_1": {"norm": {"mean": jnp.array([[0.0], [0.0]]), "variance": half()}},
    }
    pooled = pool_norm_states(BatchNorm(momentum=0.5), states)
    first = pooled["NormAct_0"]["Norm_0"]["norm"]
    # The whole batch has mean 2 and variance 1: half of each, and half of what was before.
    assert (first["mean"].tolist(), first["variance"].tolist()) == ([1.0], [1.0])
    second = pooled["Norm_1"]["norm"]
    assert (second["mean"].tolist(), second["variance"].tolist()) == ([0.0], [0.5])


def half():
    return jnp.full((2, 1), 0.5)


def test_states_of_a_normaliser_without_a_way_of_its_own_are_averaged():
    states = {"Norm_0": {"norm": {"steps": jnp.array([2.0, 4.0])}}}
    assert float(pool_norm_states(Counter(), states)["Norm_0"]["norm"]["steps"]) == 3.0
    assert pool_norm_states(Identity(), {}) == {}
