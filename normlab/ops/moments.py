"""Holds statistics as a value, and takes a mean away exactly.

`Moments(count, mean, m2)` merge exactly (Chan, Golub & LeVeque 1983): masks, shards, ghost groups
and microbatches of unequal size then need no special case, and the count can never be forgotten.

`subtract_mean` works in coordinates shifted by a value of the data itself. Subtracting it is exact
wherever the mean is large compared with the spread (Sterbenz), which is where E[x^2] - E[x]^2 and,
less badly, x - mean lose their digits; and a constant input becomes exactly zero.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, State
from normlab.errors import ShapeError
from normlab.ops.mapped import shards_along
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.overflow import unless_overflowed


class Moments(NamedTuple):
    """Holds how many values there are, their mean, and the sum of their squared distances from it.

    Arrays of one broadcastable shape, float32 or wider. A count of zero has mean and m2 zero. The
    mean of complex numbers is complex, and their distances are absolute.
    """

    count: Array
    mean: Array
    m2: Array

    @property
    def variance(self) -> Array:
        """Return the biased variance; zero where nothing was counted."""
        return self.m2 / jnp.maximum(self.count, 1)

    @property
    def statistics(self) -> State:
        """Return the mean and the biased variance, under the names that a state gives them."""
        return {"mean": self.mean, "variance": self.variance}

    @property
    def unbiased_variance(self) -> Array:
        """Return the variance divided by `count - 1`; zero for fewer than two values."""
        return self.m2 / jnp.maximum(self.count - 1, 1)


def pool(moments: Moments, axis: int) -> Moments:
    """Pool the moments of all the values behind an axis of `moments`; the axis stays, with size 1.

    >>> halves = Moments(jnp.array([7.0, 1.0]), jnp.array([0.0, 8.0]), jnp.array([7.0, 0.0]))
    >>> [leaf.item() for leaf in pool(halves, axis=0)]
    [8.0, 1.0, 63.0]
    """
    return _merged(
        moments,
        lambda values: values.max(axis, keepdims=True),
        lambda values: values.sum(axis, keepdims=True),
    )


def synchronise(moments: Moments, axis_name: str) -> Moments:
    """Pool the moments of all the values on every shard of a mapped axis (`shard_map` or `vmap`).

    Raises:
        AxisError: there is no such axis here.
    """
    shards_along(axis_name)
    return _merged(
        moments,
        lambda values: lax.pmax(values, axis_name),
        lambda values: lax.psum(values, axis_name),
    )


def _merged(
    moments: Moments, highest: Callable[[Array], Array], total: Callable[[Array], Array]
) -> Moments:
    """Merge as Chan does, with means relative to one of them, so that large ones keep digits."""
    if jnp.iscomplexobj(moments.mean):
        real = _merged(moments._replace(mean=moments.mean.real), highest, total)
        rest = Moments(moments.count, moments.mean.imag, jnp.zeros_like(moments.m2))
        imaginary = _merged(rest, highest, total)
        return Moments(real.count, lax.complex(real.mean, imaginary.mean), real.m2 + imaginary.m2)
    counted = moments.count > 0
    origin = highest(jnp.where(counted, lax.stop_gradient(moments.mean), -jnp.inf))
    relative = jnp.where(counted, moments.mean - origin, 0)
    count = total(moments.count)
    offset = total(moments.count * relative) / jnp.maximum(count, 1)
    mean = jnp.where(count > 0, origin + offset, 0)
    m2 = total(moments.m2 + moments.count * (relative - offset) ** 2)
    return Moments(count, mean, unless_overflowed(m2))


@dataclass(frozen=True)
class Sharing:
    """Says which elements of an array share one mean and one variance.

    Attributes:
        axes: the axes over which they are shared, counted from the front.
        channel_groups: share them also among the channels (last axis) of each of this many equal
            groups. Sums then run over `axes` at full size and over the channels of a group at
            almost no size, which is faster than a reshape of the whole array.
    """

    axes: tuple[int, ...]
    channel_groups: int | None = None

    def reduce(self, values: Array, op: Callable[..., Array]) -> Array:
        """Apply `op` (`jnp.sum`, `jnp.min`, `jnp.max`) to what is shared, ready to broadcast."""
        reduced = op(values, axis=self.axes, keepdims=True)
        return self.across_groups(reduced, lambda grouped: op(grouped, axis=-1, keepdims=True))

    def size(self, shape: tuple[int, ...]) -> int:
        """Return how many elements share a statistic in an array of this shape."""
        channels = 1 if self.channel_groups is None else shape[-1] // self.channel_groups
        return math.prod(shape[axis] for axis in self.axes) * channels

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the statistics of an array of this shape."""
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(shape))

    def representative(self, x: Array) -> Array:
        """Return the median of three of the values that share a statistic.

        One of the data's own values, so that a constant is hit exactly; of three, so that a single
        outlier is not taken.
        """
        a, b, c = (self._sample(x, halves) for halves in (0, 1, 2))
        median = jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))
        middle = 0 if self.channel_groups is None else x.shape[-1] // self.channel_groups // 2
        return self.across_groups(median, lambda grouped: grouped[..., middle : middle + 1])

    def _sample(self, x: Array, halves: int) -> Array:
        """The values at the start, in the middle or at the end of the axes: 0, 1 or 2 halves."""
        for axis in self.axes:
            last = x.shape[axis] - 1
            whole = isinstance(last, int)  # and not the size of an exported program's input
            index = round(halves / 2 * last) if whole else halves * last // 2
            x = lax.slice_in_dim(x, index, index + 1, axis=axis)
        return x

    def across_groups(self, values: Array, op: Callable[[Array], Array]) -> Array:
        """Apply `op` to the channels of each group (last axis), and repeat the result."""
        if self.channel_groups is None:
            return values
        grouped = values.reshape(*values.shape[:-1], self.channel_groups, -1)
        return jnp.broadcast_to(op(grouped), grouped.shape).reshape(values.shape)


