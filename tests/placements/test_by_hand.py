"""Every placement computes what a network in float64, written out from its paper, computes."""

import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import PLACEMENTS
from normlab.errors import FieldError, UserError
from normlab.models import Resnet, ResnetV2, Skipinit, Vit
from normlab.models.slots import parameter_role
from normlab.norms import BatchNorm, EvoNormB0, LayerNorm, RMSNorm
from normlab.placements import V1, V2, DeepNorm, HybridNorm, MixLN, Post, Pre, V1ActNorm, V2ActNorm
from normlab.placements.contract import ImagePlacement, TokenPlacement

EPS = 1e-5
DEPTH, WIDTH, HEADS = 3, 8, 2


def stirred(tree, seed=0):
    noise = np.random.default_rng(seed)

    def stir(leaf):
        return leaf + jnp.asarray(0.3 * noise.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(stir, tree)


def placed(kind):
    """Return every placement of a kind, with settings that fit three blocks."""
    found = {name: entry.load() for name, entry in PLACEMENTS.entries().items()}
    settings = {"mix_ln": {"share": 0.5}, "keel": {"alpha": 2.5}}
    return {
        name: cls(**settings.get(name, {})) for name, cls in found.items() if issubclass(cls, kind)
    }


# A transformer, in the order in which the network makes its layers.


class Weights:
    """Hands out the parameters of a network in float64, each layer of a kind in turn."""

    def __init__(self, params):
        self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        self.count = {}

    def next(self, kind):
        number = self.count.get(kind, 0)
        self.count[kind] = number + 1
        return self.params[f"{kind}_{number}"]

    def dense(self, x):
        layer = self.next("Dense")
        return x @ layer["kernel"] + layer["bias"]

    def norm(self, x):
        layer = self.next("Norm")["norm"]
        centred = x - x.mean(-1, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
        return y * layer["scale"] + layer["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(w, x, qkv=False, scaled=False, inner=False):
    n, t, c = x.shape
    q, k, v = (w.dense(x).reshape(n, t, HEADS, c // HEADS) for _ in range(3))
    if qkv:
        q, k, v = w.norm(q), w.norm(k), w.norm(v)
    y = np.zeros_like(q)
    for head in range(HEADS):
        logits = q[:, :, head] @ k[:, :, head].swapaxes(1, 2) / math.sqrt(c // HEADS)
        share = np.exp(logits - logits.max(-1, keepdims=True))
        y[:, :, head] = share / share.sum(-1, keepdims=True) @ v[:, :, head]
    if scaled:
        y = y * w.next("MultiplierByHead")["norm"]["scale"][:, None]
    y = y.reshape(x.shape)
    return w.dense(w.norm(y) if inner else y)


def mlp(w, x, inner=False):
    y = gelu(w.dense(x))
    return w.dense(w.norm(y) if inner else y)


def pre(w, x):
    for _ in range(DEPTH):
        x = x + attention(w, w.norm(x))
        x = x + mlp(w, w.norm(x))
    return w.norm(x)


def post(w, x):
    for _ in range(DEPTH):
        x = w.norm(x + attention(w, x))
        x = w.norm(x + mlp(w, x))
    return x


def sandwich(w, x):
    for _ in range(DEPTH):
        before = w.norm(x)
        x = x + w.norm(attention(w, before))
        before = w.norm(x)
        x = x + w.norm(mlp(w, before))
    return w.norm(x)


def peri(w, x):
    return sandwich(w, w.norm(x))


def sub_ln(w, x):
    for _ in range(DEPTH):
        x = x + attention(w, w.norm(x), inner=True)
        x = x + mlp(w, w.norm(x), inner=True)
    return w.norm(x)


def norm_former(w, x):
    for _ in range(DEPTH):
        before = w.norm(x)
        x = x + w.norm(attention(w, before, scaled=True))
        x = x + mlp(w, w.norm(x), inner=True)
    return w.norm(x)


def hybrid_norm(w, x):
    for _ in range(DEPTH):
        y = w.norm(x + attention(w, x, qkv=True))
        x = y + mlp(w, y)
    return w.norm(x)


def hybrid_norm_star(w, x):
    x = x + attention(w, w.norm(x), qkv=True)
    x = x + mlp(w, w.norm(x))
    for _ in range(DEPTH - 1):
        y = w.norm(x + attention(w, x, qkv=True))
        x = y + mlp(w, y)
    return w.norm(x)


def mix_ln(w, x):
    """Half of three blocks, rounded down, is one block of post-norm."""
    x = w.norm(x + attention(w, x))
    x = w.norm(x + mlp(w, x))
    for _ in range(2):
        x = x + attention(w, w.norm(x))
        x = x + mlp(w, w.norm(x))
    return w.norm(x)


def layer_norm_scaling(w, x):
    for number in (1, 2, 3):
        x = x + attention(w, w.norm(x) / number**0.5)
        x = x + mlp(w, w.norm(x) / number**0.5)
    return w.norm(x)


def deep_norm(w, x):
    alpha = 1.5650845800732873  # the fourth root of 6
    for _ in range(DEPTH):
        x = w.norm(alpha * x + attention(w, x))
        x = w.norm(alpha * x + mlp(w, x))
    return x


def span_norm(w, x):
    for block in range(DEPTH):
        seen = w.norm(x) if block == 0 else x
        y = w.norm(x + attention(w, seen))
        x = w.norm(x + mlp(w, y))
    return x


def keel(w, x):
    for _ in range(DEPTH):
        before = w.norm(x)
        x = w.norm(2.5 * x + attention(w, before))
        before = w.norm(x)
        x = w.norm(2.5 * x + mlp(w, before))
    return x


BY_HAND = {
    f.__name__: f
    for f in (pre, post, sandwich, peri, sub_ln, norm_former, hybrid_norm, hybrid_norm_star,
              mix_ln, layer_norm_scaling, deep_norm, span_norm, keel)
}  # fmt: skip


def test_every_placement_has_a_network_by_hand():
    assert set(BY_HAND) == set(placed(TokenPlacement))
    assert set(IMAGES_BY_HAND) == set(placed(ImagePlacement))


def vit(placement, norm=None, depth=DEPTH, **settings):
    return Vit(
        norm=norm or LayerNorm(), classes=4, patch=4, width=WIDTH, depth=depth, heads=HEADS,
        mlp_ratio=2, placement=placement, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_a_transformer_is_that_of_the_paper(name):
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    made = vit(placed(TokenPlacement)[name])
    params = stirred(made.init(jax.random.key(0), x, train=False)["params"])
    w = Weights(params)
    patches = np.float64(x).reshape(2, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 48)
    tokens = np.concatenate([np.zeros((2, 1, WIDTH)), w.dense(patches)], axis=1)
    features = BY_HAND[name](w, tokens + w.params["embedding"])
    expected = w.dense(features[:, 0])
    assert sum(w.count.values()) == len(params) - 1, "all layers are used but the embedding"
    found = made.apply({"params": params}, x, train=True)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


# Initial kernels: those of pre-norm with the same seed, times the factors of the papers.


@pytest.mark.parametrize(
    ("name", "depth", "factors"),
    [
        # DeepNet, table of section 4: an encoder of N layers has beta = (8N)^(-1/4).
        ("deep_norm", 2, {"value": 0.5, "output": 0.5, "up": 0.5, "down": 0.5}),
        # Magneto, figure 2: an encoder has gamma = sqrt(log 2N); log 4 = 1.3863.
        ("sub_ln", 2, dict.fromkeys(("value", "output", "up", "down"), 1.1774100225)),
        ("span_norm", 4, {"output": 0.5, "down": 0.5}),
        ("keel", 2, {}),
        ("hybrid_norm", 2, {}),
    ],
)
def test_initial_kernels_have_the_factors_of_the_paper(name, depth, factors):
    x = jnp.ones((1, 8, 8, 3))
    start = vit(Pre(), depth=depth).init(jax.random.key(0), x, train=False)["params"]
    made = vit(placed(TokenPlacement)[name], depth=depth)
    params = made.init(jax.random.key(0), x, train=False)["params"]
    layers = ("query", "key", "value", "output", "up", "down")
    for number in range(6 * depth):
        one, other = (p[f"Dense_{1 + number}"]["kernel"] for p in (params, start))
        np.testing.assert_allclose(one, factors.get(layers[number % 6], 1) * other, rtol=1e-6)
    np.testing.assert_array_equal(params["Dense_0"]["kernel"], start["Dense_0"]["kernel"])


def test_deep_norm_has_the_factors_that_the_authors_print():
    # DeepNet, section 4.2: (2N)^(1/4) and (8N)^(-1/4) at N = 18 layers of an encoder.
    assert DeepNorm().gains(18).up == pytest.approx(0.28868, abs=1e-5)
    assert pytest.approx(2.44949, abs=1e-5) == (2 * 18) ** 0.25


def test_numbers_of_heads_have_the_role_of_a_normaliser_and_start_at_one():
    made = vit(placed(TokenPlacement)["norm_former"])
    params = made.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)["params"]
    np.testing.assert_array_equal(params["MultiplierByHead_0"]["norm"]["scale"], np.ones(HEADS))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    roles = [parameter_role(path) for path, _ in leaves if path[0].key == "MultiplierByHead_0"]
    assert roles == ["norm"]


def test_keel_weighs_the_shortcut_by_the_number_of_branches():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    kind = type(placed(TokenPlacement)["keel"])
    made, told = vit(kind()), vit(kind(alpha=6.0))
    params = stirred(made.init(jax.random.key(0), x, train=False)["params"])
    found = [one.apply({"params": params}, x, train=True) for one in (made, told)]
    np.testing.assert_array_equal(*found)


def test_a_placement_takes_any_normaliser_and_bfloat16():
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    for norm in (RMSNorm(), BatchNorm()):
        made = vit(Post(), norm=norm, dtype="bfloat16")
        variables = made.init(jax.random.key(0), x, train=False)
        y, _ = made.apply(variables, x, train=True, mutable=["norm_state"])
        assert y.dtype == jnp.float32 and bool(jnp.isfinite(y).all())


def test_what_does_not_fit_is_refused_with_what_is_allowed():
    x = jnp.ones((1, 8, 8, 3))
    with pytest.raises(FieldError, match=r"share must be at least 0\.5, so that one of 2 blocks"):
        vit(MixLN(), depth=2).init(jax.random.key(0), x, train=False)
    with pytest.raises(FieldError, match="qk_norm must be none"):
        vit(HybridNorm(), qk_norm="rms_norm").init(jax.random.key(0), x, train=False)
    for kind in (V1ActNorm(), V2ActNorm()):
        made = Resnet(norm=EvoNormB0(), classes=2, depth=8, placement=kind)
        with pytest.raises(UserError, match="contains its activation"):
            made.init(jax.random.key(0), x, train=False)
    with pytest.raises(FieldError, match="share must be above 0"):
        MixLN(share=0)


def test_a_third_of_nine_blocks_is_three():
    assert [MixLN(share=s)._posts(n) for s, n in ((1 / 3, 9), (0.3, 10), (0.7, 10))] == [3, 3, 7]


# Residual networks of convolutions, with batch normalisation.


class Images(Weights):
    def __init__(self, params, projects):
        super().__init__(params)
        self.projects = projects

    def conv(self, x, stride=1):
        """Correlate with the next kernel, padded to keep the size."""
        kernel = self.next("Conv")["kernel"]
        size, (h, w) = kernel.shape[0], x.shape[1:3]
        pad = size // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        y = sum(x[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(size) for j in range(size))
        return y[:, ::stride, ::stride]

    def standardised(self, x, layer):
        centred = x - x.mean((0, 1, 2))
        y = centred / np.sqrt((centred**2).mean((0, 1, 2)) + EPS)
        return y * layer["scale"] + layer["bias"]

    def norm(self, x):
        return self.standardised(x, self.next("Norm")["norm"])

    def norm_relu(self, x):
        return np.maximum(self.standardised(x, self.next("NormAct")["Norm_0"]["norm"]), 0)

    def shortcut(self, x, to, normed=False):
        features, stride = to
        if features == x.shape[-1]:
            return x
        if self.projects:
            y = self.conv(x, stride)
            return self.norm(y) if normed else y
        grown = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2, features))
        grown[..., : x.shape[-1]] = x[:, ::2, ::2]
        return grown


BLOCKS = [(4, 1), (8, 2), (16, 2)]


def relu(x):
    return np.maximum(x, 0)


def v1(w, x):
    x = w.norm_relu(x)
    for to in BLOCKS:
        y = w.norm(w.conv(w.norm_relu(w.conv(x, to[1]))))
        x = relu(w.shortcut(x, to, normed=True) + y)
    return x


def v2(w, x):
    for to in BLOCKS:
        y = w.norm_relu(x)
        kept = w.shortcut(y, to) if to[1] > 1 else x
        x = kept + w.conv(w.norm_relu(w.conv(y, to[1])))
    return w.norm_relu(x)


def after_addition(w, x):
    x = w.norm_relu(x)
    for to in BLOCKS:
        y = w.conv(w.norm_relu(w.conv(x, to[1])))
        x = w.norm_relu(w.shortcut(x, to) + y)
    return x


def branch(w, x):
    for to in BLOCKS:
        y = w.conv(w.norm_relu(w.conv(w.norm_relu(x), to[1])))
        x = w.shortcut(x, to) + y
    return relu(x)


def v1_act_norm(w, x):
    x = w.norm(relu(x))
    for to in BLOCKS:
        y = w.norm(relu(w.conv(x, to[1])))
        y = w.norm(w.conv(y))
        x = relu(w.shortcut(x, to, normed=True) + y)
    return x


def v2_act_norm(w, x):
    for to in BLOCKS:
        y = w.norm(relu(x))
        kept = w.shortcut(y, to) if to[1] > 1 else x
        x = kept + w.conv(w.norm(relu(w.conv(y, to[1]))))
    return w.norm(relu(x))


IMAGES_BY_HAND = {f.__name__: f for f in (v1, v2, after_addition, branch, v1_act_norm, v2_act_norm)}


@pytest.mark.parametrize("network", [Resnet, ResnetV2])
@pytest.mark.parametrize("name", IMAGES_BY_HAND)
def test_a_residual_network_is_that_of_the_paper(name, network):
    x = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype(np.float32)
    placement = placed(ImagePlacement)[name]
    made = network(norm=BatchNorm(), classes=4, depth=8, width=4, placement=placement)
    variables = jax.jit(lambda: made.init(jax.random.key(0), x, train=False))()
    params = stirred(variables["params"])
    w = Images(params, projects=network is ResnetV2)
    features = IMAGES_BY_HAND[name](w, w.conv(np.float64(x)))
    expected = w.dense(features.mean((1, 2)))
    assert sum(w.count.values()) == len(params), "all layers are used"
    found, _ = made.apply({**variables, "params": params}, x, train=True, mutable=["norm_state"])
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_skipinit_is_pre_activation_and_nothing_else():
    assert typing.get_type_hints(Skipinit)["placement"] is V2
    assert not issubclass(V1, V2)
