"""The three passes of a convolution, each as every backend and as XLA's CPU has it fastest.

Images are `(N, H, W, C)`, kernels `(h, w, C, D)`; `padding` is a pair (before, after) for rows and
for columns, and `size` the rows and columns of what a gradient is of.
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

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def both(function: Callable[..., Any], *values: Any) -> tuple[Any, Any]:
    """A function of the values for the rows, and of those for the columns."""
    return tuple(map(function, *values))


# As `lax` has them: on every backend but the CPU, and the truth that the others are tested against.


def lax_convolution(x: Array, kernel: Array, *, strides: Pair, padding: Padding) -> Array:
    """The convolution of `x` with `kernel`."""
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def lax_input_gradient(
    dy: Array, kernel: Array, *, strides: Pair, padding: Padding, size: Pair
) -> Array:
    """Of `x`, whose size is given, as autodiff has it."""
    x = jax.ShapeDtypeStruct((dy.shape[0], *size, kernel.shape[2]), dy.dtype)
    one = partial(lax_convolution, strides=strides, padding=padding)
    return jax.linear_transpose(lambda x: one(x, kernel), x)(dy)[0]


def lax_kernel_gradient(
    x: Array, dy: Array, *, strides: Pair, padding: Padding, size: Pair
) -> Array:
    """Of the kernel, whose size is given, as autodiff has it."""
    kernel = jax.ShapeDtypeStruct((*size, x.shape[3], dy.shape[3]), x.dtype)
    one = partial(lax_convolution, strides=strides, padding=padding)
    return jax.linear_transpose(lambda kernel: one(x, kernel), kernel)(dy)[0]


# As XLA's CPU has them fastest.

CHUNK = 8
"""Images whose patches are made at once: few enough that they stay in a cache."""


def cpu_convolution(x: Array, kernel: Array, *, strides: Pair, padding: Padding) -> Array:
    """1x1: every pixel's product with the kernel. Else XLA's own."""
    if kernel.shape[:2] == (1, 1):
        return _every(_padded(x, padding), strides) @ kernel[0, 0]
    return lax_convolution(x, kernel, strides=strides, padding=padding)


def cpu_input_gradient(
    dy: Array, kernel: Array, *, strides: Pair, padding: Padding, size: Pair
) -> Array:
    """A convolution of `dy` again; with strides, XLA's would multiply zeros, and patches do not."""
    widths, pixels = kernel.shape[:2], dy.shape[1:3]
    low = tuple(before for before, _ in padding)
    if strides == (1, 1) and widths != (1, 1):
        # The convolution of `dy` with the kernel turned round.
        around = both(lambda k, p, n, m: (k - 1 - p, n + p - m), widths, low, size, pixels)
        turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
        return lax_convolution(dy, turned, strides=strides, padding=around)
    # Of every pixel of `dy` the patch that it came from; patches that overlap are added.
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
    """A convolution of `x` with `dy`; with strides, patches of `x` times `dy`, some images at once.

    (XLA's convolution is two times slower there.)
    """
    if size == (1, 1):
        return _product(_every(_padded(x, padding), strides), dy)[None, None]
    if strides == (1, 1):
        # The channels of `x` are the batch, `dy` is the kernel, and images are what is summed over.
        around = both(
            lambda k, pads, n, m: (pads[0], k + m - 1 - n - pads[0]),
            size, padding, x.shape[1:3], dy.shape[1:3],
        )  # fmt: skip
        x, dy = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
        found = lax_convolution(x, dy, strides=strides, padding=around)
        return found.transpose(1, 2, 0, 3)
    chunks = len(x) // CHUNK if len(x) % CHUNK == 0 else 1
    kernel = (*size, x.shape[3], dy.shape[3])

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = part
        patches = _patches(_padded(x, padding), strides, size, (dy.shape[1], dy.shape[2]))
        return total + _product(patches, dy), None

    start = jnp.zeros((math.prod(kernel[:3]), kernel[3]), x.dtype)
    x, dy = (a.reshape(chunks, -1, *a.shape[1:]) for a in (x, dy))
    return lax.scan(add, start, (x, dy))[0].reshape(kernel)


def _product(x: Array, dy: Array) -> Array:
    """`(C, D)`: summed over images and pixels."""
    return jnp.tensordot(x, dy, ((0, 1, 2), (0, 1, 2)))


def _patches(x: Array, strides: Pair, size: Pair, pixels: Pair) -> Array:
    """`(N, H', W', h w C)`: of every output pixel all that it sees."""
    height, width = both(lambda m, s: (m - 1) * s + 1, pixels, strides)
    seen = [_every(x[:, i : i + height, j : j + width], strides) for i, j in np.ndindex(size)]
    return jnp.concatenate(seen, axis=-1)


def _every(x: Array, strides: Pair) -> Array:
    return x[:, :: strides[0], :: strides[1]]


def _padded(x: Array, padding: Padding, apart: Pair = (1, 1)) -> Array:
    """Zeros around an image and between its pixels; less than none cuts off."""
    inner = [(*pads, stride - 1) for pads, stride in zip(padding, apart, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
