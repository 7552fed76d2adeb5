"""Divisive normalisation: each position against its neighbours, as in models of visual cortex."""

from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax

from normlab.catalogue import later
from normlab.core import Array, Facts, Params, State, normaliser
from normlab.errors import require_field
from normlab.ops.affine import affine_params, one_number, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import Sharing
from normlab.ops.normalise import centre
from normlab.ops.overflow import unless_overflowed
from normlab.sharding import on_any_mesh


@on_any_mesh
def divisive_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    sigma: Array | float = 1.0,
    window: int = 5,
    mask: Array | None = None,
) -> Array:
    """Compute `v / sqrt(sigma^2 + mean(v^2))`, `v = x - mean(x)`, means over a neighbourhood.

    It holds all channels of the positions in a window around the element (Ren et al. 2017, with
    equal weights and one window for both means, where they allow two); at the border it holds
    fewer, where their code counts zeros from beyond it. An input `(N, C)` has one position, so all
    of its channels are neighbours; their code for dense layers takes a window of channels.

    Args:
        x: `(N, ..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        sigma: one number for all channels, learnt in a network; what keeps weak signals weak.
        window: positions along each axis, an odd number.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        ShapeError: the whole example is one value, or a shape does not fit.

    >>> import jax.numpy as jnp
    >>> y = divisive_norm(jnp.array([[1.0, 3.0]]), sigma=0.75**0.5)
    >>> [f"{value:.3f}" for value in y.ravel()]
    ['-0.756', '0.756']
    """
    _require(sigma, window)
    # The example's own mean has no part in the result; without it a large one costs no digits.
    z = centre(x, Sharing(axes=tuple(range(1, x.ndim))), mask=mask)[0].values
    valid = jnp.ones(x.shape, bool) if mask is None else fit_mask(mask, x)
    count = jnp.maximum(_around(valid.astype(z.dtype), window), 1)
    v = zero_masked(z - _around(z, window) / count, mask)
    energy = unless_overflowed(_around(v**2, window)) / count
    sigma = one_number("sigma", sigma, z)
    return scale_and_shift(v * lax.rsqrt(sigma**2 + energy), x, scale, bias, mask)


def _require(sigma: Array | float, window: int) -> None:
    """Check the settings. A learnt `sigma` is none of them, and may take any value."""
    positive = not isinstance(sigma, Real) or sigma > 0
    require_field(bool(positive), "sigma", sigma, "a positive number")
    require_field(window >= 1 and window % 2 == 1, "window", window, "a positive odd number")


def _around(values: Array, window: int) -> Array:
    """Sum all channels of the positions in the window about each position, `(N, ..., 1)`."""
    total = values.sum(axis=-1, keepdims=True)
    size = (1, *(window,) * (values.ndim - 2), 1)
    return lax.reduce_window(
        total, np.zeros((), total.dtype)[()], lax.add, size, (1,) * total.ndim, "SAME"
    )


@normaliser(
    paper="arXiv:1611.04520",
    invariant_to=("example shift",),
    group="example",
    after=("local_response_norm",),
    aka=("DN", "divisive normalization"),
)
@dataclass(frozen=True, kw_only=True)
class DivisiveNorm:
    """Divisive normalisation over all channels of a window around each position.

    It costs more than instance normalisation, because it takes two sums over the window of every
    position, and two more in the gradient.

    Attributes:
        sigma: what the learnt number that keeps weak signals weak begins at.
        window: positions along each axis, an odd number.
        use_scale: learn a scale for each channel; False fixes it at 1.
        use_bias: learn a bias for each channel; False fixes it at 0.
        zero_centred: keep the scale as its distance from one, `1 + scale`, so that it begins at
            zero and weight decay pulls it to one (as in Gemma and Transformer Engine).

    >>> import jax.numpy as jnp
    >>> norm = DivisiveNorm()
    >>> params, state = norm.init(features=2)
    >>> y, _ = norm.apply(params, state, jnp.array([[1.0, 3.0]]), train=True)
    >>> [f"{value:.3f}" for value in y.ravel()], float(params["sigma"])
    (['-0.707', '0.707'], 1.0)
    """

    facts: ClassVar[Facts]

    sigma: float = 1.0
    window: int = 5
    use_scale: bool = True
    use_bias: bool = True
    zero_centred: bool = later(False)

    def __post_init__(self) -> None:
        _require(self.sigma, self.window)

    def init(self, features: int) -> tuple[Params, State]:
        params = affine_params(features, self.use_scale, self.use_bias)
        return {**params, "sigma": jnp.asarray(self.sigma, jnp.float32)}, {}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return divisive_norm(x, **params, window=self.window, mask=mask), state
