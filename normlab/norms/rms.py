"""Root-mean-square normalisation: layer normalisation without taking the mean away."""

from dataclasses import dataclass, field

from normlab.core import Array, normaliser
from normlab.ops.affine import PerExample, require_eps
from normlab.ops.moments import Sharing
from normlab.ops.normalise import normalise
from normlab.sharding import on_any_mesh


@on_any_mesh
def rms_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Compute `x / sqrt(mean(x^2) + eps)` over each position's channels (Zhang & Sennrich 2019).

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
    require_eps(eps)
    over = Sharing((x.ndim - 1,))
    return normalise(x, over, scale, bias, eps=eps, mask=mask, about_zero=True)[0]


@normaliser(
    paper="arXiv:1910.07467",
    invariant_to=("position scale",),
    group="example",
    after=("layer_norm",),
    aka=("RMSNorm",),
    held_to="library",
)
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
