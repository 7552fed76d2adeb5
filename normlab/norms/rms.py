"""Root-mean-square normalisation: layer normalisation without taking the mean away."""

from dataclasses import dataclass, field

from jax import lax

from normlab.core import Array, normaliser
from normlab.norms.affine import PerExample, scale_and_shift, zero_masked
from normlab.norms.kernels import Rows, normalised
from normlab.norms.moments import Sharing, shared_mean, statistics_dtype
from normlab.norms.normalise import in_no_mesh, in_precision_of


def rms_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """`x / sqrt(mean(x^2) + eps)` over the channels of each position (Zhang & Sennrich 2019).

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        eps: added to the mean square. Libraries differ from 1.2e-7 (torch) over 1e-6 (flax,
            keras) to 1e-5 (haiku, equinox), which shows as soon as inputs are small.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        ShapeError: an argument's shape does not fit.

    >>> import jax.numpy as jnp
    >>> [f"{value:.2f}" for value in rms_norm(jnp.array([1.0, 7.0]), eps=1e-9)]
    ['0.20', '1.40']
    """
    if mask is None and in_no_mesh():
        return normalised(Rows(centred=False), eps, x, *in_precision_of(x, scale, bias))[0]
    z = x.astype(statistics_dtype(x))
    z = zero_masked(z, mask)
    mean_square = shared_mean(z**2, Sharing((z.ndim - 1,)), mask=mask)
    return scale_and_shift(z * lax.rsqrt(mean_square + eps), x, scale, bias, mask)


@normaliser(paper="arXiv:1910.07467", invariant_to=("position scale",))
@dataclass(frozen=True)
class RMSNorm(PerExample):
    """Division by the root mean square of the channels of each position.

    Attributes:
        use_bias: off by default, as in the paper.

    >>> import jax.numpy as jnp
    >>> norm = RMSNorm(eps=1e-9)
    >>> params, state = norm.init(features=2)
    >>> y, state = norm.apply(params, state, jnp.array([[1.0, 7.0]]), train=True)
    >>> [f"{value:.2f}" for value in y[0]]
    ['0.20', '1.40']
    """

    use_bias: bool = field(default=False, kw_only=True)

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return rms_norm(x, scale, bias, eps=self.eps, mask=mask)
