"""SeeDNorm: root-mean-square normalisation whose scale depends on the input."""

from dataclasses import dataclass

import jax.numpy as jnp

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.group import require_divisor
from normlab.norms.rms import rms_norm
from normlab.ops.affine import Standardiser, per_channel, require_eps, scale_and_shift
from normlab.ops.masks import zero_masked
from normlab.ops.moments import statistics_dtype
from normlab.sharding import on_any_mesh


@on_any_mesh
def seed_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    alpha: Array | None = None,
    beta: Array | None = None,
    heads: int = 1,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Compute `(tanh(x . beta) * alpha + scale) * x / sqrt(mean(x^2) + eps) + bias`.

    Cai et al. 2025. The mean, and the product `x . beta`, are over each position's channels; with
    several heads the product is one for each equal part of the channels.

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero. The paper has none.
        alpha: `(C,)` or None for one.
        beta: `(C,)` or None for zero, which leaves root-mean-square normalisation.
        heads: a divisor of C.
        eps: added to the mean square.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        FieldError: `heads` does not divide C.
        ShapeError: an argument's shape does not fit.

    >>> import jax.numpy as jnp
    >>> seed_norm(jnp.array([[3.0, -3.0]]), beta=jnp.array([9.0, 0.0])).round(3).tolist()
    [[2.0, -2.0]]
    """
    require_eps(eps)
    require_divisor(heads, x.shape[-1], "heads")
    z = rms_norm(x.astype(statistics_dtype(x)), eps=eps, mask=mask)
    factor = jnp.ones_like(z) if scale is None else per_channel("scale", scale, z)
    if beta is not None:
        wide = zero_masked(x.astype(z.dtype), mask)
        products = (wide * per_channel("beta", beta, z)).reshape(
            *x.shape[:-1], heads, x.shape[-1] // heads
        )
        dynamic = jnp.tanh(products.sum(axis=-1, keepdims=True))
        dynamic = jnp.broadcast_to(dynamic, products.shape).reshape(x.shape)
        factor = factor + (dynamic if alpha is None else dynamic * per_channel("alpha", alpha, z))
    return scale_and_shift(z * factor, x, None, bias, mask)


@normaliser(
    paper="arXiv:2510.22777",
    group="example",
    after=("rms_norm",),
    aka=("SeeDNorm", "self-rescaled dynamic normalization"),
)
@dataclass(frozen=True, kw_only=True)
class SeedNorm(Standardiser):
    """SeeDNorm: a root-mean-square normalisation that rescales itself by what comes in.

    The scale of each channel is `tanh(x . beta) * alpha + scale`, so that the length of the input,
    which root-mean-square normalisation throws away, can come back. `beta` begins at zero and
    `alpha` and `scale` at one, as in the paper, so it begins as root-mean-square normalisation.

    Attributes:
        heads: into how many equal parts of the channels the product `x . beta` is divided
            (multi-head SeeDNorm); it must divide the channels of every layer.
        use_bias: off by default, as in the paper.

    >>> import jax.numpy as jnp
    >>> norm = SeedNorm()
    >>> params, state = norm.init(features=2)
    >>> y, state = norm.apply(params, state, jnp.array([[1.0, 7.0]]), train=True)
    >>> [f"{value:.2f}" for value in y[0]], sorted(params)
    (['0.20', '1.40'], ['alpha', 'beta', 'scale'])
    """

    heads: int = 1
    use_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.heads >= 1, "heads", self.heads, "a positive whole number")

    def init(self, features: int) -> tuple[Params, State]:
        require_divisor(self.heads, features, "heads")
        params, state = super().init(features)
        ones, zeros = jnp.ones((features,), jnp.float32), jnp.zeros((features,), jnp.float32)
        return {**params, "alpha": ones, "beta": zeros}, state

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return seed_norm(x, **params, heads=self.heads, eps=self.eps, mask=mask), state
