"""Local response normalisation: a channel against its neighbours among the channels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jax import lax

from normlab.core import Array, Facts, Params, State, normaliser
from normlab.errors import require_field
from normlab.ops.masks import zero_masked
from normlab.ops.moments import statistics_dtype
from normlab.ops.overflow import unless_overflowed
from normlab.sharding import on_any_mesh


@on_any_mesh
def local_response_norm(
    x: Array,
    *,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    mask: Array | None = None,
) -> Array:
    """Compute `x / (k + alpha * sum x^2)^beta`, the sum over `size` channels (AlexNet).

    Krizhevsky et al. 2012, section 3.3, with its numbers. torch and Caffe call `alpha` what is
    `size` times ours, as they take the mean of the squares, and torch's `k` is 1. Of an even size
    the one channel more lies before, as in torch.

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        size: how many channels, itself among them; those beyond the ends are zero.
        k, alpha, beta: as in the formula.
        mask: True where an element counts; the others add nothing and come out as zero.

    >>> import jax.numpy as jnp
    >>> y = local_response_norm(jnp.array([[1.0, 2.0]]), size=3, k=4.0, alpha=1.0, beta=0.5)
    >>> [f"{value:.3f}" for value in y.ravel()]
    ['0.333', '0.667']
    """
    _require(size, k, alpha, beta)
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    window = (1,) * (x.ndim - 1) + (size,)
    around = ((0, 0),) * (x.ndim - 1) + ((size // 2, (size - 1) // 2),)
    zero = np.zeros((), z.dtype)[()]  # a constant, or jax does not know the sum as one
    energy = lax.reduce_window(z**2, zero, lax.add, window, (1,) * x.ndim, around)
    energy = unless_overflowed(energy)
    return zero_masked((z * (k + alpha * energy) ** -beta).astype(x.dtype), mask)


@normaliser(
    paper="Krizhevsky, Sutskever & Hinton 2012, section 3.3",
    group="example",
    aka=("LRN",),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class LocalResponseNorm:
    """Local response normalisation (LRN), which learns nothing.

    It costs more than layer normalisation, because it sums over windows of channels and takes a
    power at every position.

    Attributes:
        size: how many neighbouring channels, itself among them.
        k: what is added to the sum.
        alpha: the factor of the sum of squares; torch's and Caffe's is `size` times it.
        beta: the power.

    >>> import jax.numpy as jnp
    >>> y, _ = LocalResponseNorm(k=1).apply({}, {}, jnp.array([[0.0, 1.0]]), train=True)
    >>> [f"{value:.4f}" for value in y.ravel()]
    ['0.0000', '0.9999']
    """

    facts: ClassVar[Facts]

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75

    def __post_init__(self) -> None:
        _require(self.size, self.k, self.alpha, self.beta)

    def init(self, features: int) -> tuple[Params, State]:
        return {}, {}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        y = local_response_norm(
            x, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta, mask=mask
        )
        return y, state


def _require(size: int, k: float, alpha: float, beta: float) -> None:
    require_field(size >= 1, "size", size, "a positive whole number")
    require_field(k > 0, "k", k, "a positive number")
    require_field(alpha >= 0, "alpha", alpha, "a number of at least 0")
    require_field(beta >= 0, "beta", beta, "a number of at least 0")
