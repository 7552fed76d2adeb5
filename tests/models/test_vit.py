"""The vision transformer equals flax's and torch's attention; QK-norm and sizes are right."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import NORMS
from normlab.errors import FieldError
from normlab.models.slots import parameter_role
from normlab.models.vit import Vit
from normlab.norms import FilterResponseNorm, Identity, InstanceNorm, LayerNorm, RMSNorm
from normlab.weights.scaled_weight_standardisation import ScaledWeightStandardisation

SMALL = {"classes": 3, "width": 16, "depth": 2, "heads": 4, "mlp_ratio": 2}


def images(n=2, size=16, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, size, size, 3))


def stirred(made, x, seed=1, spread=0.2):
    """Make variables that differ from their initial values."""
    params = jax.jit(lambda: made.init(jax.random.key(seed), x, train=False))()["params"]
    noise = np.random.default_rng(seed)

    def stir(leaf):
        return leaf + jnp.asarray(spread * noise.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(stir, params)


class Linen(nn.Module):
    """The same network written with flax's own modules."""

    qk: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (4, 4), (4, 4), padding="VALID", name="patches")(x)
        x = x.reshape(x.shape[0], -1, 16)
        x = jnp.concatenate([self.param("token", nn.initializers.zeros, (2, 1, 16)), x], axis=1)
        x = x + self.param("places", nn.initializers.zeros, x.shape[1:])[None]
        for block in range(2):
            y = nn.LayerNorm(epsilon=1e-5, name=f"first_{block}")(x)
            attention = nn.MultiHeadDotProductAttention(
                num_heads=4, normalize_qk=self.qk, name=f"attention_{block}"
            )
            x = x + attention(y, y)
            y = nn.LayerNorm(epsilon=1e-5, name=f"second_{block}")(x)
            y = nn.gelu(nn.Dense(32, name=f"wide_{block}")(y))
            x = x + nn.Dense(16, name=f"narrow_{block}")(y)
        x = nn.LayerNorm(epsilon=1e-5, name="last")(x)[:, 0]
        return nn.Dense(3, name="head")(x)


def as_linen(params, qk):
    dense, norms = (lambda i: params[f"Dense_{i}"]), (lambda i: params[f"Norm_{i}"]["norm"])
    a_block = 4 if qk else 2

    def heads(layer):
        return {"kernel": layer["kernel"].reshape(16, 4, 4), "bias": layer["bias"].reshape(4, 4)}

    theirs = {
        "patches": {"kernel": dense(0)["kernel"].reshape(4, 4, 3, 16), "bias": dense(0)["bias"]},
        "token": jnp.zeros((2, 1, 16)),
        "places": params["embedding"],
        "last": norms(2 * a_block),
        "head": dense(13),
    }
    for block in range(2):
        q, k, v, out, wide, narrow = (dense(1 + 6 * block + i) for i in range(6))
        attention = {
            name: heads(one) for name, one in zip(("query", "key", "value"), (q, k, v), strict=True)
        }
        attention["out"] = {"kernel": out["kernel"].reshape(4, 4, 16), "bias": out["bias"]}
        first = a_block * block
        if qk:
            attention |= {"query_ln": norms(first + 1), "key_ln": norms(first + 2)}
        theirs |= {
            f"attention_{block}": attention,
            f"first_{block}": norms(first),
            f"second_{block}": norms(first + a_block - 1),
            f"wide_{block}": wide,
            f"narrow_{block}": narrow,
        }
    return theirs


@pytest.mark.parametrize("qk_norm", ["none", "layer_norm"])
def test_equals_flax_attention_and_modules_with_the_same_weights(qk_norm):
    x = images()
    ours = Vit(norm=LayerNorm(), qk_norm=qk_norm, **SMALL)
    params = stirred(ours, x)
    theirs = Linen(qk=qk_norm != "none").bind({"params": as_linen(params, qk_norm != "none")})
    # flax takes 1e-6 for the eps of its QK-norm and ours is 1e-5: no more than this here.
    close = 1e-5 if qk_norm == "none" else 1e-4
    np.testing.assert_allclose(
        ours.apply({"params": params}, x, train=True), theirs(x), rtol=close, atol=close
    )