def subtract_mean(
    x: Array,
    sharing: Sharing,
    *,
    mask: Array | None = None,
    axis_name: str | None = None,
    about_zero: bool = False,
) -> tuple[Array, Moments]:
    """Return `x - mean`, and the moments.

    Args:
        x: any floating dtype.
        sharing: which elements share a mean and a variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.
        axis_name: a mapped axis whose shards share the statistics too.
        about_zero: take the mean to be zero, for which one value is enough.

    Returns:
        The difference, shaped as `x`, float32 or wider, zero where masked; and the moments, shaped
        as `x` but with size 1 at each of the shared axes.

    Raises:
        ShapeError: one value alone would share a statistic, so that every output would be zero;
            or the mask does not fit.

    The difference is exact to rounding however large the mean is, where `x - moments.mean` is not.

    >>> centred, moments = subtract_mean(jnp.array([[1.0], [3.0]]), Sharing(axes=(0,)))
    >>> centred.ravel().tolist(), moments.mean.item()
    ([-1.0, 1.0], 2.0)
    """
    x = x.astype(statistics_dtype(x))
    size = sharing.size(x.shape)
    shards = 1 if axis_name is None else shards_along(axis_name)
    if not about_zero:
        require_several(size * shards, x.shape, sharing)
    if not x.size:
        nothing = jnp.zeros(sharing.shape(x.shape), x.dtype)
        return zero_masked(x, mask), Moments(nothing, nothing, nothing)
    if mask is None:
        shift = sharing.representative(x)
        count = jnp.full_like(shift, size)
        keep = _unchanged
    else:
        mask = fit_mask(mask, x)

        def keep(values: Array) -> Array:
            return jnp.where(mask, values, 0)

        x = keep(x)
        count = sharing.reduce(mask.astype(x.dtype), jnp.sum)
        shift = _masked_representative(x, mask, count, sharing)
    if about_zero:
        square = unless_overflowed(sharing.reduce(x**2, jnp.sum))
        found = Moments(count, jnp.zeros_like(shift), square)
        return x, found if axis_name is None else synchronise(found, axis_name)
    shift = lax.stop_gradient(shift)
    if axis_name is not None:
        shift = lax.pmax(shift, axis_name)
    shift = jnp.where(shift == -jnp.inf, 0, shift)

    shifted = keep(x - shift)
    mean = sharing.reduce(shifted, jnp.sum) / jnp.maximum(count, 1)
    centred = keep(shifted - mean)
    moments = Moments(count, mean, unless_overflowed(sharing.reduce(centred**2, jnp.sum)))
    if axis_name is not None:
        moments = synchronise(moments, axis_name)
        centred = keep(shifted - moments.mean)
    mean = jnp.where(moments.count > 0, shift + moments.mean, 0)
    return centred, moments._replace(mean=mean)


def shared_mean(
    values: Array, sharing: Sharing, *, mask: Array | None = None, axis_name: str | None = None
) -> Array:
    """Average the values that share a statistic; zero where nothing counts.

    For what is no moment of the input: absolute values, products, weights. `values` must be zero
    where masked.

    >>> values = jnp.array([[1.0], [2.0], [0.0]])
    >>> shared_mean(values, Sharing((0,)), mask=jnp.array([[1], [1], [0]])).item()
    1.5
    """
    if not values.size:
        return jnp.zeros(sharing.shape(values.shape), values.dtype)
    total = sharing.reduce(values, jnp.sum)
    if mask is None:
        count = jnp.full_like(total, sharing.size(values.shape))
    else:
        count = sharing.reduce(fit_mask(mask, values).astype(values.dtype), jnp.sum)
    if axis_name is not None:
        total, count = lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1)


def statistics_dtype(x: Array) -> jnp.dtype:
    """Return float32, or the input's own dtype where that is wider."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ShapeError(
            f"a normaliser needs floating-point input, got {x.dtype}; use x.astype(jnp.float32)"
        )
    return jnp.dtype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def _masked_representative(x: Array, mask: Array, count: Array, sharing: Sharing) -> Array:
    """Return the mean, clipped to the data's range to hit a constant exactly; -inf for no data."""
    lowest = sharing.reduce(jnp.where(mask, x, jnp.inf), jnp.min)
    highest = sharing.reduce(jnp.where(mask, x, -jnp.inf), jnp.max)
    mean = sharing.reduce(x, jnp.sum) / jnp.maximum(count, 1)
    return jnp.where(count > 0, jnp.clip(mean, lowest, highest), -jnp.inf)


def _unchanged(values: Array) -> Array:
    return values


def require_several(size: int, shape: tuple[int, ...], sharing: Sharing) -> None:
    """Raise `ShapeError` if one value alone has a statistic; an empty array has none to take."""
    if size != 1:
        return
    over = f"axes {sharing.axes}"
    if sharing.channel_groups is not None:
        over += f" and the channels of each of {sharing.channel_groups} groups"
    raise ShapeError(
        f"an input of shape {shape} leaves one value to take a mean and variance of (over {over}), "
        "so every output would be zero: use a larger batch or image, fewer groups, or a normaliser "
        "that shares statistics more widely"
    )
