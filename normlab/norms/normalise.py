"""Standardising and the learnt scale and bias in one call: by a fast kernel wherever one serves."""

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.norms.affine import per_channel, scale_and_shift
from normlab.norms.kernels import Channels, Layout, Rows, normalised
from normlab.norms.moments import (
    Moments,
    Sharing,
    require_several,
    standardise,
    statistics_dtype,
)


def normalise(
    x: Array,
    sharing: Sharing,
    scale: Array | None,
    bias: Array | None,
    *,
    eps: float,
    mask: Array | None = None,
    axis_name: str | None = None,
) -> tuple[Array, Moments]:
    """`(x - mean) / sqrt(variance + eps) * scale + bias`.

    Args:
        x: `(..., C)`, any floating dtype.
        sharing: which elements share a mean and a variance.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.
        axis_name: a mapped axis whose shards share the statistics too.

    Returns:
        The result, in the dtype of `x` and zero where masked; and the moments, float32 or wider,
        shaped as `x` but with size 1 at each of the shared axes.

    Raises:
        ShapeError: one value alone would share a statistic, or a shape does not fit.

    >>> x = jnp.array([[1.0], [3.0]])
    >>> y, moments = normalise(x, Sharing(axes=(0,)), None, jnp.array([10.0]), eps=0.0)
    >>> y.ravel().tolist(), moments.mean.item()
    ([9.0, 11.0], 2.0)
    """
    layout = _layout(sharing, x)
    plain = mask is None and axis_name is None and in_no_mesh()
    if layout is None or not plain:
        z, moments = standardise(x, sharing, eps=eps, mask=mask, axis_name=axis_name)
        return scale_and_shift(z, x, scale, bias, mask), moments

    size = sharing.size(x.shape)
    require_several(size, x.shape, sharing)
    y, (shift, offset, variance) = normalised(layout, eps, x, *in_precision_of(x, scale, bias))
    if x.ndim - 1 in sharing.axes:
        shift, offset, variance = (values[..., :1] for values in (shift, offset, variance))
    return y, Moments(jnp.full_like(shift, size), shift + offset, variance * size)


def in_no_mesh() -> bool:
    """Whether no mesh is set and this is not within `shard_map`.

    There the type of an array says how it is spread, which a derivative of one's own would have to
    follow. (Sharded arrays under `jit` need nothing of the kind.)
    """
    return jax.sharding.get_abstract_mesh().empty


def in_precision_of(
    x: Array, scale: Array | None, bias: Array | None
) -> tuple[Array | None, Array | None]:
    """Scale and bias, `(C,)` or None, in the dtype that the statistics of `x` have.

    Raises:
        ShapeError: one of them is not one number a channel.
    """
    wide = statistics_dtype(x)
    found = []
    for name, values in (("scale", scale), ("bias", bias)):
        if values is not None:
            per_channel(name, values, x)
            values = values.astype(wide)
        found.append(values)
    return found[0], found[1]


def _layout(sharing: Sharing, x: Array) -> Layout | None:
    last = x.ndim - 1
    if sharing.axes == (last,):
        return Rows()
    if last in sharing.axes:
        return Channels(tuple(axis for axis in sharing.axes if axis != last), groups=1)
    if not sharing.axes:
        return None
    return Channels(sharing.axes, sharing.channel_groups or x.shape[-1])