def test_a_block_of_attention_equals_torch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = images()
    made = Vit(norm=Identity(), **{**SMALL, "depth": 1})
    params = stirred(made, x)
    # Nothing but tokens + attention(tokens) is left with the second layer of the MLP at zero.
    params["Dense_6"] = jax.tree.map(jnp.zeros_like, params["Dense_6"])

    def tensor(values):
        return torch.tensor(np.asarray(values))

    attention = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    kernels = [tensor(params[f"Dense_{i}"]["kernel"]).T for i in (1, 2, 3)]
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat(kernels))
        attention.in_proj_bias.copy_(
            torch.cat([tensor(params[f"Dense_{i}"]["bias"]) for i in (1, 2, 3)])
        )
        attention.out_proj.weight.copy_(tensor(params["Dense_4"]["kernel"]).T)
        attention.out_proj.bias.copy_(tensor(params["Dense_4"]["bias"]))
        patches = tensor(x).unfold(1, 4, 4).unfold(2, 4, 4).permute(0, 1, 2, 4, 5, 3)
        tokens = patches.reshape(2, 16, 48) @ tensor(params["Dense_0"]["kernel"])
        tokens = tokens + tensor(params["Dense_0"]["bias"])
        tokens = functional.pad(tokens, (0, 0, 1, 0)) + tensor(params["embedding"])
        tokens = tokens + attention(tokens, tokens, tokens)[0]
        head = params["Dense_7"]
        expected = tokens[:, 0] @ tensor(head["kernel"]) + tensor(head["bias"])
    found = made.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


def largest_logit(qk_norm, factor):
    """Compute the largest logit of the attention with query and key kernels times `factor`."""
    x = images()
    made = Vit(norm=LayerNorm(), qk_norm=qk_norm, **{**SMALL, "depth": 1})
    params = made.init(jax.random.key(0), x, train=False)["params"]
    for layer in ("Dense_1", "Dense_2"):
        params[layer] = jax.tree.map(lambda leaf: factor * leaf, params[layer])
    seen, softmax = [], jax.nn.softmax
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.nn, "softmax", lambda z, axis: (seen.append(z), softmax(z, axis))[1])
        made.apply({"params": params}, x, train=False)
    assert len(seen) == 1 and seen[0].dtype == jnp.float32
    return float(jnp.abs(seen[0]).max())


@pytest.mark.parametrize(
    # Vectors of 4 features and root mean square 1 have a product of at most 4, over sqrt(4);
    # 16 patches and the class token: log2(17^2 - 17).
    ("qk_norm", "bound"),
    [("layer_norm", 2.0), ("rms_norm", 2.0), ("unit_length", np.log2(272))],
)
def test_qk_norm_bounds_the_logits_however_large_the_weights(qk_norm, bound):
    for factor in (1.0, 1e3):
        assert largest_logit(qk_norm, factor) <= bound * (1 + 1e-5)
    assert largest_logit("none", 1e3) > 1e3 * largest_logit("none", 1.0)


@pytest.mark.parametrize(
    ("qk_norm", "more"), [("none", 0), ("layer_norm", 8), ("rms_norm", 8), ("unit_length", 1)]
)
def test_qk_norm_adds_a_scale_of_the_heads_features_with_the_role_of_a_norm(qk_norm, more):
    def params(qk_norm):
        made = Vit(norm=Identity(), qk_norm=qk_norm, **{**SMALL, "depth": 1})
        return jax.eval_shape(lambda: made.init(jax.random.key(0), images(), train=False))["params"]

    found = jax.tree_util.tree_leaves_with_path(params(qk_norm))
    own = [leaf.size for path, leaf in found if parameter_role(path) == "norm"]
    assert sum(own) == more
    assert sum(leaf.size for _, leaf in found) - more == sum(
        map(np.size, jax.tree.leaves(params("none")))
    )


def test_vit_base_has_the_published_size_less_the_vector_of_its_class_token():
    """ViT-B/16 at 224x224 with 1000 classes has 86,567,656 parameters; 768 are redundant here."""
    made = Vit(norm=LayerNorm(), classes=1000, patch=16, width=768, depth=12, heads=12)
    shapes = jax.eval_shape(lambda: made.init(jax.random.key(0), images(1, 224), train=False))
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    c, tokens = 768, 197
    block = 4 * (c * c + c) + (4 * c * c + 4 * c) + (4 * c * c + c) + 2 * 2 * c
    by_hand = (16 * 16 * 3 * c + c) + tokens * c + 12 * block + 2 * c + (1000 * c + 1000)
    assert found == by_hand == 86_567_656 - 768


