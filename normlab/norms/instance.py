"""Instance normalisation: one mean and variance for each channel of each example."""

from dataclasses import dataclass

from normlab.core import Array, normaliser
from normlab.ops.affine import PerExample, require_eps
from normlab.ops.moments import Sharing
from normlab.ops.normalise import normalise
from normlab.sharding import on_any_mesh


@on_any_mesh
def instance_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Give the positions of each channel of each example mean 0 and variance 1 (Ulyanov 2016).

    Args:
        x: `(N, ..., C)` with at least one axis of positions, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        ShapeError: there is one position only (or none: `(N, C)`), or a shape does not fit.

    >>> import jax.numpy as jnp
    >>> instance_norm(jnp.array([[[1.0, 5.0], [3.0, 9.0]]])).round(3).tolist()
    [[[-1.0, -1.0], [1.0, 1.0]]]
    """
    require_eps(eps)
    sharing = Sharing(axes=tuple(range(1, x.ndim - 1)))
    return normalise(x, sharing, scale, bias, eps=eps, mask=mask)[0]


@normaliser(
    paper="arXiv:1607.08022",
    invariant_to=("example scale", "example shift", "channel scale", "channel shift"),
    group="example",
    after=("batch_norm",),
    aka=("IN", "InstanceNorm"),
    held_to="library",
)
@dataclass(frozen=True)
class InstanceNorm(PerExample):
    """Instance normalisation: statistics over the positions of each channel of each example.

    Scale and bias are learnt by default, as in flax; torch's default is to have neither.

    >>> import jax.numpy as jnp
    >>> norm = InstanceNorm()
    >>> params, state = norm.init(features=1)
    >>> y, state = norm.apply(params, state, jnp.array([[[1.0], [3.0]]]), train=True)
    >>> y.round(3).tolist()
    [[[-1.0], [1.0]]]
    """

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return instance_norm(x, scale, bias, eps=self.eps, mask=mask)
