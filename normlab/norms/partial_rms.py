"""Partial root-mean-square normalisation: the mean square is that of the first channels alone."""

import math
from dataclasses import dataclass, field

from jax import lax

from normlab.core import Array, normaliser
from normlab.errors import require_field
from normlab.ops.affine import PerExample, require_eps, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import Sharing, statistics_dtype, subtract_mean
from normlab.sharding import on_any_mesh


@on_any_mesh
def partial_rms_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    fraction: float = 0.0625,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Compute `x / sqrt(mean(x[:k]^2) + eps)`, where k is `fraction` of the channels, rounded up.

    Zhang & Sennrich 2019, section 4 (pRMSNorm).

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        fraction: in (0, 1]; 1 is `rms_norm`. The paper's is 6.25%.
        eps: added to the mean square.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        FieldError: the fraction is not in (0, 1].
        ShapeError: an argument's shape does not fit.

    >>> import jax.numpy as jnp
    >>> [f"{value:.2f}" for value in partial_rms_norm(jnp.array([[2.0, 6.0]]), fraction=0.5)[0]]
    ['1.00', '3.00']
    """
    require_eps(eps)
    require_fraction(fraction)
    k, last = math.ceil(fraction * x.shape[-1]), x.ndim - 1
    first = x[..., :k]
    keep = None if mask is None else fit_mask(mask, x)[..., :k]
    _, found = subtract_mean(first, Sharing((last,)), mask=keep, about_zero=True)
    z = zero_masked(x.astype(statistics_dtype(x)), mask) * lax.rsqrt(found.variance + eps)
    return scale_and_shift(z, x, scale, bias, mask)


def require_fraction(fraction: float) -> None:
    """Raise `FieldError` unless it is a part of the channels that is not empty."""
    require_field(0 < fraction <= 1, "fraction", fraction, "above 0 and at most 1")


@normaliser(
    paper="arXiv:1910.07467, section 4",
    invariant_to=("position scale",),
    group="example",
    after=("rms_norm",),
    aka=("pRMSNorm",),
)
@dataclass(frozen=True)
class PartialRMSNorm(PerExample):
    """pRMSNorm: division by the root mean square of the first few channels of each position.

    Attributes:
        fraction: of the channels that the mean square is taken of, rounded up to a whole number.
        use_bias: off by default, as in the paper.

    >>> import jax.numpy as jnp
    >>> norm = PartialRMSNorm(fraction=0.5)
    >>> params, state = norm.init(features=2)
    >>> y, state = norm.apply(params, state, jnp.array([[2.0, 6.0]]), train=True)
    >>> [f"{value:.2f}" for value in y[0]]
    ['1.00', '3.00']
    """

    fraction: float = 0.0625
    use_bias: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction(self.fraction)

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return partial_rms_norm(x, scale, bias, fraction=self.fraction, eps=self.eps, mask=mask)
