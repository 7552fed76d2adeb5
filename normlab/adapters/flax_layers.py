"""The arguments of Flax's own layers, read with Flax's meaning."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
from flax import nnx

from normlab.core import Array, Facts, Normaliser, Params, State
from normlab.errors import FieldError, UserError, did_you_mean, require_field
from normlab.norms.batch import BatchNorm
from normlab.norms.group import GroupNorm, group_norm, require_divisor
from normlab.norms.instance import InstanceNorm
from normlab.norms.layer import LayerNorm, LayerNormImage
from normlab.norms.rms import RMSNorm
from normlab.ops.affine import PerExample
from normlab.ops.moments import ShapeError, Sharing
from normlab.ops.normalise import normalise

OF_THE_LAYER = {
    "use_running_average",
    "dtype",
    "param_dtype",
    "scale_init",
    "bias_init",
    "scale_metadata",
    "bias_metadata",
    "promote_dtype",
    "num_features",
    "rngs",
    "parent",
    "name",
}
"""Arguments that say nothing of the mathematics: `Norm` takes those that a user has a need for."""

WITHOUT_EFFECT = {"use_fast_variance", "force_float32_reductions"}
"""Of how precise the statistics are: here they always are."""


def like_flax(layer: Any, **arguments: Any) -> Normaliser:
    """The normaliser that a layer of Flax is.

    So `swap(model, nn.BatchNorm, like_flax)` gives the same model with exact statistics, and
    `Norm(like_flax(nn.BatchNorm, momentum=0.9), dtype=jnp.bfloat16)` a layer from Flax's arguments.

    Args:
        layer: `BatchNorm`, `LayerNorm`, `GroupNorm`, `InstanceNorm` or `RMSNorm` of `flax.linen` or
            `flax.nnx`: the class, with Flax's defaults, or a layer, with its own arguments.
        **arguments: Flax's constructor arguments of the mathematics. Those of the layer (`dtype`,
            `use_running_average`, initialisers) are for `Norm`, under the same names.

    Raises:
        UserError: the layer is none of these, or an argument has no counterpart here.

    >>> import flax.linen as nn
    >>> like_flax(nn.BatchNorm, momentum=0.9).momentum, like_flax(nn.LayerNorm).eps
    (0.9, 1e-06)
    """
    cls = layer if isinstance(layer, type) else type(layer)
    read = next((READERS[base] for base in cls.__mro__ if base in READERS), None)
    if read is None:
        known = ", ".join(sorted({base.__name__ for base in READERS}))
        raise UserError(f"{cls.__name__} is none of the layers of flax that are known: {known}")
    parameters = inspect.signature(cls.__init__).parameters
    allowed = set(parameters) - {"self"} - OF_THE_LAYER
    for name in arguments:
        if name in OF_THE_LAYER & set(parameters):
            raise UserError(
                f"{name} of flax's {cls.__name__} is the layer's, not the normaliser's: give it to "
                "Norm of normlab.adapters.linen or normlab.adapters.nnx"
            )
        if name not in allowed:
            raise UserError(
                f"flax's {cls.__name__} has no argument {name}; {did_you_mean(name, allowed)}"
            )
    if isinstance(layer, type):
        own = {name: parameters[name].default for name in allowed}
    else:
        own = {name: getattr(layer, name) for name in allowed}
        if isinstance(layer, nnx.GroupNorm):
            own["group_size"] = None  # it holds both, one worked out from the other
    given = own | arguments
    if given.get("axis_index_groups") is not None:
        raise UserError(
            f"axis_index_groups={given['axis_index_groups']} has no counterpart: for statistics of "
            "part of the batch give BatchNorm a norm_batch, the number of examples that share them"
        )
    if read is not _batch and given.get("axis_name") is not None:
        raise UserError(
            f"axis_name={given['axis_name']!r} has no counterpart in {cls.__name__}: an example's "
            "own statistics are not shared between devices here. Under jit with sharded arrays "
            "they are so without it"
        )
    return read(given)


@dataclass(frozen=True, kw_only=True)
class OverAxes(PerExample):
    """Mean 0 and variance 1 over the axes of Flax's `reduction_axes`, never the batch's.

    Attributes:
        axes: counted from the front, or from the back where negative.
        groups: divide the last axis, which is then among them, into so many equal groups.
    """

    facts: ClassVar[Facts] = LayerNormImage.facts

    axes: tuple[int, ...]
    groups: int | None = None

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        """The normalised input."""
        axes = {axis % x.ndim for axis in self.axes}
        if 0 in axes or not all(-x.ndim <= axis < x.ndim for axis in self.axes):
            raise ShapeError(
                f"an input of shape {x.shape} has not the axes {self.axes} beside that of the batch"
            )
        if self.groups is not None:
            require_divisor(self.groups, x.shape[-1])
            axes -= {x.ndim - 1}
        sharing = Sharing(tuple(sorted(axes)), channel_groups=self.groups)
        return normalise(x, sharing, scale, bias, eps=self.eps, mask=mask)[0]


@dataclass(frozen=True, kw_only=True)
class GroupNormOfSize(PerExample):
    """Group normalisation by the number of channels in a group, whatever the layer's width.

    Attributes:
        group_size: a divisor of the channels of every layer it is used in.
    """

    facts: ClassVar[Facts] = GroupNorm.facts

    group_size: int

    def init(self, features: int) -> tuple[Params, State]:
        """As every normaliser; raises `FieldError` if the size does not divide `features`."""
        require_field(self.group_size >= 1, "group_size", self.group_size, "a positive number")
        if features % self.group_size:
            raise FieldError(
                "group_size",
                f"group_size={self.group_size} does not divide the {features} channels",
            )
        return super().init(features)

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        """The normalised input."""
        groups = x.shape[-1] // self.group_size
        return group_norm(x, scale, bias, groups=groups, eps=self.eps, mask=mask)


def _affine(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "eps": given["epsilon"],
        "use_scale": given["use_scale"],
        "use_bias": given.get("use_bias", False),
    }


def _axes(given: Mapping[str, Any], name: str) -> tuple[int, ...]:
    axes = given[name]
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _require_last(given: Mapping[str, Any], name: str) -> None:
    if _axes(given, name) != (-1,):
        raise UserError(
            f"{name}={given[name]} has no counterpart: channels are last, as {name}=-1 says"
        )


def _batch(given: Mapping[str, Any]) -> Normaliser:
    _require_last(given, "axis")
    return BatchNorm(momentum=given["momentum"], axis_name=given["axis_name"], **_affine(given))


def _layer(given: Mapping[str, Any]) -> Normaliser:
    _require_last(given, "feature_axes")
    axes = _axes(given, "reduction_axes")
    if 0 in axes:
        raise UserError(
            f"reduction_axes={axes} has no counterpart: statistics over the batch are BatchNorm's"
        )
    return LayerNorm(**_affine(given)) if axes == (-1,) else OverAxes(axes=axes, **_affine(given))


def _group(given: Mapping[str, Any]) -> Normaliser:
    groups, size = given["num_groups"], given["group_size"]
    if (groups is None) == (size is None):
        raise UserError(
            f"num_groups={groups} and group_size={size}: give one of them, with num_groups=None "
            "for group_size, as flax asks"
        )
    if given["reduction_axes"] is None:
        if size is not None:
            return GroupNormOfSize(group_size=size, **_affine(given))
        return GroupNorm(groups=groups, **_affine(given))
    axes = _axes(given, "reduction_axes")
    if groups is None or 0 in axes or -1 not in axes:
        raise UserError(
            f"reduction_axes={axes} has no counterpart but with num_groups, the channels (-1) "
            "among them and the batch (0) not"
        )
    return OverAxes(axes=axes, groups=groups, **_affine(given))


def _instance(given: Mapping[str, Any]) -> Normaliser:
    _require_last(given, "feature_axes")
    return InstanceNorm(**_affine(given))


def _rms(given: Mapping[str, Any]) -> Normaliser:
    _require_last(given, "feature_axes")
    _require_last(given, "reduction_axes")
    return RMSNorm(**_affine(given))


READERS: dict[type, Callable[[Mapping[str, Any]], Normaliser]] = {
    nn.BatchNorm: _batch,
    nnx.BatchNorm: _batch,
    nn.LayerNorm: _layer,
    nnx.LayerNorm: _layer,
    nn.GroupNorm: _group,
    nnx.GroupNorm: _group,
    nn.InstanceNorm: _instance,
    nnx.InstanceNorm: _instance,
    nn.RMSNorm: _rms,
    nnx.RMSNorm: _rms,
}

LAYERS = tuple(READERS)
"""The layers of Flax that normalise."""
