"""Normalisers over the axes that Flax's `reduction_axes`, `feature_axes` and `axis` name.

Every normaliser of the catalogue takes its channels last. `OverAxes` and `ChannelsAt` stand for
layers of Flax that do not. Their `feature_axes` may be any axes, with one scale and one bias for
each place on them.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from normlab.core import Array, Facts, Normaliser, Params, State
from normlab.errors import FieldError, ShapeError, require_field
from normlab.norms.group import require_divisor
from normlab.ops.affine import Standardiser, affine_params, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import Sharing, statistics_dtype
from normlab.ops.normalise import normalise
from normlab.sharding import on_any_mesh

Axes = tuple[int, ...]

BATCH_FIRST = (
    "feature_axes={} name the first axis, which is the batch's, whose examples share no scale. "
    "Flax says: The channel axes cannot include the leading dimension as this is assumed to be the "
    "batch axis."
)
"""The message ends as Flax's own does, because tests of other programs look for those words."""


def features_of(normaliser: Normaliser, shape: Sequence[int]) -> Any:
    """Return the argument of `normaliser.init` for an input of this shape.

    It is the number of channels on the last axis, unless the normaliser has `feature_axes`. Several
    of those give the size of each.

    >>> features_of(OverAxes(reduction_axes=(1,), feature_axes=(1, -1)), (8, 4, 4, 3))
    (4, 3)
    """
    axes = getattr(normaliser, "feature_axes", (-1,))
    sizes = tuple(shape[axis] for axis in canonical(axes, len(shape)))
    return sizes[0] if len(sizes) == 1 else sizes


def canonical(axes: Axes, ndim: int) -> Axes:
    """Count axes from the front, sort them, and drop repetitions.

    Raises:
        ShapeError: an array of `ndim` axes lacks one of them.

    >>> canonical((-1, 1), 4)
    (1, 3)
    """
    if not all(-ndim <= axis < ndim for axis in axes):
        raise ShapeError(f"an input of {ndim} axes does not have all of the axes {axes}")
    return tuple(sorted({axis % ndim for axis in axes}))


def _like(norm: Any, params: Params, state: State, x: Array, *_: Any) -> tuple[Array, State]:
    """Return the arrays that decide how the results of `apply` are spread over a mesh."""
    return x, state


@dataclass(frozen=True, kw_only=True)
class OverAxes(Standardiser):
    """Mean 0 and variance 1 over any axes, with scale and bias for any axes.

    Attributes:
        reduction_axes: the axes that share statistics, counted from the front, or from the back if
            negative. The axis of the batch may be among them. None means all but the axis of the
            batch and those of the features.
        feature_axes: the axes along which scale and bias differ, counted likewise.
        groups: the number of equal groups of channels on the last axis, each with statistics of its
            own. `reduction_axes` must then name the last axis, if they are given.
        group_size: the number of channels in a group, instead of `groups`.
        about_zero: whether to divide by the root mean square and subtract no mean.
        axis_name: a mapped axis whose shards share the statistics too.

    >>> import jax.numpy as jnp
    >>> norm = OverAxes(reduction_axes=(0,), feature_axes=(0,))
    >>> params, state = norm.init(features=2)
    >>> norm.apply(params, state, jnp.array([[1.0], [3.0]]), train=True)[0].round(3).tolist()
    [[-1.0], [1.0]]
    """

    reduction_axes: Axes | None = None
    feature_axes: Axes = (-1,)
    groups: int | None = None
    group_size: int | None = None
    about_zero: bool = False
    axis_name: str | None = None

    @property
    def facts(self) -> Facts:  # type: ignore[override]  # they depend on the axes
        """The facts about it. Negative axes are assumed not to reach the axis of the batch."""
        over_batch = 0 in (self.reduction_axes or ())
        invariant = {"example scale"} | (set() if self.about_zero else {"example shift"})
        return Facts(
            "flax's layers",
            uses_batch=over_batch,
            invariant_to=frozenset(set() if over_batch or self.axis_name else invariant),
        )

    def init(self, features: int | tuple[int, ...]) -> tuple[Params, State]:
        """Return scale one and bias zero in the shape of the features, and an empty state.

        Args:
            features: the result of `features_of`; or the product of its numbers, which makes scale
                and bias flat as in `flax.nnx`.

        Raises:
            FieldError: the groups do not divide the channels.
        """
        shape = (features,) if isinstance(features, int) else features
        self._groups(math.prod(shape))
        params = affine_params(1, self.use_scale, self.use_bias)
        return {name: jnp.broadcast_to(leaf, shape) for name, leaf in params.items()}, {}

    @partial(on_any_mesh, like=_like)
    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        """Return the normalised input, and the empty state.

        Raises:
            ShapeError: the input does not have these axes.
        """
        features = canonical(self.feature_axes, x.ndim)
        sharing = self._sharing(x.shape, features)
        scale, bias = params.get("scale"), params.get("bias")
        alone = sharing.size(x.shape) == 1 and self.axis_name is None and not self.about_zero

        def standardised(x: Array, scale: Array | None, bias: Array | None) -> Array:
            if alone:
                return scale_and_shift(of_one_value(x), x, None, bias, mask)
            return normalise(
                x,
                sharing,
                scale,
                bias,
                eps=self.eps,
                mask=mask,
                axis_name=self.axis_name,
                about_zero=self.about_zero,
            )[0]

        if features == (x.ndim - 1,):
            return standardised(x, scale, bias), state
        y = standardised(x if jnp.iscomplexobj(x) else x.astype(statistics_dtype(x)), None, None)
        shape = [size if axis in features else 1 for axis, size in enumerate(x.shape)]
        if scale is not None:
            y = y * scale.reshape(shape).astype(y.dtype)
        if bias is not None:
            y = y + bias.reshape(shape).astype(y.dtype)
        return zero_masked(y.astype(x.dtype), mask), state

    def _sharing(self, shape: tuple[int, ...], features: Axes) -> Sharing:
        last = len(shape) - 1
        grouped = self.groups is not None or self.group_size is not None
        if self.reduction_axes is None:
            if 0 in features:
                raise ShapeError(BATCH_FIRST.format(self.feature_axes))
            over = tuple(axis for axis in range(1, last + 1) if axis not in features)
        else:
            over = canonical(self.reduction_axes, len(shape))
            if grouped and last not in over:
                raise ShapeError(
                    f"reduction_axes={self.reduction_axes} of groups of channels must name the "
                    f"last axis, that of the channels; the input has the shape {shape}"
                )
        if grouped:
            over = tuple(axis for axis in over if axis != last)
        return Sharing(over, channel_groups=self._groups(shape[-1]))

    def _groups(self, channels: int) -> int | None:
        if self.group_size is None:
            if self.groups is not None:
                require_divisor(self.groups, channels)
            return self.groups
        size = self.group_size
        require_field(size >= 1, "group_size", size, "a positive number")
        if channels % size:
            raise FieldError(
                "group_size", f"group_size={size} does not divide the {channels} channels"
            )
        return channels // size


