"""Standardises, and applies scale and bias, in one call: by a fast kernel where one serves."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.kernels import normalised, scaled, statistics
from normlab.ops.layouts import (
    WELL_CENTRED,
    Channels,
    Layout,
    Rows,
    Statistics,
    beside,
    less_mean,
)
from normlab.ops.masks import zero_masked
from normlab.ops.moments import (
    Moments,
    Sharing,
    require_several,
    statistics_dtype,
    subtract_mean,
)
from normlab.ops.overflow import unless_overflowed
from normlab.ops.running import less_running


def normalise(
    x: Array,
    sharing: Sharing,
    scale: Array | None,
    bias: Array | None,
    *,
    eps: float,
    mask: Array | None = None,
    axis_name: str | None = None,
    about_zero: bool = False,
) -> tuple[Array, Moments]:
    """Compute `(x - mean) / sqrt(variance + eps) * scale + bias`.

    Args:
        x: `(..., C)`, any floating dtype, or complex. The variance of complex numbers is the mean
            of their squared absolute distances from the mean, as in numpy.
        sharing: which elements share a mean and a variance.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.
        axis_name: a mapped axis whose shards share the statistics too.
        about_zero: take the mean to be zero, so that the variance is the mean square.

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
    if jnp.iscomplexobj(x):
        z, moments = _complex(x, sharing, eps, mask, axis_name, about_zero)
        return scale_and_shift(z, x, scale, bias, mask), moments
    kernel = _kernel_for(x, sharing, mask, axis_name, about_zero)
    if kernel is None:
        centred, moments = centre(x, sharing, mask=mask, axis_name=axis_name, about_zero=about_zero)
        return centred.times(lax.rsqrt(moments.variance + eps), scale=scale, bias=bias), moments
    y, found = normalised(kernel, eps, x, *in_precision_of(x, scale, bias))
    return y, _moments(x, sharing, found)


def centre(
    x: Array,
    sharing: Sharing,
    *,
    mask: Array | None = None,
    axis_name: str | None = None,
    about_zero: bool = False,
) -> tuple["Centred", Moments]:
    """Return the parts of `x - mean`, and the moments, for normalisers that are not `normalise`.

    Arguments and errors are those of `normalise`.

    >>> x = jnp.array([[1.0], [3.0]])
    >>> centred, moments = centre(x, Sharing(axes=(0,)))
    >>> centred.values.ravel().tolist(), moments.mean.item()
    ([-1.0, 1.0], 2.0)
    >>> centred.times(jnp.array([[10.0]]), bias=jnp.array([0.5])).ravel().tolist()
    [-9.5, 10.5]
    """
    kernel = _kernel_for(x, sharing, mask, axis_name, about_zero)
    if kernel is None:
        values, found = subtract_mean(
            x, sharing, mask=mask, axis_name=axis_name, about_zero=about_zero
        )
        return Centred(x, values, mask=mask), found
    found = statistics(kernel, x)
    return Centred(x, less_mean(x, found), found), _moments(x, sharing, found)


def less_given(x: Array, mean: Array, variance: Array, *, mask: Array | None = None) -> "Centred":
    """Return the parts of `x - mean` for statistics that are given, `(C,)` each.

    Raises:
        ShapeError: a statistic is not one number a channel, or the mask does not fit.

    >>> x = jnp.array([[1.0], [3.0]])
    >>> less_given(x, jnp.array([2.0]), jnp.array([1.0])).values.ravel().tolist()
    [-1.0, 1.0]
    """
    if mask is not None or not in_no_mesh() or not x.size:
        return Centred(x, less_running(x, mean, mask), mask=mask)
    wide = x.astype(statistics_dtype(x))
    mean, variance = per_channel("mean", mean, wide), per_channel("variance", variance, wide)
    shift = jnp.where(mean**2 <= WELL_CENTRED**2 * variance, 0, mean)
    about = Statistics(shift, mean - shift, variance)
    return Centred(x, less_mean(x, about), about)


