"""Layer normalisation is folded into RMS normalisation where, and only where, outputs stay."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab import fold
from normlab.adapters.linen import Norm as Layer
from normlab.errors import UserError
from normlab.models import Vit
from normlab.norms import GroupNorm, LayerNorm, RMSNorm

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)


def drawn(model: Any, x: Any) -> Any:
    """Variables of a trained network: none of them is zero or one."""
    init = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0.3, 0.5, leaf.shape), leaf.dtype), init
    )


def vit(**settings: Any) -> Any:
    return Vit(norm=LayerNorm(), classes=5, patch=4, width=16, depth=2, heads=2, **settings)


def told(model):
    return lambda variables, x: model.apply(variables, x, train=False)


@pytest.mark.parametrize("zero_centred", [False, True])
def test_a_vision_transformer_becomes_one_of_rms_normalisation(zero_centred):
    model = vit().clone(norm=LayerNorm(eps=1e-4, zero_centred=zero_centred))
    variables = drawn(_Evaluating(model), X)
    variables = {"params": variables["params"]["model"]}
    folded = fold(model, variables, X, to="rms")
    assert not folded.left and len(folded.folded) == 5
    rms = RMSNorm(eps=1e-4, use_bias=True, zero_centred=zero_centred)
    assert folded.model == model.clone(norm=rms)
    wanted = told(model)(variables, X)
    np.testing.assert_allclose(told(folded.model)(folded.variables, X), wanted, atol=2e-5)
    assert jax.tree.structure(folded.variables) == jax.tree.structure(variables)
    assert folded.folded["Norm_0"] == "Dense_0, embedding"


class _Evaluating(nn.Module):
    model: nn.Module

    def __call__(self, x):
        return self.model(x, train=False)


def test_the_main_branch_has_a_mean_of_zero_afterwards():
    model = vit()
    variables = {"params": drawn(_Evaluating(model), X)["params"]["model"]}
    folded = fold(model, variables, X, to="rms")
    for name in ("Dense_0", "Dense_4", "Dense_6", "Dense_10", "Dense_12"):
        for leaf in folded.variables["params"][name].values():
            np.testing.assert_allclose(leaf.mean(axis=-1), 0, atol=1e-6)
    before, after = variables["params"]["Dense_1"], folded.variables["params"]["Dense_1"]
    np.testing.assert_array_equal(before["kernel"], after["kernel"])  # which none sums


def test_normalisers_of_queries_stay_and_are_told_why():
    model = vit(qk_norm="layer_norm")
    variables = {"params": drawn(_Evaluating(model), X)["params"]["model"]}
    folded = fold(model, variables, X, to="rms")
    assert len(folded.folded) == 5 and sorted(folded.left) == [
        "Norm_1",
        "Norm_2",
        "Norm_5",
        "Norm_6",
    ]
    assert all("reshape" in why for why in folded.left.values())
    wanted = told(model)(variables, X)
    np.testing.assert_allclose(folded.model.apply(folded.variables, X), wanted, atol=2e-5)


class Blocks(nn.Module):
    """Pre-norm blocks of Flax's layers; `reads` adds something to the sum's own logits."""

    norm: Callable[[], nn.Module] = nn.LayerNorm
    reads: Callable[[jax.Array], jax.Array] = jnp.zeros_like
    scales: bool = False

    @nn.compact
    def __call__(self, x):
        h = nn.Conv(8, (2, 2), strides=(2, 2))(x).reshape(x.shape[0], -1, 8)
        h = h + self.param("places", nn.initializers.normal(1.0), (h.shape[1], 8))[None]
        for block in range(2):
            y = nn.Dense(8)(nn.gelu(nn.Dense(16)(self.norm()(h))))
            if self.scales:
                y = y * self.param(f"gain{block}", nn.initializers.ones, (1, 1, 8))
            h = h + y
        return nn.Dense(3)(self.norm()(h)).mean(1) + self.reads(h)[:, 0, :3]


@pytest.mark.parametrize("norm", [nn.LayerNorm, lambda: Layer(LayerNorm())], ids=["flax", "ours"])
def test_a_linen_model_of_ones_own_is_folded(norm):
    model: Any = Blocks(norm)
    variables = drawn(model, X)
    folded = fold(model, variables, X, to="rms")
    assert len(folded.folded) == 3 and not folded.left
    assert "Conv_0" in next(iter(folded.folded.values())) and "places" in str(folded)
    wanted = model.apply(variables, X)
    np.testing.assert_allclose(folded.model.apply(folded.variables, X), wanted, atol=2e-5)
    other = 3 * X[:2] + 1
    found = folded.model.apply(folded.variables, other)
    np.testing.assert_allclose(found, model.apply(variables, other), atol=5e-5)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Blocks(reads=lambda h: h), "something else reads the mean"),
        (Blocks(reads=nn.relu), "something else reads the mean"),
        (Blocks(lambda: Layer(GroupNorm(groups=2))), "the model has none"),
    ],
    ids=["read as it is", "through an activation", "another normaliser"],
)
def test_what_would_change_is_left_with_the_reason(model, why):
    with pytest.raises(UserError, match=why):
        fold(model, drawn(model, X), X, to="rms")


def test_behind_a_branch_that_is_scaled_channel_by_channel_layer_normalisation_stays():
    """The first normaliser's input has none of it, and the others subtract the mean themselves."""
    model: Any = Blocks(scales=True)
    variables = drawn(model, X)
    folded = fold(model, variables, X, to="rms")
    assert list(folded.folded) == ["LayerNorm_0"] and len(folded.left) == 2
    assert all("goes through 'mul'" in why for why in folded.left.values())
    found, wanted = folded.model.apply(folded.variables, X), model.apply(variables, X)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_a_kernel_that_is_transformed_is_left():
    from normlab.weights import WeightNorm

    model = vit(kernel=WeightNorm())
    variables = model.init(jax.random.key(0), X, train=False)
    with pytest.raises(UserError, match="Dense_0 is transformed before it is used"):
        fold(model, variables, X, to="rms")


def test_mistakes_are_told():
    model = vit()
    variables = model.init(jax.random.key(0), X, train=False)
    with pytest.raises(UserError, match="to='rms' or none, found to='layer'"):
        fold(model, variables, X, to="layer")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="NNX"):
        fold(nnx.LayerNorm(3, rngs=nnx.Rngs(0)), X, to="rms")
