"""Handles masks, which say which elements of an array count."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from normlab.core import Array
from normlab.errors import MaskError, ShapeError


def fit_mask(mask: Array, x: Array) -> Array:
    """Return the mask as booleans of `x`'s shape.

    Raises:
        MaskError: it is neither of booleans nor of whole numbers that are all 0 or 1, which can
            only be seen outside of `jax.jit` and its like.
        ShapeError: it has another number of axes, or cannot be broadcast. A mask of shape (N, C)
            for an input (N, H, W, C) is refused instead of guessed at.

    >>> fit_mask(jnp.array([[1, 0]]), jnp.ones((2, 2))).tolist()
    [[True, False], [True, False]]
    """
    mask = _booleans(mask)
    sizes = zip(mask.shape, x.shape, strict=False)
    fits = mask.ndim == x.ndim and all(own in (1, full) for own, full in sizes)
    if not fits:
        raise ShapeError(
            f"a mask of shape {mask.shape} does not fit an input of shape {x.shape}: it needs "
            f"{x.ndim} axes, each of size 1 or the input's, for example {(*x.shape[:-1], 1)}"
        )
    return jnp.broadcast_to(mask, x.shape)


def zero_masked(y: Array, mask: Array | None) -> Array:
    """Return `y` with zeros where the mask is False, whatever stood there."""
    return y if mask is None else jnp.where(fit_mask(mask, y), y, 0)


def _booleans(mask: Array) -> Array:
    mask = jnp.asarray(mask)
    if mask.dtype == bool:
        return mask
    means = "True where an element counts"
    if not jnp.issubdtype(mask.dtype, jnp.integer):
        raise MaskError(
            f"a mask is of booleans, {means}, got {mask.dtype}: give 'mask > 0' for one of ones "
            "and zeros, 'mask == 0' for one that is added (0 and -inf)"
        )
    if isinstance(mask, Tracer):
        raise MaskError(
            f"a mask of {mask.dtype} can only be read outside of jax.jit, where its values are "
            f"seen to be 0 or 1: give booleans, {means}, for example 'mask == 1'"
        )
    others = np.setdiff1d(np.asarray(mask), (0, 1))
    if others.size:
        raise MaskError(
            f"a mask of whole numbers holds 0 and 1 alone, got {others[:3].tolist()}: give "
            f"booleans, {means}, for example 'mask == 1'"
        )
    return mask.astype(bool)