def test_a_patch_is_a_square_of_the_image_and_tokens_go_row_by_row():
    """A kernel takes the mean of a patch's red channel, which each position's own unit shows."""
    made = Vit(norm=Identity(), classes=1, patch=2, width=1, depth=1, heads=1)
    x = jnp.arange(48.0).reshape(1, 4, 4, 3)
    params = made.init(jax.random.key(0), x, train=False)["params"]
    params = jax.tree.map(jnp.zeros_like, params)
    params["Dense_0"]["kernel"] = jnp.tile(jnp.array([0.25, 0, 0]), 4)[:, None]
    seen = []
    with nn.intercept_methods(lambda f, a, k, c: (seen.append(a), f(*a, **k))[1]):
        made.apply({"params": params}, x, train=False)
    red = np.arange(48.0).reshape(4, 4, 3)[..., 0]
    expected = [red[i : i + 2, j : j + 2].mean() for i in (0, 2) for j in (0, 2)]
    tokens = next(a[0] for a in seen if a and getattr(a[0], "shape", ()) == (1, 5, 1))
    np.testing.assert_allclose(tokens[0, :, 0], [0, *expected])


@pytest.mark.parametrize("qk_norm", ["none", "layer_norm", "rms_norm", "unit_length"])
def test_gradients_are_finite_in_bfloat16_with_and_without_qk_norm(qk_norm):
    made = Vit(norm=RMSNorm(), qk_norm=qk_norm, dtype="bfloat16", **{**SMALL, "depth": 1})
    x = images() * 100
    params = stirred(made, x)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: (made.apply({"params": p}, x, train=True) ** 2).mean())(params)

    for leaf in jax.tree.leaves(gradient(params)):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()


@pytest.mark.parametrize("qk_norm", ["layer_norm", "rms_norm", "unit_length"])
def test_qk_norm_has_a_gradient_where_queries_and_keys_are_zero(qk_norm):
    made = Vit(norm=Identity(), qk_norm=qk_norm, **{**SMALL, "depth": 1})
    params = stirred(made, images())
    for layer in ("Dense_1", "Dense_2"):
        params[layer] = jax.tree.map(jnp.zeros_like, params[layer])
    grads = jax.jit(jax.grad(lambda p: made.apply({"params": p}, images(), train=True).sum()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads(params)))


def test_a_fused_normaliser_leaves_the_mlp_its_activation():
    x = images()
    gelu = Vit(norm=FilterResponseNorm(), **SMALL)
    params = stirred(gelu, x)
    none = gelu.copy(activation="identity")
    found = [m.apply({"params": params}, x, train=True) for m in (gelu, none)]
    assert not np.allclose(*found)


def test_every_linear_layer_but_the_head_passes_through_the_kernel_slot():
    made = Vit(norm=LayerNorm(), kernel=ScaledWeightStandardisation(), **SMALL)
    shapes = jax.eval_shape(lambda: made.init(jax.random.key(0), images(), train=False))["params"]
    linear = [name for name in shapes if name.startswith("Dense")]
    assert [name for name in linear if "Kernel_0" not in shapes[name]] == ["Dense_13"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"heads": 3}, "heads"),
        ({"patch": 0}, "patch"),
        ({"depth": 0}, "depth"),
        ({"patch": 5}, "patch"),
    ],
)
def test_a_field_that_cannot_work_is_named(fields, field):
    with pytest.raises(FieldError, match=field) as caught:
        Vit(norm=Identity(), **{**SMALL, **fields}).init(jax.random.key(0), images(), train=False)
    assert caught.value.field == field


@pytest.mark.parametrize("norm", NORMS.entries())
def test_every_normaliser_of_the_catalogue_holds_tokens(norm):
    made = Vit(norm=NORMS.load(norm)(), **{**SMALL, "depth": 1})
    shapes = jax.eval_shape(
        lambda x: made.init_with_output(jax.random.key(0), x, train=True), images()
    )
    assert shapes[0].shape == (2, 3)


def test_a_normaliser_without_a_mean_over_tokens_leaves_the_head_something():
    made, x = Vit(norm=InstanceNorm(), **{**SMALL, "depth": 1}), images()
    logits = made.apply({"params": stirred(made, x)}, x, train=False)
    assert float(jnp.abs(logits[0] - logits[1]).max()) > 0.01
