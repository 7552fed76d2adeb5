"""Layers whose weights are unit vectors, and the factors that such a network learns instead."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.models.slots import NORM
from normlab.norms.scale import scale_norm

Axis = int

_start = nn.initializers.normal(1.0)


def unit(x: Array, axis: Axis = -1) -> Array:
    """Divide vectors along an axis by their length; a vector of zeros stays as it is.

    >>> unit(jnp.array([[0.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    last = jnp.moveaxis(x, axis, -1)
    return jnp.moveaxis(scale_norm(last, 1.0, eps=1e-12), -1, axis)


class FromSphere(nn.Module):
    """Multiplies vectors `(..., C)` by unit vectors of as many channels, one for each output.

    Attributes:
        features: the number of outputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Compute `(..., features)`, in the dtype of `x`."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", lambda key: unit(_start(key, shape), 0))
        return x @ kernel.astype(x.dtype)


class ToSphere(nn.Module):
    """Adds up unit vectors of `features` channels, one for each channel of `(..., C)`.

    Attributes:
        features: the number of channels of the sum.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Compute `(..., features)`, in the dtype of `x`; the sum itself is no unit vector."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", lambda key: unit(_start(key, shape), 1))
        return x @ kernel.astype(x.dtype)


class PointsOnSphere(nn.Module):
    """Holds learnt unit vectors.

    Attributes:
        count: the number of vectors.
        features: the channels of each.
    """

    count: int
    features: int

    @nn.compact
    def __call__(self) -> Array:
        """Return them, `(count, features)`, float32."""
        shape = (self.count, self.features)
        return self.param("embedding", lambda key: unit(_start(key, shape), 1))


class Factors(nn.Module):
    """Holds learnt numbers that begin at `start` and are kept in units of their own.

    They are parameters with the value `kept`, times `start / kept`. Adam moves every parameter by
    about the learning rate, so their own rate is larger by `start / kept` (Loshchilov et al. 2024,
    section 2.5). They have the role "norm", as those of `Multiplier`.

    Attributes:
        count: how many there are.
        start: their initial value.
        kept: the initial value of the parameters.
    """

    count: int
    start: float
    kept: float

    @nn.compact
    def __call__(self) -> Array:
        """Return the numbers, `(count,)`, float32."""
        params = self.param(NORM, lambda key: {"scale": jnp.full(self.count, self.kept)})
        return params["scale"] * (self.start / self.kept)


AXES: dict[str, Axis] = {FromSphere.__name__: 0, ToSphere.__name__: 1, PointsOnSphere.__name__: 1}
"""The axis of the unit vectors in the weights of each layer, by the layer's class."""


def on_sphere(params: Any) -> Any:
    """Bring the weights of the layers above to unit length; other parameters stay.

    >>> moved = on_sphere({"ToSphere_0": {"kernel": jnp.full((1, 4), 3.0)}, "Dense_0": 3.0})
    >>> moved["ToSphere_0"]["kernel"].tolist(), moved["Dense_0"]
    ([[0.5, 0.5, 0.5, 0.5]], 3.0)
    """

    def moved(path: tuple[Any, ...], leaf: Array) -> Array:
        axis = _axis(path)
        return leaf if axis is None else unit(leaf, axis)

    return jax.tree_util.tree_map_with_path(moved, params)


def has_spheres(params: Any) -> bool:
    """Return whether a network has one of the layers above."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return any(_axis(path) is not None for path, _ in leaves)


def _axis(path: tuple[Any, ...]) -> Axis | None:
    """Return the axis of the unit vectors of a leaf, which stands right below its layer."""
    if len(path) < 2:
        return None
    return AXES.get(str(getattr(path[-2], "key", path[-2])).rpartition("_")[0])
