"""A small vision transformer, with a normaliser on its tokens and one on queries and keys."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from normlab.catalogue import NORMS
from normlab.core import Array, KernelTransform, Normaliser
from normlab.errors import require_channels_last, require_field
from normlab.models.scalars import Multiplier, MultiplierByHead
from normlab.models.slots import (
    ACTIVATIONS,
    ActivationName,
    Dtype,
    Norm,
    classify,
    dense,
    model,
    no_normaliser,
)
from normlab.norms.scale import scale_norm
from normlab.placements.contract import Gains, Map, TokenPlacement
from normlab.placements.pre import Pre
from normlab.sharding import by_example, on_any_mesh

reshaped = on_any_mesh(jnp.reshape, like=by_example)
"""`jnp.reshape` of an array that may be spread over a mesh by its first axis."""

QKNorm = Literal["none", "layer_norm", "rms_norm", "unit_length"]


@model(paper="arXiv:2010.11929; qk_norm: arXiv:2302.05442, arXiv:2010.04245")
class Vit(nn.Module):
    """A vision transformer with `x + attention(norm(x))`, `x + mlp(norm(x))` and a last norm.

    `placement` puts the normalisers elsewhere. The network follows Dosovitskiy et al. 2021 and is
    small enough for images of 16x16 to 32x32. The head reads a class token, as there, and not the
    mean over tokens. After a normaliser that removes the mean over tokens, such as instance
    normalisation, that mean would be the same for every image. The class token is only the learnt
    vector of its position.

    Normalisers see tokens `(N, T, C)`, where T counts the patches and the class token. No
    activation follows them. A normaliser that contains a non-linearity therefore adds one before
    the attention, the MLP and the head, and the MLP keeps its own.

    `qk_norm` chooses how the queries and keys of each head are normalised before their products:

    * `none`: not at all; the logits are `q . k / sqrt(d)`, where d is the features per head.
    * `layer_norm`, `rms_norm`: over the d features, with a learnt scale `(d,)` that heads share
      (Dehghani et al. 2023, for layer normalisation). At the start no logit exceeds `sqrt(d)`.
    * `unit_length`: both are divided by their length, and the logits are `g * q . k` with one
      learnt g that starts at `log2(T^2 - T)` (Henry et al. 2020, arXiv:2010.04245).

    Attributes:
        norm: the normaliser of every slot.
        classes: number of logits.
        kernel: the transform of every kernel but the head's, or None.
        patch: the side of a patch in pixels, a divisor of the image's sides.
        width: features of a token.
        depth: number of blocks.
        heads: number of heads of each attention, a divisor of `width`.
        mlp_ratio: hidden units of an MLP divided by `width`.
        qk_norm: the normalisation of queries and keys, see above.
        activation: the activation of the MLP.
        dtype: the dtype of activations; the softmax is always in float32.
        placement: where the normalisers stand (`normlab.placements`).

    >>> from normlab.norms import LayerNorm
    >>> vit, x = Vit(norm=LayerNorm(), classes=10, width=8, depth=1), jnp.ones((2, 16, 16, 3))
    >>> vit.apply(vit.init(jax.random.key(0), x, train=False), x, train=False).shape
    (2, 10)
    """

    norm: Normaliser
    classes: int
    kernel: KernelTransform | None = None
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 4
    qk_norm: QKNorm = "none"
    activation: ActivationName = "gelu"
    dtype: Dtype = "float32"
    placement: TokenPlacement = Pre()

    def __post_init__(self):
        for field in ("patch", "width", "depth", "heads", "mlp_ratio"):
            value = getattr(self, field)
            require_field(value >= 1, field, value, "a positive whole number")
        divides = self.width % self.heads == 0
        require_field(divides, "heads", self.heads, f"a divisor of width={self.width}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`.

        Raises:
            FieldError: the patches do not fill the image, or the placement does not fit.
        """
        self.placement.require(self.depth, self.qk_norm)
        at = [_Block(self, number, train) for number in range(1, self.depth + 1)]
        x = self.placement.start(self._embed(x.astype(self.dtype), train), at[0].norm)
        for block in at:
            x = self.placement.block(x, block)
        return classify(self.placement.end(x, at[-1].norm)[:, 0], self.classes)

    def _embed(self, x: Array, train: bool) -> Array:
        """Embed the class token and the patches, and add a learnt vector for each position."""
        x = self._linear(self.width, train)(patches(x, self.patch))
        x = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))
        places = self.param("embedding", nn.initializers.normal(0.02), x.shape[1:], jnp.float32)
        return x + places[None].astype(x.dtype)

    def _attention(self, x: Array, maps: "_Maps", gains: Gains, train: bool) -> Array:
        n, tokens, width = x.shape
        heads = (n, tokens, self.heads, width // self.heads)
        starts = (1.0, 1.0, gains.value)
        q, k, v = (reshaped(self._linear(width, train, gain)(x), heads) for gain in starts)
        if maps.qkv is not None:
            q, k, v = (maps.qkv(one) for one in (q, k, v))
        if self.qk_norm == "unit_length":
            q, k = scale_norm(q, 1.0), scale_norm(k, 1.0)
        elif self.qk_norm != "none":
            # Without a bias, as in Dehghani et al. 2023 and in flax's `normalize_qk`.
            normaliser = NORMS.load(self.qk_norm)(use_bias=False)
            q, k = (Norm(normaliser)(one, train=train) for one in (q, k))
        logits = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=jnp.float32)
        if self.qk_norm == "unit_length":
            logits = Multiplier(math.log2(max(tokens**2 - tokens, 2)))(logits)
        else:
            logits = logits / math.sqrt(heads[-1])
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        y = jnp.einsum("nhqk,nkhd->nqhd", weights, v)
        y = y if maps.heads is None else maps.heads(y)
        y = reshaped(y, x.shape)
        y = y if maps.inner is None else maps.inner(y)
        return self._linear(width, train, gains.output)(y)

    def _mlp(self, x: Array, inner: Map | None, gains: Gains, train: bool) -> Array:
        y = self._linear(self.mlp_ratio * self.width, train, gains.up)(x)
        y = ACTIVATIONS[self.activation](y)
        y = y if inner is None else inner(y)
        return self._linear(self.width, train, gains.down)(y)

    def _linear(self, features: int, train: bool, gain: float = 1.0) -> nn.Dense:
        # All have a bias, as in the paper, because no normaliser follows directly.
        start = nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")
        return dense(
            no_normaliser(), features, self.dtype, transform=self.kernel, train=train, start=start
        )


