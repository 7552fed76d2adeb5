"""Says which values share statistics, and takes the sums that the kernels need of them.

Exactness: sums of x and x^2 are the cheapest statistics, and lose the digits of the variance where
the mean is large. They, and sums of g * x in the gradient, are used only where every mean lies
within `WELL_CENTRED` deviations of zero; otherwise sums are taken anew over centred values, in
coordinates shifted by a value of the data. `experiments/speed/kernels.py` measures both claims.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from normlab.core import Array
from normlab.ops.moments import Sharing, statistics_dtype

T = TypeVar("T")

WELL_CENTRED = 2.0
"""`|mean| / deviation` up to which `E[x^2] - E[x]^2` is taken: it loses 1 + 2^2 roundings there."""


class Statistics(NamedTuple):
    """`mean = shift + offset`, kept apart: their sum is rounded, and `x - mean` would show it."""

    shift: Array
    offset: Array
    variance: Array


@dataclass(frozen=True)
class Channels:
    """Statistics over `axes` and the channels (last axis) of each of `groups`.

    They are shaped as the input with size 1 at `axes`, repeated for the channels of a group.

    Attributes:
        centred: False for the mean square about zero in the place of the variance.
    """

    axes: tuple[int, ...]
    groups: int
    centred: bool = True

    def mean(self, values: Array, scale: Array | None = None) -> Array:
        """Average `values`, or `values * scale`."""
        if self.groups == 1 and scale is None:
            return _repeated(values.mean((*self.axes, values.ndim - 1), keepdims=True), values)
        return self._among(times(values.mean(self.axes, keepdims=True), scale))

    def output(
        self, x: Array, statistics: Statistics, root: Array, scale: Array | None, bias: Array | None
    ) -> Array:
        """Compute `centred x * root * scale + bias`."""
        return affine(x, statistics, times(root, scale), bias)

    def spread(self, cotangent: Array, shape: tuple[int, ...]) -> Array:
        """Apply the transpose of `mean`, ready to broadcast to `shape`."""
        return self._among(cotangent) / math.prod(shape[axis] for axis in self.axes)

    def products(
        self, g: Array, x: Array, statistics: Statistics, scale: Array | None, root: Array
    ) -> tuple[Array, Array]:
        """Average `g * centred x * scale`, and sum `g * root * it` for each channel."""
        sums = sum_along(g, x, statistics, self.axes)
        mean = self._among(times(sums, scale)) / math.prod(x.shape[axis] for axis in self.axes)
        return mean, (sums * root).reshape(-1, x.shape[-1]).sum(0)

    def a_value(self, x: Array) -> Array:
        """Return one of the values that share a statistic."""
        return Sharing(self.axes, self.groups).representative(x)

    def is_one_loop(self, x: Array) -> bool:
        """Return False: see `Rows.is_one_loop`."""
        return False

    def _among(self, means: Array) -> Array:
        if self.groups == means.shape[-1]:
            return means
        return Sharing(self.axes, self.groups).across_groups(
            means, lambda grouped: grouped.mean(-1, keepdims=True)
        )


@dataclass(frozen=True)
class Rows:
    """Statistics over the channels (last axis) of each position; they have size 1 there.

    Attributes:
        centred: False for the mean square about zero in the place of the variance.
    """

    centred: bool = True

    def mean(self, values: Array, scale: Array | None = None) -> Array:
        """Average `values`, or `values * scale`."""
        if scale is None:
            return values.mean(-1, keepdims=True)
        sums = values.reshape(-1, values.shape[-1]) @ scale.reshape(-1)
        return sums.reshape(*values.shape[:-1], 1) / values.shape[-1]

    def output(
        self, x: Array, statistics: Statistics, root: Array, scale: Array | None, bias: Array | None
    ) -> Array:
        """Compute `centred x * root * scale + bias`."""
        if self.is_one_loop(x):
            y = less_mean(x, statistics) * times(root, scale)
        else:
            y = times(affine(x, statistics, root, None), scale)
        return y if bias is None else y + bias

    def spread(self, cotangent: Array, shape: tuple[int, ...]) -> Array:
        """Apply the transpose of `mean`, ready to broadcast to `shape`."""
        return cotangent / shape[-1]

    def products(
        self, g: Array, x: Array, statistics: Statistics, scale: Array | None, root: Array
    ) -> tuple[Array, Array]:
        """Average `g * centred x * scale`, and sum `g * root * it` for each channel."""
        product = wide(g) * less_mean(x, statistics)
        # A product for each example: the one long product would run on one core.
        examples = 1 if x.ndim == 2 else x.shape[0]
        rows = product.reshape(examples, -1, x.shape[-1])
        return self.mean(product, scale), (root.reshape(examples, 1, -1) @ rows).sum((0, 1))

    def a_value(self, x: Array) -> Array:
        """Return one of the values that share a statistic."""
        return Sharing((x.ndim - 1,)).representative(x)

    def is_one_loop(self, x: Array) -> bool:
        """Return whether statistics and output are best written to become one loop over rows.

        XLA for CPUs sums bfloat16 within the loop that uses the sums, while a row is in a cache:
        another pass over it costs next to nothing, and a condition on all rows would part the loop.
        So the mean is taken first and the variance about it. Its rounding is far below that of
        bfloat16, except that a constant must come out as exactly zero: see `_gives_constants_back`.
        """
        if x.dtype != jnp.bfloat16 or jax.default_backend() != "cpu":
            return False
        return not self.centred or _gives_constants_back(x.shape[-1])


@cache
def _gives_constants_back(count: int) -> bool:
    """Return whether the float32 mean of `count` equal bfloat16 numbers is that number.

    Their sum is exact, up to 2^16 of them; XLA multiplies it by the rounded 1 / count.
    """
    every = np.arange(128, 256, dtype=np.float32)  # the eight digits that such a number may have
    back = every * np.float32(count) * (np.float32(1) / np.float32(count))
    return count <= 2**16 and bool((back == every).all())


Layout = Channels | Rows


def sum_along(g: Array, x: Array, statistics: Statistics, axes: tuple[int, ...]) -> Array:
    """Sum `g * centred x` over axes along which the statistics are the same."""

    def exact() -> Array:
        return summed(wide(g) * less_mean(x, statistics), axes)

    def raw() -> Array:
        return summed(wide(g) * wide(x), axes) - statistics.offset * summed(wide(g), axes)

    return unless_badly_centred(statistics, raw, exact)


def unless_badly_centred(statistics: Statistics, raw: Callable[[], T], exact: Callable[[], T]) -> T:
    """Return `raw()`, or `exact()` where that would lose digits; both give the same arrays."""
    if jax.default_backend() != "cpu":  # there a condition waits, and differences cost nothing
        return exact()
    shift, offset, variance = statistics
    # A NaN, of squares too large for the dtype, counts as badly centred so; and so does the offset
    # of a small constant, whose square would be 0, as its variance is.
    fits = jnp.all((shift == 0) & (jnp.abs(offset) <= WELL_CENTRED * jnp.sqrt(variance)))
    cheap = raw()  # outside the condition, in which sums are slower
    return lax.cond(fits, lambda: cheap, exact)


def affine(x: Array, statistics: Statistics, slope: Array, level: Array | None) -> Array:
    """Compute `slope * centred x + level`, as one product and two sums for each element."""
    moved = -statistics.offset * slope
    return (wide(x) - statistics.shift) * slope + (moved if level is None else level + moved)


def less_mean(x: Array, statistics: Statistics) -> Array:
    """Compute `x - mean`, exact to rounding however large the mean is."""
    return (wide(x) - statistics.shift) - statistics.offset


def summed(values: Array, axes: tuple[int, ...]) -> Array:
    """Sum over `axes`, which stay with size 1."""
    return values.sum(axes, keepdims=True)


def _repeated(values: Array, like: Array) -> Array:
    """Repeat the one number of `values` for each channel of `like`."""
    return jnp.broadcast_to(values, (*values.shape[:-1], like.shape[-1]))


def beside(x: Array, values: Array | None) -> Array | None:
    """Return `(C,)` ready to broadcast to the `(..., C)` of `x`."""
    return None if values is None else values.reshape((1,) * (x.ndim - 1) + (-1,))


def times(root: Array, scale: Array | None) -> Array:
    """Multiply a root by the scale, where there is one."""
    return root if scale is None else root * scale


def wide(x: Array) -> Array:
    """Convert to float32 or wider. It is called wherever `x` is used, so that no copy is kept."""
    return x.astype(statistics_dtype(x))
