"""Scale normalisation: every position's vector is brought to one learnt length."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import lax

from normlab.catalogue import later
from normlab.core import Array, Facts, Params, State, normaliser
from normlab.ops.affine import one_number, require_eps, scale_and_shift
from normlab.ops.masks import zero_masked
from normlab.ops.moments import statistics_dtype
from normlab.sharding import on_any_mesh


@on_any_mesh
def scale_norm(
    x: Array,
    scale: Array | float | None = None,
    *,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Compute `scale * x / max(|x|, eps)`; `|x|` is the Euclidean length of a position's channels.

    Nguyen & Salazar 2019. With `scale` the root of the number of channels it is root-mean-square
    normalisation without a scale for each channel.

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: one number for all channels, or None for the root of C.
        eps: the least length that is divided by.
        mask: True where an element counts; the others add nothing and come out as zero.

    >>> import jax.numpy as jnp
    >>> scale_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]), 10.0).round(4).tolist()
    [[6.0, 8.0], [0.0, 0.0]]
    """
    require_eps(eps)
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    g = math.sqrt(x.shape[-1]) if scale is None else one_number("scale", scale, z)
    # Taken in units of the largest element, so that its square cannot overflow or vanish.
    unit = jnp.abs(z).max(axis=-1, keepdims=True)
    unit = lax.stop_gradient(jnp.where(unit == 0, 1, unit))
    square = jnp.sum((z / unit) ** 2, axis=-1, keepdims=True)
    # The root has no slope at zero; where the length is zero another number takes its place.
    length = jnp.where(square == 0, 0, unit * jnp.sqrt(jnp.where(square == 0, 1, square)))
    return scale_and_shift(g * (z / jnp.maximum(length, eps)), x, None, None, mask)


@normaliser(
    paper="arXiv:1910.05895",
    invariant_to=("position scale",),
    eps_is="a lower limit",
    group="example",
    after=("layer_norm",),
    aka=("ScaleNorm",),
    held_to="library",
)
@dataclass(frozen=True)
class ScaleNorm:
    """Division by the length of each position's vector, times one learnt number.

    Attributes:
        eps: the least length that is divided by.
        zero_centred: keep the learnt number less one, so that weight decay pulls it to one.

    >>> import jax.numpy as jnp
    >>> norm = ScaleNorm()
    >>> params, state = norm.init(features=4)
    >>> y, state = norm.apply(params, state, jnp.array([[3.0, 4.0, 0.0, 0.0]]), train=True)
    >>> [f"{value:.2f}" for value in y[0]], float(params["scale"])
    (['1.20', '1.60', '0.00', '0.00'], 2.0)
    """

    facts: ClassVar[Facts]

    eps: float = 1e-5
    zero_centred: bool = later(False)

    def __post_init__(self) -> None:
        require_eps(self.eps)

    def init(self, features: int) -> tuple[Params, State]:
        return {"scale": jnp.asarray(math.sqrt(features), jnp.float32)}, {}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return scale_norm(x, params["scale"], eps=self.eps, mask=mask), state