@dataclass(frozen=True)
class Centred:
    """`x - mean`, exact to rounding however large the mean is, where `x - moments.mean` is not.

    What mixes several means therefore subtracts each by itself.

    Attributes:
        x: the input.
        values: `x - mean`, float32 or wider, zero where masked.
        about: the statistics, where a kernel serves; None where plain JAX does.
        mask: True where an element counts, or None.
    """

    x: Array
    values: Array
    about: Statistics | None = None
    mask: Array | None = None

    def times(
        self,
        slope: Array,
        level: Array | None = None,
        *,
        scale: Array | None = None,
        bias: Array | None = None,
    ) -> Array:
        """Compute `((x - mean) * slope + level) * scale + bias` in x's dtype, zero where masked.

        Args:
            slope, level: float32 or wider; at each axis size 1 or that of `x`.
            scale, bias: `(C,)` or None.

        Raises:
            ShapeError: scale or bias is not one number a channel.
        """
        level = jnp.zeros_like(slope) if level is None else level
        scale, bias = (beside(self.x, v) for v in in_precision_of(self.x, scale, bias))
        if scale is not None:
            slope, level = slope * scale, level * scale
        if bias is not None:
            level = level + bias
        if self.about is None:
            return zero_masked((self.values * slope + level).astype(self.x.dtype), self.mask)
        return scaled(self.x, self.about, slope, level).astype(self.x.dtype)

    def detached(self) -> "Centred":
        """Return the same with its mean taken as given: the gradient is that of `x`."""
        if self.about is not None:
            about = lax.stop_gradient(self.about)
            return replace(self, values=less_mean(self.x, about), about=about)
        x = zero_masked(self.x.astype(self.values.dtype), self.mask)
        # The difference is zero, and hands on the gradient that the rest does not have.
        passing = x - lax.stop_gradient(x)
        return replace(self, values=lax.stop_gradient(self.values) + passing)


def _complex(
    x: Array,
    sharing: Sharing,
    eps: float,
    mask: Array | None,
    axis_name: str | None,
    about_zero: bool,
) -> tuple[Array, Moments]:
    """Standardise complex numbers: centre both parts, and divide them by one deviation."""
    (real, of_real), (imaginary, of_imaginary) = (
        subtract_mean(part, sharing, mask=mask, axis_name=axis_name, about_zero=about_zero)
        for part in (x.real, x.imag)
    )
    mean = lax.complex(of_real.mean, of_imaginary.mean)
    moments = Moments(of_real.count, mean, of_real.m2 + of_imaginary.m2)
    root = lax.rsqrt(moments.variance + eps)
    return lax.complex(real * root, imaginary * root), moments


def _moments(x: Array, sharing: Sharing, found: Statistics) -> Moments:
    if x.ndim - 1 in sharing.axes:
        found = Statistics(*(values[..., :1] for values in found))
    shift, offset, variance = found
    size = sharing.size(x.shape)
    m2 = unless_overflowed(variance * size)
    return Moments(jnp.full_like(shift, size), shift + offset, m2)


def _kernel_for(
    x: Array, sharing: Sharing, mask: Array | None, axis_name: str | None, about_zero: bool
) -> Layout | None:
    """Return the kernel that serves, or None."""
    last = x.ndim - 1
    plain = mask is not None or axis_name is not None or not in_no_mesh()
    if plain or not sharing.axes or not x.size:
        return None
    statistics_dtype(x)  # which refuses whole numbers
    if not about_zero:
        require_several(sharing.size(x.shape), x.shape, sharing)
    if sharing.axes == (last,):
        return Rows(centred=not about_zero)
    if last in sharing.axes:
        axes, groups = tuple(axis for axis in sharing.axes if axis != last), 1
    else:
        axes, groups = sharing.axes, sharing.channel_groups or x.shape[-1]
    return Channels(axes, groups, centred=not about_zero)


def in_no_mesh() -> bool:
    """Return whether no mesh is set and this is not within `shard_map`.

    There the type of an array says how it is spread, which a derivative of one's own would have to
    follow. (Sharded arrays under `jit` need nothing of the kind.)
    """
    return jax.sharding.get_abstract_mesh().empty


def in_precision_of(
    x: Array, scale: Array | None, bias: Array | None
) -> tuple[Array | None, Array | None]:
    """Return scale and bias, `(C,)` or None, in the dtype that the statistics of `x` have.

    Raises:
        ShapeError: one of them is not one number a channel.
    """
    wide = statistics_dtype(x)
    found = []
    for name, values in (("scale", scale), ("bias", bias)):
        if values is not None:
            per_channel(name, values, x)
            values = jnp.asarray(values).astype(wide)
        found.append(values)
    return found[0], found[1]