@partial(on_any_mesh, like=by_example)
def patches(images: Array, side: int) -> Array:
    """Cut images `(N, H, W, C)` into squares `(N, T, side * side * C)`, row by row.

    Raises:
        FieldError: the squares do not fill the image.
        UserError: the channels are first.
    """
    require_channels_last("images", images.shape)
    n, height, width, channels = images.shape
    fills = height % side == 0 and width % side == 0
    require_field(fills, "patch", side, f"a divisor of the image's sides {height} and {width}")
    x = images.reshape(n, height // side, side, width // side, side, channels).swapaxes(2, 3)
    return x.reshape(n, -1, side * side * channels)


@dataclass(frozen=True)
class _Maps:
    """What a placement applies within the attention; the fields are those of `TokenBlock`'s."""

    qkv: Map | None
    heads: Map | None
    inner: Map | None


@dataclass(frozen=True)
class _Block:
    """A block of the transformer as its placement sees it: a `TokenBlock`."""

    vit: Vit
    number: int
    train: bool

    @property
    def depth(self) -> int:
        return self.vit.depth

    @property
    def gains(self) -> Gains:
        return self.vit.placement.gains(self.depth)

    def norm(self, x: Array) -> Array:
        return Norm(self.vit.norm)(x, train=self.train)

    def attention(
        self,
        x: Array,
        *,
        qkv: Map | None = None,
        heads: Map | None = None,
        inner: Map | None = None,
    ) -> Array:
        return self.vit._attention(x, _Maps(qkv, heads, inner), self.gains, self.train)

    def mlp(self, x: Array, *, inner: Map | None = None) -> Array:
        return self.vit._mlp(x, inner, self.gains, self.train)

    def by_head(self, x: Array) -> Array:
        return MultiplierByHead()(x)
