"""Gives each channel a learnt scale and bias, which nearly every normaliser ends with."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import jax.numpy as jnp

from normlab.catalogue import later
from normlab.core import Array, Facts, Params, State
from normlab.errors import require_field
from normlab.ops.masks import zero_masked
from normlab.ops.moments import ShapeError

SMALLEST_EPS = 2.0**-126  # the smallest normal float32: anything less is flushed to zero
LARGEST_EPS = 2.0**128  # the first power of two that float32 calls infinite


def scale_and_shift(
    z: Array, like: Array, scale: Array | None, bias: Array | None, mask: Array | None
) -> Array:
    """Compute `z * scale + bias` in z's precision, in the dtype of `like`; zero where masked.

    Args:
        z: `(..., C)`, float32 or wider. What it holds where masked must be finite: the gradient of
            `scale` multiplies it by zero.
        like: the array whose dtype the result takes.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        mask: True where an element counts, or None.

    Raises:
        ShapeError: scale or bias is not one number a channel, or the mask does not fit.
    """
    if scale is not None:
        z = z * per_channel("scale", scale, z)
    if bias is not None:
        z = z + per_channel("bias", bias, z)
    return zero_masked(z.astype(like.dtype), mask)


def affine_params(features: int, use_scale: bool, use_bias: bool) -> Params:
    """Make a scale of one and a bias of zero, float32, `(features,)`, as far as they are wanted."""
    params: Params = {}
    if use_scale:
        params["scale"] = jnp.ones((features,), jnp.float32)
    if use_bias:
        params["bias"] = jnp.zeros((features,), jnp.float32)
    return params


def require_eps(eps: float) -> None:
    """Raise `FieldError` unless `eps` keeps a root from zero in float32.

    >>> require_eps(0.0)
    Traceback (most recent call last):
    normlab.errors.FieldError: eps must be a positive number that float32 can hold, got 0.0
    """
    fits = isinstance(eps, Real) and SMALLEST_EPS <= eps < LARGEST_EPS
    require_field(fits, "eps", eps, "a positive number that float32 can hold")


@dataclass(frozen=True, kw_only=True)
class Standardiser:
    """The fields and the `init` of a normaliser that divides by a deviation.

    Attributes:
        eps: added to the variance (or mean square), inside the square root.
        use_scale: learn a scale for each channel; False fixes it at 1.
        use_bias: learn a bias for each channel; False fixes it at 0.
        zero_centred: keep the scale as its distance from one, `1 + scale`, so that it begins at
            zero and weight decay pulls it to one (as in Gemma and Transformer Engine).
    """

    facts: ClassVar[Facts]

    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    zero_centred: bool = later(False)

    def __post_init__(self) -> None:
        require_eps(self.eps)

    def init(self, features: int) -> tuple[Params, State]:
        return affine_params(features, self.use_scale, self.use_bias), {}


@dataclass(frozen=True, kw_only=True)
class PerExample(Standardiser, ABC):
    """A normaliser without state, wholly given by its function of one call."""

    @abstractmethod
    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        """Normalise the input."""

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return self.normalise(x, params.get("scale"), params.get("bias"), mask), state


def per_channel(name: str, values: Array, z: Array) -> Array:
    """Return `(C,)` in the precision of `z`, ready to broadcast to its `(..., C)`.

    Raises:
        ShapeError: it is not one number a channel; the message calls it `name`.
    """
    shape = jnp.shape(values)
    if shape != z.shape[-1:]:
        raise ShapeError(
            f"{name} has shape {shape}, but the input has {z.shape[-1]} channels (last axis)"
        )
    return jnp.asarray(values).astype(z.dtype).reshape((1,) * (z.ndim - 1) + shape)


def one_number(name: str, value: Array | float, z: Array) -> Array:
    """Return a number for all channels in the precision of `z`.

    Raises:
        ShapeError: it has axes; the message calls it `name`.
    """
    if jnp.shape(value):
        raise ShapeError(f"{name} is one number for all channels, got shape {jnp.shape(value)}")
    return jnp.asarray(value).astype(z.dtype)
