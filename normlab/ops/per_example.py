"""Gives each condition or domain its own scale and bias, or statistics."""

import math

import jax.numpy as jnp

from normlab.core import Array, Params
from normlab.errors import require_field
from normlab.ops.normalise import Centred


def require_count(name: str, value: int) -> None:
    """Raise `FieldError` unless there is one condition or domain at least."""
    require_field(value >= 1, name, value, "a positive whole number")


def for_each(number: int, tree: Params) -> Params:
    """Repeat the leaves for each condition or domain, along a leading axis."""
    return {name: jnp.broadcast_to(leaf, (number, *leaf.shape)) for name, leaf in tree.items()}


def per_example(values: Array, x: Array) -> Array:
    """Reshape `(N,)` or `(N, C)` to broadcast to `(N, ..., C)`."""
    return values.reshape(values.shape[0], *(1,) * (x.ndim - 2), math.prod(values.shape[1:]))


def times(centred: Centred, root: Array, each: Params) -> Array:
    """Compute `centred * root * scale + bias`, scale and bias of each example (or part)."""
    slope = root * each["scale"].astype(root.dtype) if "scale" in each else root
    level = each["bias"].astype(root.dtype) if "bias" in each else None
    return centred.times(slope, level)
