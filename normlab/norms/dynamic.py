"""Element-wise stand-ins for a normaliser: a squashing function in place of statistics."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
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
def dynamic_tanh(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    alpha: Array | float = 0.5,
    mask: Array | None = None,
) -> Array:
    """Compute `scale * tanh(alpha * x) + bias` (DyT; Zhu et al. 2025).

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        alpha: one number for all channels, learnt in a network.
        mask: True where an element counts; the others come out as zero.

    >>> import jax.numpy as jnp
    >>> dynamic_tanh(jnp.array([[0.0, 100.0]])).tolist()
    [[0.0, 1.0]]
    """
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    return scale_and_shift(jnp.tanh(one_number("alpha", alpha, z) * z), x, scale, bias, mask)


@on_any_mesh
def dynamic_erf(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    alpha: Array | float = 0.5,
    shift: Array | float = 0.0,
    mask: Array | None = None,
) -> Array:
    """Compute `scale * erf(alpha * x + shift) + bias` (Derf; Chen et al. 2025).

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        alpha: one number for all channels, learnt in a network.
        shift: likewise.
        mask: True where an element counts; the others come out as zero.

    >>> import jax.numpy as jnp
    >>> dynamic_erf(jnp.array([[0.0, 100.0]])).tolist()
    [[0.0, 1.0]]
    """
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    slope, level = one_number("alpha", alpha, z), one_number("shift", shift, z)
    return scale_and_shift(_erf(slope * z + level), x, scale, bias, mask)


@jax.custom_jvp
def _erf(z: Array) -> Array:
    """Compute `lax.erf`, whose own derivative jax 0.12 cannot take within `shard_map`."""
    return lax.erf(z)


@_erf.defjvp
def _erf_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return _erf(z), 2 / math.sqrt(math.pi) * jnp.exp(-z * z) * dz


@dataclass(frozen=True, kw_only=True)
class _Squashing:
    """Holds the fields that the two have in common.

    Attributes:
        alpha: what the learnt factor on the input begins at.
        use_scale: learn a scale for each channel; False fixes it at 1.
        use_bias: learn a bias for each channel; False fixes it at 0.
        zero_centred: keep the scale as its distance from one, `1 + scale`, so that it begins at
            zero and weight decay pulls it to one (as in Gemma and Transformer Engine).
    """

    facts: ClassVar[Facts]
    function: ClassVar[Callable[..., Array]]
    scalars: ClassVar[tuple[str, ...]]

    alpha: float = 0.5
    use_scale: bool = True
    use_bias: bool = True
    zero_centred: bool = later(False)

    def __post_init__(self) -> None:
        require_field(self.alpha > 0, "alpha", self.alpha, "a positive number")

    def init(self, features: int) -> tuple[Params, State]:
        begin = {"alpha": self.alpha, "shift": 0.0}
        scalars = {name: jnp.asarray(begin[name], jnp.float32) for name in self.scalars}
        return {**affine_params(features, self.use_scale, self.use_bias), **scalars}, {}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return type(self).function(x, mask=mask, **params), state


@normaliser(
    paper="arXiv:2503.10622",
    group="element-wise",
    after=("layer_norm",),
    aka=("DyT",),
)
@dataclass(frozen=True)
class DynamicTanh(_Squashing):
    """Dynamic tanh (DyT): a tanh with a learnt slope, in place of a normaliser.

    The paper begins with 0.5 except in language models, and finds that wider ones want less.

    >>> import jax.numpy as jnp
    >>> norm = DynamicTanh()
    >>> params, state = norm.init(features=2)
    >>> y, state = norm.apply(params, state, jnp.array([[0.0, 100.0]]), train=True)
    >>> y.tolist(), float(params["alpha"])
    ([[0.0, 1.0]], 0.5)
    """

    function = staticmethod(dynamic_tanh)
    scalars = ("alpha",)


@normaliser(
    paper="arXiv:2512.10938",
    group="element-wise",
    after=("dynamic_tanh",),
    aka=("Derf",),
)
@dataclass(frozen=True)
class DynamicErf(_Squashing):
    """Derf: an error function with a learnt slope and shift, in place of a normaliser.

    >>> import jax.numpy as jnp
    >>> norm = DynamicErf()
    >>> params, state = norm.init(features=2)
    >>> y, state = norm.apply(params, state, jnp.array([[0.0, 100.0]]), train=True)
    >>> y.tolist(), sorted(params)
    ([[0.0, 1.0]], ['alpha', 'bias', 'scale', 'shift'])
    """

    function = staticmethod(dynamic_erf)
    scalars = ("alpha", "shift")
