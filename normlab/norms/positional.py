"""Positional normalisation: each position over its channels, the moments kept for a later layer."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp

from normlab.core import Array, Facts, Params, State, normaliser
from normlab.ops.affine import require_eps
from normlab.ops.moments import Sharing
from normlab.ops.normalise import normalise
from normlab.sharding import on_any_mesh


def _with_statistics(x: Array, *_: Any) -> tuple[Array, Array, Array]:
    """Return the layouts of the results: the input's, and one number for each of its positions."""
    position = x.sum(axis=-1, keepdims=True)
    return x, position, position


@partial(on_any_mesh, like=_with_statistics)
def positional_norm(
    x: Array, *, eps: float = 1e-5, mask: Array | None = None
) -> tuple[Array, Array, Array]:
    """Give the channels of each position mean 0 and variance 1 (PONO; Li et al. 2019).

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Returns:
        The normalised input; and the mean and the deviation of each position, `(..., 1)`, float32
        or wider, for the paper's moment shortcut: a later layer of the same size is multiplied by
        the deviation and has the mean added.

    Raises:
        ShapeError: there is one channel only, or the mask does not fit.

    >>> import jax.numpy as jnp
    >>> y, mean, deviation = positional_norm(jnp.array([[1.0, 3.0]]))
    >>> [f"{value:.2f}" for value in y.ravel()], mean.tolist()
    (['-1.00', '1.00'], [[2.0]])
    """
    require_eps(eps)
    y, moments = normalise(x, Sharing(axes=(x.ndim - 1,)), None, None, eps=eps, mask=mask)
    return y, moments.mean, jnp.sqrt(moments.variance + eps)


@normaliser(
    paper="arXiv:1907.04312",
    invariant_to=("example scale", "example shift", "position scale", "position shift"),
    group="example",
    after=("layer_norm",),
    aka=("PONO",),
)
@dataclass(frozen=True)
class PositionalNorm:
    """Positional normalisation: layer normalisation over channels, with nothing learnt after it.

    The slot of a model hands on the normalised input alone; the moments for a moment shortcut come
    from the function `positional_norm`. Variances are biased, as in the paper.

    Attributes:
        eps: added to the variance.

    >>> import jax.numpy as jnp
    >>> y, _ = PositionalNorm().apply({}, {}, jnp.array([[1.0, 3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()]
    ['-1.00', '1.00']
    """

    facts: ClassVar[Facts]

    eps: float = 1e-5

    def __post_init__(self) -> None:
        require_eps(self.eps)

    def init(self, features: int) -> tuple[Params, State]:
        return {}, {}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return positional_norm(x, eps=self.eps, mask=mask)[0], state