@dataclass(frozen=True, kw_only=True)
class ChannelsAt:
    """A normaliser whose channels are on other axes than the last, with its state.

    Attributes:
        feature_axes: the axes of the channels, counted from the front, or from the back if
            negative. Several axes have one channel for each place on them.
        normaliser: the normaliser; it takes the channels last.

    >>> import jax.numpy as jnp
    >>> from normlab.norms import BatchNorm
    >>> norm = ChannelsAt(feature_axes=(1,), normaliser=BatchNorm(momentum=0.0))
    >>> x = jnp.arange(12.0).reshape(2, 2, 3)
    >>> y, state = norm.apply(*norm.init(features=2), x, train=True)
    >>> y.shape, state["mean"].tolist()
    ((2, 2, 3), [4.0, 7.0])
    """

    feature_axes: Axes
    normaliser: Normaliser

    @property
    def facts(self) -> Facts:
        """The facts about its normaliser, except those for code that takes channels to be last."""
        return replace(self.normaliser.facts, affine_in_evaluation=False, keeps_moments=False)

    @property
    def axis_name(self) -> str | None:
        """The mapped axis of its normaliser."""
        return getattr(self.normaliser, "axis_name", None)

    def frozen(self) -> "ChannelsAt":
        """Return the frozen normaliser, with its channels on the same axes."""
        return replace(self, normaliser=self.normaliser.frozen())  # type: ignore[attr-defined]

    def init(self, features: int | tuple[int, ...]) -> tuple[Params, State]:
        """Return the leaves of the normaliser, in the shape of the features."""
        shape = (features,) if isinstance(features, int) else features
        size = math.prod(shape)
        found = self.normaliser.init(size)
        params, state = jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:-1], *shape), found)
        return params, state

    @partial(on_any_mesh, like=_like)
    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        """Return the normalised input, in its own shape, and the next state."""
        axes = canonical(self.feature_axes, x.ndim)
        ends = tuple(range(x.ndim - len(axes), x.ndim))
        last = jnp.moveaxis(x, axes, ends)
        sizes = last.shape[x.ndim - len(axes) :]

        def flat(values: Array) -> Array:
            return jnp.moveaxis(values, axes, ends).reshape(*last.shape[: -len(axes)], -1)

        wanted = self.normaliser.init(math.prod(sizes))
        held = jax.tree.map(lambda leaf, like: leaf.reshape(like.shape), (params, state), wanted)
        where = None if mask is None else flat(fit_mask(mask, x))
        y, moved = self.normaliser.apply(held[0], held[1], flat(x), train=train, mask=where)
        moved = jax.tree.map(lambda leaf, old: leaf.reshape(old.shape), moved, state)
        return jnp.moveaxis(y.reshape(last.shape), ends, axes), moved


def of_one_value(x: Array) -> Array:
    """Return zeros, as Flax's layers do if each value is its own mean."""
    warnings.warn(
        f"in an input of shape {x.shape} each value has a mean of its own, so the layer gives its "
        "bias, whatever the input, as Flax's does; normalise over more axes",
        stacklevel=2,
    )
    return jnp.zeros_like(x)


def without_axis_name(normaliser: Normaliser) -> Normaliser:
    """Return the normaliser without an `axis_name`, because Flax's `init` sees one device alone.

    >>> from normlab.norms import BatchNorm
    >>> print(without_axis_name(BatchNorm(axis_name="devices")).axis_name)
    None
    """
    if isinstance(normaliser, ChannelsAt):
        return replace(normaliser, normaliser=without_axis_name(normaliser.normaliser))
    if getattr(normaliser, "axis_name", None) is None:
        return normaliser
    changed: Any = normaliser
    return replace(changed, axis_name=None)
