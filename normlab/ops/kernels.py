"""Standardises fast, as most normalisers end: statistics, output and gradient as one.

JAX's own derivative of `(x - mean) / sqrt(variance + eps) * scale + bias` writes and reads a dozen
arrays of the size of `x`. Here it is one function with its derivative in closed form: forward, two
sums and one pass; backward, three sums and one pass. A layout says which values share statistics.

`statistics` and `scaled` are its two halves, for normalisers that put something else between them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array
from normlab.ops import native, pallas
from normlab.ops.layouts import (
    Layout,
    Statistics,
    affine,
    beside,
    less_mean,
    sum_along,
    summed,
    times,
    unless_badly_centred,
    wide,
)
from normlab.ops.linear import linear
from normlab.ops.overflow import unless_overflowed


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _normalised(
    layout: Layout, eps: float, x: Array, scale: Array | None, bias: Array | None
) -> tuple[Array, Statistics]:
    """Return `(x - mean) / sqrt(variance + eps) * scale + bias`, and the statistics.

    Args:
        layout: which values share statistics.
        eps: added to the variance.
        x: `(..., C)`, any floating dtype.
        scale, bias: `(C,)` or None, float32 or wider.
    """
    for own in (native, pallas):
        if own.serves(layout, x):
            return own.forward(layout, eps, x, scale, bias, partial(_in_jax, layout, eps))
    return _in_jax(layout, eps, x, scale, bias)


def _in_jax(
    layout: Layout, eps: float, x: Array, scale: Array | None, bias: Array | None
) -> tuple[Array, Statistics]:
    scale, bias = (beside(x, values) for values in (scale, bias))
    statistics = _computed(layout, x)
    root = lax.rsqrt(statistics.variance + eps)
    y = layout.output(x, statistics, root, scale, bias)
    return y.astype(x.dtype), statistics


@_normalised.defjvp
def _(layout: Layout, eps: float, primals: Any, tangents: Any) -> Any:
    results = normalised(layout, eps, *primals)
    x, scale, bias = primals
    maps = (partial(_tangent, layout, eps), partial(_cotangent, layout, eps, bias is not None))
    return results, linear(*maps, (x, scale, results[1]), tangents)


def _tangent(layout: Layout, eps: float, kept: Any, tangents: Any) -> Any:
    x, scale, statistics = kept
    dx, *learnt = tangents
    scale, dscale, dbias = (beside(x, values) for values in (scale, *learnt))
    root = lax.rsqrt(statistics.variance + eps)
    c, t = less_mean(x, statistics), wide(dx)
    mean = layout.mean(t) if layout.centred else jnp.zeros_like(root)
    product = layout.mean(c * t)
    dy = times(root, scale) * (t - mean - c * (root * (root * product)))
    if dscale is not None:
        dy = dy + c * (root * dscale)
    if dbias is not None:
        dy = dy + dbias
    return dy.astype(dx.dtype), Statistics(jnp.zeros_like(root), mean, 2 * product)


def _cotangent(layout: Layout, eps: float, has_bias: bool, kept: Any, cotangents: Any) -> Any:
    in_jax = partial(_cotangent_in_jax, layout, eps, has_bias)
    if native.serves(layout, kept[0], backward=True):
        return native.cotangent(layout, eps, has_bias, kept, cotangents, in_jax)
    if pallas.serves(layout, kept[0]):
        return pallas.cotangent(layout, eps, has_bias, kept, cotangents, in_jax)
    return in_jax(kept, cotangents)


def _cotangent_in_jax(
    layout: Layout, eps: float, has_bias: bool, kept: Any, cotangents: Any
) -> Any:
    x, scale, statistics = kept
    dy, (_, doffset, dvariance) = cotangents
    scale = beside(x, scale)
    root = lax.rsqrt(statistics.variance + eps)
    product, dscale = layout.products(dy, x, statistics, scale, root)
    # Not root**3, which leaves float32 where the root itself is far within it.
    along = 2 * layout.spread(dvariance, x.shape) - root * (root * (root * product))
    level = jnp.zeros_like(root)
    if layout.centred:
        level = layout.spread(doffset, x.shape) - root * layout.mean(wide(dy), scale)
    dx = wide(dy) * times(root, scale) + affine(x, statistics, along, level)
    dbias = wide(dy).sum(tuple(range(dy.ndim - 1))) if has_bias else None
    return dx.astype(dy.dtype), None if scale is None else dscale, dbias


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _statistics(layout: Layout, x: Array) -> Statistics:
    """Return the statistics that `normalised` divides by, for callers that go on with `scaled`."""
    return _computed(layout, x)


@_statistics.defjvp
def _(layout: Layout, primals: Any, tangents: Any) -> Any:
    found = statistics(layout, *primals)

    def tangent(kept: Any, dx: Array) -> Statistics:
        x, found = kept
        nothing = jnp.zeros_like(found.shift)
        offset = layout.mean(wide(dx)) if layout.centred else nothing
        return Statistics(nothing, offset, 2 * layout.mean(less_mean(x, found) * wide(dx)))

    def cotangent(kept: Any, cotangents: Statistics) -> Array:
        x, found = kept
        along = 2 * layout.spread(cotangents.variance, x.shape)
        level = layout.spread(cotangents.offset, x.shape) if layout.centred else None
        return affine(x, found, along, level).astype(x.dtype)

    return found, linear(tangent, cotangent, (*primals, found), *tangents)


@jax.custom_jvp
def _scaled(x: Array, about: Statistics, slope: Array, level: Array) -> Array:
    """Compute `(x - mean) * slope + level`, float32 or wider.

    Args:
        x: `(..., C)`, any floating dtype.
        about: its statistics, or others; the variance only says what is large.
        slope, level: float32 or wider; at each axis size 1 or that of `x`.
    """
    return affine(x, about, slope, level)


@_scaled.defjvp
def _(primals: Any, tangents: Any) -> Any:
    x, about, slope, level = primals

    def tangent(kept: Any, tangents: Any) -> Array:
        x, about, slope = kept
        dx, moved, dslope, dlevel = tangents
        dx = (wide(dx) - moved.shift) - moved.offset
        return dx * slope + less_mean(x, about) * dslope + dlevel

    def cotangent(kept: Any, g: Array) -> Any:
        x, about, slope = kept
        shapes = about.offset.shape, slope.shape, level.shape
        axes = tuple(i for i, sizes in enumerate(zip(*shapes, strict=True)) if max(sizes) == 1)
        total = summed(g, axes)
        moved = _sum_to(about.offset.shape, -total * slope)
        return (
            (g * slope).astype(x.dtype),
            Statistics(moved, moved, jnp.zeros_like(moved)),
            _sum_to(slope.shape, sum_along(g, x, about, axes)),
            _sum_to(level.shape, total),
        )

    return scaled(*primals), linear(tangent, cotangent, (x, about, slope), tangents)


# Each is compiled as one. Outside of `jax.jit` the condition in them would be compiled anew at each
# call, a hundred times as slow; within, layers of one shape are traced but once.
normalised = jax.jit(_normalised, static_argnums=(0, 1))
statistics = jax.jit(_statistics, static_argnums=0)
scaled = jax.jit(_scaled)


def _computed(layout: Layout, x: Array) -> Statistics:
    found = _found(layout, x)
    if layout.is_one_loop(x):  # which a second use of the variance would part
        return found
    return found._replace(variance=unless_overflowed(found.variance))


def _found(layout: Layout, x: Array) -> Statistics:
    if not layout.centred:
        square = layout.mean(wide(x) ** 2)
        return Statistics(jnp.zeros_like(square), jnp.zeros_like(square), square)

    def anew() -> Statistics:
        shift = wide(layout.a_value(x))
        offset = layout.mean(wide(x) - shift)
        return Statistics(shift, offset, layout.mean(((wide(x) - shift) - offset) ** 2))

    mean = layout.mean(wide(x))
    if layout.is_one_loop(x):
        return Statistics(jnp.zeros_like(mean), mean, layout.mean((wide(x) - mean) ** 2))
    raw = Statistics(jnp.zeros_like(mean), mean, layout.mean(wide(x) ** 2) - mean**2)
    return unless_badly_centred(raw, lambda: raw, anew)


def _sum_to(shape: tuple[int, ...], values: Array) -> Array:
    """Sum values over the axes at which `shape` has size 1, to undo a broadcast."""
    return summed(values, tuple(axis for axis, size in enumerate(shape) if size == 1))
