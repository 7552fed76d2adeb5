"""Computes mean, variance and norm of the units of a kernel, for all kernel transforms.

A unit is what makes one output: all of a kernel `(..., in, out)` at one place of its last axis.
Results have the kernel's number of axes, of size 1 but for the last.
"""

import math

import jax.numpy as jnp
from jax import lax

from normlab.core import Array
from normlab.errors import KernelError


def widened(kernel: Array) -> Array:
    """Return the kernel in float32, or in its own dtype where that is wider.

    Raises:
        KernelError: it is not of floating-point numbers, or has no axis for inputs.
    """
    if kernel.ndim < 2 or not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise KernelError(
            "a kernel transform needs floating-point numbers (..., in, out), got "
            f"{kernel.dtype}{list(kernel.shape)}"
        )
    return kernel.astype(jnp.float64 if kernel.dtype == jnp.float64 else jnp.float32)


def fan_in(kernel: Array) -> int:
    """Return how many numbers a unit has.

    >>> fan_in(jnp.ones((3, 3, 16, 32)))
    144
    """
    return math.prod(kernel.shape[:-1])


def centre(kernel: Array) -> Array:
    """Subtract each unit's mean: exact to rounding at any mean, and zero where it is constant.

    The mean is taken away twice, first as it is in floating point, kept within the unit's range so
    that it hits a constant, and then what that left of it.

    Args:
        kernel: `(..., in, out)`, float32 or wider.

    Raises:
        KernelError: a unit has one number only, so nothing would be left of it.

    >>> centre(jnp.array([[1e4, 7.0], [1e4 + 2, 7.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    if fan_in(kernel) < 2:
        size = "one number" if fan_in(kernel) else "no number"
        raise KernelError(
            f"a kernel of shape {kernel.shape} has {size} for each output, so nothing would be "
            "left when its mean is taken away: use a transform that takes no mean, as weight_norm"
        )
    axes = tuple(range(kernel.ndim - 1))
    mean = kernel.mean(axes, keepdims=True)
    lowest, highest = kernel.min(axes, keepdims=True), kernel.max(axes, keepdims=True)
    shifted = kernel - lax.stop_gradient(jnp.clip(mean, lowest, highest))
    return shifted - shifted.mean(axes, keepdims=True)


def mean_square(kernel: Array) -> Array:
    """Average each unit's squares; a centred kernel's are its biased variance.

    It is NaN where it does not fit in the dtype: what is divided by infinity would be zero.
    """
    square = jnp.mean(kernel**2, axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    return jnp.where(jnp.isinf(square), jnp.nan, square)


def norm(kernel: Array) -> Array:
    """Compute the length of each unit, whatever its size; the gradient at zero is zero.

    >>> [f"{length:.0e}" for length in norm(jnp.array([[3e30, 0.0], [4e30, 0.0]]))[0]]
    ['5e+30', '0e+00']
    """
    axes = tuple(range(kernel.ndim - 1))
    # Of what is relative to the largest, squares neither overflow nor vanish. The length does not
    # depend on what it is measured in, so no derivative goes through that.
    largest = lax.stop_gradient(jnp.abs(kernel).max(axes, keepdims=True, initial=0))
    relative = kernel / jnp.where(largest == 0, 1, largest)
    return largest * positive_root(jnp.sum(relative**2, axis=axes, keepdims=True))


def positive_root(square: Array) -> Array:
    """Take the square root, with a derivative of zero at zero instead of an infinite one."""
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def unit_length(kernel: Array) -> Array:
    """Divide each unit by its length; zero stays zero, and what is not finite becomes NaN."""
    length = norm(kernel)
    return kernel / jnp.where(length == 0, 1, length)


def per_unit(gain: Array, kernel: Array) -> Array:
    """Return `(out,)` in the kernel's precision, ready to broadcast to it.

    Raises:
        KernelError: it is not one number for each output.
    """
    shape = jnp.shape(gain)
    if shape != kernel.shape[-1:]:
        raise KernelError(
            f"gain has shape {shape}, but the last axis of the kernel has {kernel.shape[-1]}"
        )
    return jnp.asarray(gain).astype(kernel.dtype).reshape((1,) * (kernel.ndim - 1) + shape)
