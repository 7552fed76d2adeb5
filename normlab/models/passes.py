"""Implements the three passes of a convolution, for any backend and faster for XLA's CPU backend.

Images are `(N, H, W, C)` and kernels `(h, w, C, D)`. `padding` has a pair (before, after) for rows
and one for columns. `size` is the number of rows and columns of a gradient.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from normlab.core import Array
from normlab.ops import native

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def both(function: Callable[..., Any], *values: Any) -> tuple[Any, Any]:
    """Apply a function to the values for rows and to the values for columns."""
    return tuple(map(function, *values))


# The passes by `lax`, for every backend but the CPU. The CPU's passes are tested against them.


def lax_convolution(x: Array, kernel: Array, *, strides: Pair, padding: Padding) -> Array:
    """Convolve `x` with `kernel`."""
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def lax_input_gradient(
    dy: Array, kernel: Array, *, strides: Pair, padding: Padding, size: Pair
) -> Array:
    """Compute the gradient with respect to `x`, which has the given size, as autodiff does."""
    x = jax.ShapeDtypeStruct((dy.shape[0], *size, kernel.shape[2]), dy.dtype)
    one = partial(lax_convolution, strides=strides, padding=padding)
    return jax.linear_transpose(lambda x: one(x, kernel), x)(dy)[0]


def lax_kernel_gradient(
    x: Array, dy: Array, *, strides: Pair, padding: Padding, size: Pair
) -> Array:
    """Compute the gradient with respect to the kernel of the given size, as autodiff does."""
    kernel = jax.ShapeDtypeStruct((*size, x.shape[3], dy.shape[3]), x.dtype)
    one = partial(lax_convolution, strides=strides, padding=padding)
    return jax.linear_transpose(lambda kernel: one(x, kernel), kernel)(dy)[0]


# The fastest passes for XLA's CPU backend.

CHUNK = 8
"""Number of images whose patches are made at once: few enough to stay in a cache."""


def cpu_convolution(x: Array, kernel: Array, *, strides: Pair, padding: Padding) -> Array:
    """Convolve by a matrix product for a 1x1 kernel, and by XLA's convolution otherwise."""
    if kernel.shape[:2] == (1, 1):
        return _every(_padded(x, padding), strides) @ kernel[0, 0]
    return lax_convolution(x, kernel, strides=strides, padding=padding)


def cpu_input_gradient(
    dy: Array, kernel: Array, *, strides: Pair, padding: Padding, size: Pair
) -> Array:
    """Convolve `dy` without strides; with strides add up patches, as XLA would multiply zeros."""
    widths, pixels = kernel.shape[:2], dy.shape[1:3]
    low = tuple(before for before, _ in padding)
    if strides == (1, 1) and widths != (1, 1):
        # The convolution of `dy` with the rotated kernel.
        around = both(lambda k, p, n, m: (k - 1 - p, n + p - m), widths, low, size, pixels)
        turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
        return lax_convolution(dy, turned, strides=strides, padding=around)
    # Every pixel of `dy` contributes to the patch that it came from; overlapping patches add up.
    patches = jnp.split(dy @ kernel.reshape(-1, kernel.shape[3]).T, math.prod(widths), axis=-1)
    total = jnp.zeros((), dy.dtype)
    for place, patch in zip(np.ndindex(widths), patches, strict=True):
        around = both(
            lambda i, p, n, m, s: (i - p, n + p - i - (m - 1) * s - 1),
            place, low, size, pixels, strides,
        )  # fmt: skip
        total = total + _padded(patch, around, strides)
    return total


def cpu_kernel_gradient(
    x: Array, dy: Array, *, strides: Pair, padding: Padding, size: Pair
) -> Array:
    """Multiply for a 1x1 kernel; else call a compiled kernel where it serves, or compute by JAX."""
    if size == (1, 1):
        return _product(_every(_padded(x, padding), strides), dy)[None, None]
    plain = partial(_kernel_gradient, strides=strides, padding=padding, size=size)
    if not native.serves_kernel_gradient(x, dy):
        return plain(x, dy)
    before = (padding[0][0], padding[1][0])
    return native.kernel_gradient(x, dy, strides, before, size, plain)


def _kernel_gradient(x: Array, dy: Array, *, strides: Pair, padding: Padding, size: Pair) -> Array:
    """Convolve `x` with `dy`, or multiply patches by `dy`.

    The patches, of some images at once, are for strides, with which XLA's convolution is slower.
    """
    if strides == (1, 1):
        # The channels of `x` are the batch, `dy` is the kernel, and the sum is over images.
        around = both(
            lambda k, pads, n, m: (pads[0], k + m - 1 - n - pads[0]),
            size, padding, x.shape[1:3], dy.shape[1:3],
        )  # fmt: skip
        x, dy = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
        found = lax_convolution(x, dy, strides=strides, padding=around)
        return found.transpose(1, 2, 0, 3)
    images = x.shape[0]  # not an integer in a program that is exported for any number
    chunks = images // CHUNK if images % CHUNK == 0 else 1
    kernel = (*size, x.shape[3], dy.shape[3])

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = part
        patches = _patches(_padded(x, padding), strides, size, (dy.shape[1], dy.shape[2]))
        return total + _product(patches, dy), None

    start = jnp.zeros((math.prod(kernel[:3]), kernel[3]), x.dtype)
    x, dy = (a.reshape(chunks, -1, *a.shape[1:]) for a in (x, dy))
    return lax.scan(add, start, (x, dy))[0].reshape(kernel)


def _product(x: Array, dy: Array) -> Array:
    """Multiply and sum over images and pixels: `(C, D)`."""
    return jnp.tensordot(x, dy, ((0, 1, 2), (0, 1, 2)))


def _patches(x: Array, strides: Pair, size: Pair, pixels: Pair) -> Array:
    """Collect the input patch of every output pixel: `(N, H', W', h w C)`."""
    height, width = both(lambda m, s: (m - 1) * s + 1, pixels, strides)
    seen = [_every(x[:, i : i + height, j : j + width], strides) for i, j in np.ndindex(size)]
    return jnp.concatenate(seen, axis=-1)


def _every(x: Array, strides: Pair) -> Array:
    return x[:, :: strides[0], :: strides[1]]


def _padded(x: Array, padding: Padding, apart: Pair = (1, 1)) -> Array:
    """Put zeros around an image and between its pixels; negative padding crops it."""
    inner = [(*pads, stride - 1) for pads, stride in zip(padding, apart, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
