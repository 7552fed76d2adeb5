"""Dynamic inverse square root unit: the element-wise counterpart of RMS normalisation."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import lax

from normlab.catalogue import later
from normlab.core import Array, Facts, Params, State, normaliser
from normlab.errors import require_field
from normlab.ops.affine import affine_params, one_number, scale_and_shift
from normlab.ops.masks import zero_masked
from normlab.ops.moments import statistics_dtype
from normlab.sharding import on_any_mesh


@on_any_mesh
def dynamic_isru(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    length: Array | float = 1.0,
    mask: Array | None = None,
) -> Array:
    """Compute `scale * sqrt(C) * x / sqrt(length^2 + x^2) + bias` (DyISRU; Stollenwerk 2025).

    In root-mean-square normalisation `length` would be that of the position's other channels. The
    paper writes `beta` for its square. Its root is taken here, so that no value of it divides by
    the root of a negative number.

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        length: one number for all channels, learnt in a network; not zero.
        mask: True where an element counts; the others come out as zero.

    >>> import jax.numpy as jnp
    >>> [f"{value:.2f}" for value in dynamic_isru(jnp.array([[3.0]]), length=4.0)[0]]
    ['0.60']
    """
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    r = one_number("length", length, z)
    # Squares are of quotients of at most 1: none overflows, and no slope is a small difference.
    large = jnp.abs(z) > jnp.abs(r)
    small_one, small_other = z / jnp.where(large, 1, jnp.abs(r)), r / jnp.where(large, z, 1)
    small_one = jnp.where(large, 0, small_one)
    small_other = jnp.where(large, small_other, 0)
    y = jnp.where(
        large,
        jnp.sign(z) * lax.rsqrt(1 + small_other**2),
        small_one * lax.rsqrt(1 + small_one**2),
    )
    return scale_and_shift(math.sqrt(x.shape[-1]) * y, x, scale, bias, mask)


@normaliser(
    paper="arXiv:2503.21708",
    group="element-wise",
    after=("rms_norm", "dynamic_tanh"),
    aka=("DyISRU",),
)
@dataclass(frozen=True, kw_only=True)
class DynamicISRU:
    """DyISRU: `sqrt(C) * x / sqrt(beta + x^2)` with one learnt `beta`, in place of a normaliser.

    It is what root-mean-square normalisation becomes if the squares of the other channels are
    replaced by one number (Stollenwerk 2025), and dynamic tanh approximates it. What is learnt is
    `length`, the root of `beta`.

    Attributes:
        beta: what the learnt number begins at; null for C - 1, the sum of the other channels'
            squares where the mean square is one. The paper trains no network with it, and gives
            no start.
        use_scale: learn a scale for each channel; False fixes it at 1.
        use_bias: learn a bias for each channel; False fixes it at 0.
        zero_centred: keep the scale as its distance from one, `1 + scale`, so that it begins at
            zero and weight decay pulls it to one (as in Gemma and Transformer Engine).

    >>> import jax.numpy as jnp
    >>> norm = DynamicISRU(beta=16.0)
    >>> params, state = norm.init(features=1)
    >>> y, state = norm.apply(params, state, jnp.array([[3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y[0]], float(params["length"])
    (['0.60'], 4.0)
    """

    facts: ClassVar[Facts]

    beta: float | None = None
    use_scale: bool = True
    use_bias: bool = True
    zero_centred: bool = later(False)

    def __post_init__(self) -> None:
        positive = self.beta is None or self.beta > 0
        require_field(positive, "beta", self.beta, "a positive number or null")

    def init(self, features: int) -> tuple[Params, State]:
        beta = max(features - 1, 1) if self.beta is None else self.beta
        length = jnp.asarray(math.sqrt(beta), jnp.float32)
        return {**affine_params(features, self.use_scale, self.use_bias), "length": length}, {}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return dynamic_isru(x, mask=mask, **params), state
