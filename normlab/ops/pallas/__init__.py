"""Kernels in Pallas, for GPUs. Nobody has measured them yet, so they serve only when asked for.

`NORMLAB_TUNING=pallas` in the environment asks for them, in a process with one GPU. XLA reads an
array once for its statistics and once more for the output. `rows.py` reads a row once, for
statistics and output alike, and once for its gradient. `columns.py` takes the sums over positions,
and leaves the pass over the array to XLA, which joins it with what stands around.

Statistics are taken in float32, about a value of the data and in two passes over what lies in
registers, so they are as exact as elsewhere. Parts are merged as Chan et al. (1983) merge moments.

A mask is not served: JAX computes it. Derivatives stay those of `ops/kernels.py`: first gradients
run in these kernels, and forward mode, second derivatives and `vmap` run as plain JAX.
"""

import math
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array
from normlab.ops.either import either
from normlab.ops.layouts import Channels, Layout, Rows, Statistics, beside, less_mean, times, wide
from normlab.ops.overflow import unless_overflowed

SETTING, ASKED = "NORMLAB_TUNING", "pallas"

NAME = "kernels on the GPU"
"""Under which provenance says what `chosen` says."""

DTYPES = ("float32", "bfloat16", "float16")
LEAST = 1 << 16
"""Arrays of fewer values are left to XLA, because the start of a kernel would take longer."""

WIDEST = 1 << 13
"""A longer row does not fit the registers of a program."""


def chosen() -> str:
    """Name what normalises large arrays on this GPU, or return nothing where it is XLA.

    >>> chosen()
    ''
    """
    asked = os.environ.get(SETTING, "").lower() == ASKED
    usable = asked and jax.default_backend() == "gpu" and jax.device_count() == 1
    return "pallas, not measured" if usable else ""


def serves(layout: Layout, x: Array) -> bool:
    """Return whether a kernel takes this input: a large array on the one GPU of a process."""
    return (
        bool(chosen())
        and x.dtype.name in DTYPES
        and all(isinstance(size, int) for size in x.shape)
        and x.size >= LEAST
        and fits(layout, x.shape)
    )


def fits(layout: Layout, shape: tuple[int, ...]) -> bool:
    """Return whether there is a kernel for statistics of that layout.

    >>> fits(Rows(), (64, 384)), fits(Rows(), (64, 100_000))
    (True, False)
    >>> fits(Channels((0, 1), 8), (4, 4, 8)), fits(Channels((0,), 8), (4, 4, 8))
    (True, False)
    """
    if isinstance(layout, Rows):
        return shape[-1] <= WIDEST
    return layout.axes == tuple(range(layout.axes[0], len(shape) - 1))


def forward(
    layout: Layout,
    eps: float,
    x: Array,
    scale: Array | None,
    bias: Array | None,
    plain: Any,
    interpret: bool = False,
) -> tuple[Array, Statistics]:
    """Normalise as `ops.kernels.normalised` does.

    Args:
        layout: which values share statistics.
        eps: added to the variance.
        x: `(..., C)`, of one of `DTYPES`.
        scale, bias: `(C,)` or None, float32.
        plain: the same function in JAX, see `either`.
        interpret: whether JAX carries out the kernels, on any device.
    """
    run = _rows_forward if isinstance(layout, Rows) else _columns_forward
    return either(partial(run, layout, eps, interpret), plain, x, scale, bias)


def cotangent(
    layout: Layout,
    eps: float,
    has_bias: bool,
    kept: Any,
    cotangents: Any,
    plain: Any,
    interpret: bool = False,
) -> tuple[Array, Array | None, Array | None]:
    """Compute the gradient of `forward`.

    Args:
        layout, eps, interpret: as in `forward`.
        has_bias: whether the gradient of a bias is asked for.
        kept: x, scale and the statistics.
        cotangents: those of y and of the statistics.
        plain: the same function in JAX, see `either`.
    """
    run = _rows_cotangent if isinstance(layout, Rows) else _columns_cotangent
    return either(partial(run, layout, eps, has_bias, interpret), plain, kept, cotangents)


def _affine(x: Array, scale: Array | None, bias: Array | None) -> tuple[Array, Array]:
    ones = jnp.ones(x.shape[-1], jnp.float32)
    return ones if scale is None else scale, 0 * ones if bias is None else bias


