"""The standardisation that most normalisers end in, fast: statistics, output and gradient as one.

JAX's own derivative of `(x - mean) / sqrt(variance + eps) * scale + bias` writes and reads a dozen
arrays of the size of `x`. Here it is one function with its derivative in closed form: forward, two
sums and one pass; backward, three sums and one pass. `Channels` and `Rows` say which values share
statistics; everything else is common to them.

Exactness: sums of x and x^2 are the cheapest statistics, and lose the digits of the variance where
the mean is large. They, and sums of g * x in the gradient, are used only where every mean lies
within `WELL_CENTRED` deviations of zero; otherwise sums are taken anew over centred values, in
coordinates shifted by a value of the data. `experiments/speed/kernels.py` measures both claims.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array
from normlab.norms.linear import linear
from normlab.norms.moments import Sharing, statistics_dtype

WELL_CENTRED = 2.0
"""|mean| / deviation up to which E[x^2] - E[x]^2 is taken: it loses 1 + 2^2 roundings there."""


class Statistics(NamedTuple):
    """`mean = shift + offset`, kept apart: their sum is rounded, and `x - mean` would show it."""

    shift: Array
    offset: Array
    variance: Array


@dataclass(frozen=True)
class Channels:
    """Statistics over `axes` and the channels (last axis) of each of `groups`.

    They are shaped as the input with size 1 at `axes`, repeated for the channels of a group.
    """

    axes: tuple[int, ...]
    groups: int
    centred = True

    def mean(self, values: Array, scale: Array | None = None) -> Array:
        """The mean of `values`, or of `values * scale`."""
        if self.groups == 1 and scale is None:
            return _repeated(values.mean((*self.axes, values.ndim - 1), keepdims=True), values)
        return self._among(_times(values.mean(self.axes, keepdims=True), scale))

    def output(
        self, x: Array, statistics: Statistics, root: Array, scale: Array | None, bias: Array | None
    ) -> Array:
        """`centred x * root * scale + bias`."""
        return _affine(x, statistics, _times(root, scale), bias)

    def spread(self, cotangent: Array, shape: tuple[int, ...]) -> Array:
        """The transpose of `mean`, ready to broadcast to `shape`."""
        return self._among(cotangent) / math.prod(shape[axis] for axis in self.axes)

    def products(
        self, g: Array, x: Array, statistics: Statistics, scale: Array | None, root: Array
    ) -> tuple[Array, Array]:
        """The mean of `g * centred x * scale`, and for each channel the sum of `g * root * it`."""

        def exact() -> Array:
            return _sum(_wide(g) * _centred(x, statistics), self.axes)

        def raw() -> Array:
            g_sum = _sum(_wide(g), self.axes)
            return _sum(_wide(g) * _wide(x), self.axes) - statistics.offset * g_sum

        sums = _unless_badly_centred(statistics, raw, exact)
        mean = self._among(_times(sums, scale)) / math.prod(x.shape[axis] for axis in self.axes)
        return mean, (sums * root).reshape(-1, x.shape[-1]).sum(0)

    def a_value(self, x: Array) -> Array:
        """One of the values that share a statistic."""
        return Sharing(self.axes, self.groups).representative(x)

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
        """The mean of `values`, or of `values * scale`."""
        if scale is None:
            return values.mean(-1, keepdims=True)
        sums = values.reshape(-1, values.shape[-1]) @ scale.reshape(-1)
        return sums.reshape(*values.shape[:-1], 1) / values.shape[-1]

    def output(
        self, x: Array, statistics: Statistics, root: Array, scale: Array | None, bias: Array | None
    ) -> Array:
        """`centred x * root * scale + bias`."""
        y = _times(_affine(x, statistics, root, None), scale)
        return y if bias is None else y + bias

    def spread(self, cotangent: Array, shape: tuple[int, ...]) -> Array:
        """The transpose of `mean`, ready to broadcast to `shape`."""
        return cotangent / shape[-1]

    def products(
        self, g: Array, x: Array, statistics: Statistics, scale: Array | None, root: Array
    ) -> tuple[Array, Array]:
        """The mean of `g * centred x * scale`, and for each channel the sum of `g * root * it`."""
        product = _wide(g) * _centred(x, statistics)
        # A product for each example: the one long product would run on one core.
        examples = 1 if x.ndim == 2 else x.shape[0]
        rows = product.reshape(examples, -1, x.shape[-1])
        return self.mean(product, scale), (root.reshape(examples, 1, -1) @ rows).sum((0, 1))

    def a_value(self, x: Array) -> Array:
        """One of the values that share a statistic."""
        return Sharing((x.ndim - 1,)).representative(x)


Layout = Channels | Rows


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def normalised(
    layout: Layout, eps: float, x: Array, scale: Array | None, bias: Array | None
) -> tuple[Array, Statistics]:
    """`(x - mean) / sqrt(variance + eps) * scale + bias` in the dtype of `x`, and its statistics.

    Args:
        layout: which values share statistics.
        eps: added to the variance.
        x: `(..., C)`, any floating dtype.
        scale, bias: `(C,)` or None, float32 or wider.
    """
    scale, bias = (_beside(x, values) for values in (scale, bias))
    statistics = _statistics(layout, x)
    root = lax.rsqrt(statistics.variance + eps)
    y = layout.output(x, statistics, root, scale, bias)
    return y.astype(x.dtype), statistics


@normalised.defjvp
def _(layout: Layout, eps: float, primals: Any, tangents: Any) -> Any:
    results = normalised(layout, eps, *primals)
    x, scale, bias = primals
    maps = (partial(_tangent, layout, eps), partial(_cotangent, layout, eps, bias is not None))
    return results, linear(*maps, (x, scale, results[1]), tangents)


def _tangent(layout: Layout, eps: float, kept: Any, tangents: Any) -> Any:
    x, scale, statistics = kept
    dx, *affine = tangents
    scale, dscale, dbias = (_beside(x, values) for values in (scale, *affine))
    root = lax.rsqrt(statistics.variance + eps)
    c, t = _centred(x, statistics), _wide(dx)
    mean = layout.mean(t) if layout.centred else jnp.zeros_like(root)
    product = layout.mean(c * t)
    dy = _times(root, scale) * (t - mean - c * (root**2 * product))
    if dscale is not None:
        dy = dy + c * (root * dscale)
    if dbias is not None:
        dy = dy + dbias
    return dy.astype(dx.dtype), Statistics(jnp.zeros_like(root), mean, 2 * product)


def _cotangent(layout: Layout, eps: float, has_bias: bool, kept: Any, cotangents: Any) -> Any:
    x, scale, statistics = kept
    dy, (_, doffset, dvariance) = cotangents
    scale = _beside(x, scale)
    root = lax.rsqrt(statistics.variance + eps)
    product, dscale = layout.products(dy, x, statistics, scale, root)
    along = 2 * layout.spread(dvariance, x.shape) - root**3 * product
    level = jnp.zeros_like(root)
    if layout.centred:
        level = layout.spread(doffset, x.shape) - root * layout.mean(_wide(dy), scale)
    dx = _wide(dy) * _times(root, scale) + _affine(x, statistics, along, level)
    dbias = _wide(dy).sum(tuple(range(dy.ndim - 1))) if has_bias else None
    return dx.astype(dy.dtype), None if scale is None else dscale, dbias


def _statistics(layout: Layout, x: Array) -> Statistics:
    if not layout.centred:
        square = layout.mean(_wide(x) ** 2)
        return Statistics(jnp.zeros_like(square), jnp.zeros_like(square), square)

    def anew() -> Statistics:
        shift = _wide(layout.a_value(x))
        offset = layout.mean(_wide(x) - shift)
        return Statistics(shift, offset, layout.mean(((_wide(x) - shift) - offset) ** 2))

    mean = layout.mean(_wide(x))
    raw = Statistics(jnp.zeros_like(mean), mean, layout.mean(_wide(x) ** 2) - mean**2)
    return _unless_badly_centred(raw, lambda: raw, anew)


def _unless_badly_centred(statistics: Statistics, raw: Any, exact: Any) -> Any:
    """`raw()`, or `exact()` where that would lose digits; both give the same arrays."""
    if jax.default_backend() != "cpu":  # there a condition waits, and differences cost nothing
        return exact()
    shift, offset, variance = statistics
    # Written so that a NaN, of squares too large for the dtype, counts as badly centred.
    fits = jnp.all((shift == 0) & (offset**2 <= WELL_CENTRED**2 * variance))
    cheap = raw()  # outside the condition, in which sums are slower
    return lax.cond(fits, lambda: cheap, exact)


def _affine(x: Array, statistics: Statistics, slope: Array, level: Array | None) -> Array:
    """`slope * centred x + level`, as one product and two sums for each element."""
    moved = -statistics.offset * slope
    return (_wide(x) - statistics.shift) * slope + (moved if level is None else level + moved)


def _centred(x: Array, statistics: Statistics) -> Array:
    return (_wide(x) - statistics.shift) - statistics.offset


def _sum(values: Array, axes: tuple[int, ...]) -> Array:
    return values.sum(axes, keepdims=True)


def _repeated(values: Array, like: Array) -> Array:
    """For each channel of `like` the one number of `values`."""
    return jnp.broadcast_to(values, (*values.shape[:-1], like.shape[-1]))


def _beside(x: Array, values: Array | None) -> Array | None:
    """`(C,)` ready to broadcast to the `(..., C)` of `x`."""
    return None if values is None else values.reshape((1,) * (x.ndim - 1) + (-1,))


def _times(root: Array, scale: Array | None) -> Array:
    return root if scale is None else root * scale


def _wide(x: Array) -> Array:
    """In float32 or wider; done wherever `x` is used, so that no such copy is written down."""
    return x.astype(statistics_dtype(x))
