"""Filter response normalisation and its thresholded linear unit: normaliser and activation."""

from dataclasses import dataclass

import jax.numpy as jnp

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import Standardiser, per_channel, require_eps
from normlab.ops.masks import zero_masked
from normlab.ops.moments import ShapeError, Sharing, statistics_dtype
from normlab.ops.normalise import normalise
from normlab.sharding import on_any_mesh


@on_any_mesh
def filter_response_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    threshold: Array | None = None,
    *,
    eps: float = 1e-6,
    mask: Array | None = None,
) -> Array:
    """Compute `max(scale * x / sqrt(mean(x^2) + eps) + bias, threshold)`, the mean over positions.

    Singh & Krishnan 2020: FRN and the TLU that belongs to it. No mean is taken away, so the
    outputs are not centred; the learnt threshold makes up for it.

    Args:
        x: `(N, ..., C)` with at least one axis of positions, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        threshold: `(C,)`, or None to leave the TLU out.
        eps: added to the mean square, 1e-6 in the paper.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        ShapeError: there is one position only (or none: `(N, C)`), or a shape does not fit.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[3.0], [-3.0]]])
    >>> filter_response_norm(x, threshold=jnp.zeros(1)).round(3).tolist()
    [[[1.0], [0.0]]]
    """
    require_eps(eps)
    z, axes = x.astype(statistics_dtype(x)), tuple(range(1, x.ndim - 1))
    if Sharing(axes).size(z.shape) == 1:
        raise ShapeError(
            f"an input of shape {x.shape} leaves one value to take a mean square of, and what is "
            "left of it is its sign; give (N, ..., C) with more than one position"
        )
    y, _ = normalise(z, Sharing(axes), scale, bias, eps=eps, mask=mask, about_zero=True)
    if threshold is not None:
        y = jnp.maximum(y, per_channel("threshold", threshold, y))
    return zero_masked(y.astype(x.dtype), mask)


@normaliser(
    paper="arXiv:1911.09737",
    fuses_activation=True,
    invariant_to=("example scale", "channel scale"),
    group="fused",
    after=("instance_norm",),
    aka=("FRN", "FRN + TLU"),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class FilterResponseNorm(Standardiser):
    """Filter response normalisation and the thresholded linear unit (FRN + TLU).

    It costs more than instance normalisation, because it holds the activation: a maximum with a
    learnt threshold, and its gradient.

    >>> import jax.numpy as jnp
    >>> norm = FilterResponseNorm()
    >>> params, state = norm.init(features=1)
    >>> y, state = norm.apply(params, state, jnp.array([[[3.0], [-3.0]]]), train=True)
    >>> y.round(3).tolist(), sorted(params)
    ([[[1.0], [0.0]]], ['bias', 'scale', 'threshold'])
    """

    eps: float = 1e-6

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return {**params, "threshold": jnp.zeros((features,), jnp.float32)}, state

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return filter_response_norm(x, **params, eps=self.eps, mask=mask), state
