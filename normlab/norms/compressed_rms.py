"""Compressed root-mean-square normalisation: layer normalisation of all channels but one."""

from dataclasses import dataclass, field

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, normaliser
from normlab.ops.affine import PerExample, require_eps, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import statistics_dtype
from normlab.ops.overflow import unless_overflowed
from normlab.sharding import on_any_mesh


@on_any_mesh
def compressed_rms_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Compute `x / sqrt((sum(x^2) + sum(x)^2) / (C + 1) + eps)` over each position's channels.

    Jiang et al. 2023 (CRMSNorm). A vector of mean zero has one channel that can be left out, as it
    is minus the sum of the others. The result is the layer normalisation of the whole vector,
    without that channel.

    Args:
        x: `(..., C)`, the vector of C + 1 channels without its last; any floating dtype, and so is
            the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        eps: added to the mean square.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        ShapeError: an argument's shape does not fit.

    >>> import jax.numpy as jnp
    >>> from normlab import layer_norm
    >>> [f"{value:.3f}" for value in layer_norm(jnp.array([1.0, 2.0, -3.0]))]
    ['0.463', '0.926', '-1.389']
    >>> [f"{value:.3f}" for value in compressed_rms_norm(jnp.array([1.0, 2.0]))]
    ['0.463', '0.926']
    """
    require_eps(eps)
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    count = jnp.full((*x.shape[:-1], 1), x.shape[-1], z.dtype)
    if mask is not None:
        count = fit_mask(mask, x).sum(axis=-1, keepdims=True, dtype=z.dtype)
    total, square = z.sum(axis=-1, keepdims=True), (z**2).sum(axis=-1, keepdims=True)
    mean_square = unless_overflowed(square + total**2) / (count + 1)
    return scale_and_shift(z * lax.rsqrt(mean_square + eps), x, scale, bias, mask)


@normaliser(
    paper="arXiv:2305.14858",
    invariant_to=("position scale",),
    group="example",
    after=("rms_norm",),
    aka=("CRMSNorm",),
    held_to="code",
)
@dataclass(frozen=True)
class CompressedRMSNorm(PerExample):
    """CRMSNorm: what layer normalisation is to vectors of mean zero that lack their last channel.

    A pre-norm network whose main branch has a mean of zero can drop one channel of it and compute
    the same (Jiang et al. 2023).

    Attributes:
        use_bias: off by default, as in the paper.

    >>> import jax.numpy as jnp
    >>> norm = CompressedRMSNorm()
    >>> params, state = norm.init(features=2)
    >>> y, state = norm.apply(params, state, jnp.array([[1.0, 2.0]]), train=True)
    >>> [f"{value:.3f}" for value in y[0]]
    ['0.463', '0.926']
    """

    use_bias: bool = field(default=False, kw_only=True)

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return compressed_rms_norm(x, scale, bias, eps=self.eps, mask=mask)