def _rows_forward(
    layout: Rows, eps: float, interpret: bool, x: Array, scale: Array | None, bias: Array | None
) -> tuple[Array, Statistics]:
    from normlab.ops.pallas import rows

    flat, shared = x.reshape(-1, x.shape[-1]), (*x.shape[:-1], 1)
    y, *found = rows.forward(flat, *_affine(x, scale, bias), eps, layout.centred, interpret)
    return y.reshape(x.shape), Statistics(*(values.reshape(shared) for values in found))


def _rows_cotangent(
    layout: Rows, eps: float, has_bias: bool, interpret: bool, kept: Any, cotangents: Any
) -> tuple[Array, Array | None, Array | None]:
    from normlab.ops.pallas import rows

    x, scale, statistics = kept
    dy, (_, doffset, dvariance) = cotangents
    along = 2 * layout.spread(dvariance, x.shape)
    level = layout.spread(doffset, x.shape) if layout.centred else jnp.zeros_like(along)
    of_rows = [values.reshape(-1) for values in (*statistics, along, level)]
    flat, flat_dy = (values.reshape(-1, x.shape[-1]) for values in (x, dy))
    given, _ = _affine(x, scale, None)
    dx, dscale, dbias = rows.cotangent(
        flat, flat_dy, given, of_rows, eps, layout.centred, interpret
    )
    dx = dx.reshape(x.shape)
    return dx, None if scale is None else dscale, dbias if has_bias else None


def _sizes(layout: Channels, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the sizes of axes with a statistic each, of those that share one, and of channels."""
    first = layout.axes[0]
    return math.prod(shape[:first]), math.prod(shape[first:-1]), shape[-1]


def _columns_forward(
    layout: Channels, eps: float, interpret: bool, x: Array, scale: Array | None, bias: Array | None
) -> tuple[Array, Statistics]:
    from normlab.ops.pallas import columns

    sizes, shared = _sizes(layout, x.shape), _shared(layout, x.shape)
    shift = wide(layout.a_value(x)) if layout.centred else jnp.zeros(shared, jnp.float32)
    shift = jnp.broadcast_to(shift, shared)
    means, squares = columns.moments(
        x.reshape(sizes), shift.reshape(sizes[0], -1), layout.centred, interpret
    )
    mean = means.reshape(shared)
    offset = _among(layout, mean) if layout.centred else jnp.zeros_like(mean)
    between = (mean - offset) ** 2 if layout.centred else 0
    variance = unless_overflowed(_among(layout, squares.reshape(shared) + between))
    statistics = Statistics(shift, offset, variance)
    root = lax.rsqrt(variance + eps)
    y = layout.output(x, statistics, root, beside(x, scale), beside(x, bias))
    return y.astype(x.dtype), statistics


def _columns_cotangent(
    layout: Channels, eps: float, has_bias: bool, interpret: bool, kept: Any, cotangents: Any
) -> tuple[Array, Array | None, Array | None]:
    from normlab.ops.pallas import columns

    x, scale, statistics = kept
    dy, (_, doffset, dvariance) = cotangents
    sizes, shared = _sizes(layout, x.shape), _shared(layout, x.shape)
    shift, offset = (values.reshape(sizes[0], -1) for values in statistics[:2])
    found = columns.products(dy.reshape(sizes), x.reshape(sizes), shift, offset, interpret)
    sums, products = (values.reshape(shared) for values in found)
    root, given = lax.rsqrt(statistics.variance + eps), beside(x, scale)
    product = _among(layout, times(products, given)) / sizes[1]
    along = 2 * layout.spread(dvariance, x.shape) - root * (root * (root * product))
    level = jnp.zeros_like(root)
    if layout.centred:
        mean = _among(layout, times(sums, given)) / sizes[1]
        level = layout.spread(doffset, x.shape) - root * mean
    dx = wide(dy) * times(root, given) + (less_mean(x, statistics) * along + level)
    of_channels = [values.reshape(-1, sizes[2]).sum(0) for values in (products * root, sums)]
    return (
        dx.astype(dy.dtype),
        None if scale is None else of_channels[0],
        of_channels[1] if has_bias else None,
    )


def _shared(layout: Channels, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of statistics, a number for each channel."""
    return tuple(1 if axis in layout.axes else size for axis, size in enumerate(shape))


def _among(layout: Channels, values: Array) -> Array:
    """Average over the channels of each group, and repeat it for each of them."""
    grouped = values.reshape(*values.shape[:-1], layout.groups, -1)
    means = jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape)
    return means.reshape(values.shape)


__all__ = ["ASKED", "DTYPES", "NAME", "SETTING", "chosen", "cotangent", "fits", "forward", "serves"]
