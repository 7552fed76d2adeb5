"""nGPT for images: a vision transformer in which everything is a point on a sphere."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from normlab.core import Array, Normaliser
from normlab.errors import require_field
from normlab.models.scalars import require_no_normaliser
from normlab.models.slots import ACTIVATIONS, ActivationName, Dtype, model
from normlab.models.sphere import Factors, FromSphere, PointsOnSphere, ToSphere, unit
from normlab.models.vit import patches, reshaped


@model(paper="arXiv:2410.01131", held_to="code")
class NGPT(nn.Module):
    """The normalised transformer (nGPT) as a vision transformer, without any normaliser.

    Every token is a unit vector, and so is each row or column of the weights along the width
    (Loshchilov et al. 2024). A branch proposes a point on the sphere, and the token goes a part of
    the way to it: `h = unit(h + alpha * (unit(f(h)) - h))`, with a learnt alpha for each channel
    (its "eigen learning rate"). All products are cosines, so learnt factors restore their scale:
    s_qk of queries and keys, s_u and s_v within the MLP, and s_z of the logits. The logits of the
    attention are multiplied by `sqrt(d)`, where d is the features per head, and not divided. The
    MLP is gated: `u * silu(v)`. There are no biases.

    The weights stay on the sphere by `train: {project: sphere}`, which this model needs. `norm`
    must be `identity`, there is no weight decay, and the paper needs no warm-up. The equations are
    held to the authors' code (github.com/NVIDIA/ngpt).

    What images need is normlab's own. Patches are divided by the root of their number of values,
    and unit vectors of their positions are added to them. The sum is brought to the sphere. The
    paper's text has rotations instead. The head reads a class token, as in `Vit`.

    Attributes:
        norm: must be `Identity()`.
        classes: number of logits.
        patch: the side of a patch in pixels, a divisor of the image's sides.
        width: features of a token.
        depth: number of blocks.
        heads: number of heads of each attention, a divisor of `width`.
        mlp_ratio: hidden units of an MLP divided by `width`; each has two kernels into it.
        activation: the activation of the MLP's gate.
        dtype: the dtype of activations; the softmax is always in float32.
        alpha: what the parts of the way begin at, of the order of 1 / depth.
        kept: what the parameters of alpha, s_qk and s_z begin at; null for `1 / sqrt(width)`. Their
            learning rates are larger by their own beginning over this.

    >>> from normlab.norms import Identity
    >>> made = NGPT(norm=Identity(), classes=10, width=8, depth=1)
    >>> x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    >>> logits = made.apply(made.init(jax.random.key(1), x, train=False), x, train=False)
    >>> logits.shape, bool(jnp.abs(logits).max() <= 1)  # they begin as cosines
    ((2, 10), True)
    """

    norm: Normaliser
    classes: int
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 4
    activation: ActivationName = "silu"
    dtype: Dtype = "float32"
    alpha: float = 0.05
    kept: float | None = None

    def __post_init__(self):
        for field in ("patch", "width", "depth", "heads", "mlp_ratio"):
            value = getattr(self, field)
            require_field(value >= 1, field, value, "a positive whole number")
        divides = self.width % self.heads == 0
        require_field(divides, "heads", self.heads, f"a divisor of width={self.width}")
        require_field(self.alpha > 0, "alpha", self.alpha, "a positive number")
        positive = self.kept is None or self.kept > 0
        require_field(positive, "kept", self.kept, "a positive number or null")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`.

        Raises:
            FieldError: the patches do not fill the image.
            UserError: `norm` is not `Identity()`.
        """
        require_no_normaliser(self.norm, "ngpt")
        h = self._embed(x.astype(self.dtype))
        for _ in range(self.depth):
            h = self._step(h, self._attention(h))
            h = self._step(h, self._mlp(h))
        cosines = FromSphere(self.classes)(h[:, 0].astype(jnp.float32))
        return self._factors(self.classes)[None] * cosines

    def _embed(self, x: Array) -> Array:
        pieces = patches(x, self.patch)
        tokens = ToSphere(self.width)(pieces / math.sqrt(pieces.shape[-1]))
        tokens = jnp.pad(tokens, ((0, 0), (1, 0), (0, 0)))
        places = PointsOnSphere(tokens.shape[1], self.width)()
        return unit(tokens + places[None].astype(x.dtype))

    def _step(self, h: Array, proposed: Array) -> Array:
        part = jnp.abs(self._factors(self.width, self.alpha)).astype(h.dtype)[None, None]
        return unit(h + part * (unit(proposed) - h))

    def _attention(self, h: Array) -> Array:
        n, tokens, width = h.shape
        heads = (n, tokens, self.heads, width // self.heads)
        q, k, v = (reshaped(FromSphere(width)(h), heads) for _ in range(3))
        s = self._factors(width).reshape(1, 1, *heads[2:]).astype(h.dtype)
        q, k = s * unit(q), s * unit(k)
        logits = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(math.sqrt(heads[-1]) * logits, axis=-1).astype(h.dtype)
        y = jnp.einsum("nhqk,nkhd->nqhd", weights, v)
        return ToSphere(width)(reshaped(y, h.shape))

    def _mlp(self, h: Array) -> Array:
        hidden = self.mlp_ratio * self.width
        u, v = (FromSphere(hidden)(h) for _ in range(2))
        s_u, s_v = (Factors(hidden, 1.0, 1.0)().astype(h.dtype)[None, None] for _ in range(2))
        # A product with a unit vector has a variance of 1 / width, too little for the gate.
        gate = ACTIVATIONS[self.activation](s_v * v * math.sqrt(self.width))
        return ToSphere(self.width)(s_u * u * gate)

    def _factors(self, count: int, start: float = 1.0) -> Array:
        kept = 1 / math.sqrt(self.width) if self.kept is None else self.kept
        return Factors(count, start, kept)()
