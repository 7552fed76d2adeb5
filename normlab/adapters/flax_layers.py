"""Reads the arguments of Flax's own layers with Flax's meaning, and finds the same normaliser."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
from flax import nnx

from normlab.adapters.flax_axes import ChannelsAt, OverAxes, of_one_value
from normlab.core import Array, Normaliser
from normlab.errors import FieldError, UserError, did_you_mean
from normlab.norms.batch import BatchNorm
from normlab.norms.group import GroupNorm
from normlab.norms.instance import InstanceNorm
from normlab.norms.layer import LayerNorm
from normlab.norms.rms import RMSNorm
from normlab.ops.affine import scale_and_shift

LAST = (-1,)
"""The axis of the channels in the catalogue's normalisers."""

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
"""Arguments without an effect on the mathematics; `Norm` takes those that a user needs."""


def like_flax(layer: Any, **arguments: Any) -> Normaliser:
    """Return the normaliser that computes the same as a layer of Flax.

    So `swap(model, nn.BatchNorm, like_flax)` gives the same model with exact statistics, and
    `Norm(like_flax(nn.BatchNorm, momentum=0.9), dtype=jnp.bfloat16)` makes a layer from Flax's
    arguments. `use_fast_variance` and `force_float32_reductions` have no effect, because statistics
    are always precise here.

    Args:
        layer: `BatchNorm`, `LayerNorm`, `GroupNorm`, `InstanceNorm` or `RMSNorm` of `flax.linen` or
            `flax.nnx`: the class, with Flax's defaults, or a layer, with its own arguments.
        **arguments: the arguments of Flax's constructor that decide the mathematics. The others
            (`dtype`, `use_running_average`, initialisers) go to `Norm`, under the same names.

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
            own["group_size"] = None  # a layer holds both, and computes one from the other
    given = own | arguments
    if given.get("axis_index_groups") is not None:
        raise UserError(
            f"axis_index_groups={given['axis_index_groups']} has no counterpart: for statistics of "
            "part of the batch give BatchNorm a norm_batch, the number of examples that share them"
        )
    return read(given)


@dataclass(frozen=True, kw_only=True)
class InstanceNormOfAnyRank(InstanceNorm):
    """Instance normalisation that takes vectors too, as Flax's layer does.

    A channel of a vector has one value and so is its own mean: the output is the bias alone. A
    warning says so.
    """

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        """Return the normalised input."""
        if x.ndim > 2:
            return super().normalise(x, scale, bias, mask)
        return scale_and_shift(of_one_value(x), x, None, bias, mask)


def _affine(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "eps": given["epsilon"],
        "use_scale": given["use_scale"],
        "use_bias": given.get("use_bias", False),
    }


def _axes(given: Mapping[str, Any], name: str) -> tuple[int, ...]:
    axes = given[name]
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _batch(given: Mapping[str, Any]) -> Any:
    norm = BatchNorm(momentum=given["momentum"], axis_name=given["axis_name"], **_affine(given))
    axes = _axes(given, "axis")
    return norm if axes == LAST else ChannelsAt(feature_axes=axes, normaliser=norm)


def _layer(given: Mapping[str, Any]) -> Any:
    return _over(given, LayerNorm)


def _rms(given: Mapping[str, Any]) -> Any:
    return _over(given, RMSNorm, about_zero=True)


def _over(given: Mapping[str, Any], usual: type, about_zero: bool = False) -> Any:
    """Return the usual normaliser for the last axis alone, or else one over the given axes."""
    reduced, features = _axes(given, "reduction_axes"), _axes(given, "feature_axes")
    axis_name = given["axis_name"]
    if reduced == features == LAST and axis_name is None:
        return usual(**_affine(given))
    return OverAxes(
        reduction_axes=reduced,
        feature_axes=features,
        about_zero=about_zero,
        axis_name=axis_name,
        **_affine(given),
    )


def _group(given: Mapping[str, Any]) -> Any:
    groups, size = given["num_groups"], given["group_size"]
    if (groups is None) == (size is None):
        raise FieldError(
            "num_groups",
            f"num_groups={groups} and group_size={size}: give one of them, with num_groups=None "
            "for group_size, as flax asks",
        )
    reduced, axis_name = given["reduction_axes"], given["axis_name"]
    if reduced is None and size is None and axis_name is None:
        return GroupNorm(groups=groups, **_affine(given))
    return OverAxes(
        reduction_axes=None if reduced is None else _axes(given, "reduction_axes"),
        groups=groups,
        group_size=size,
        axis_name=axis_name,
        **_affine(given),
    )


def _instance(given: Mapping[str, Any]) -> Any:
    axes, axis_name = _axes(given, "feature_axes"), given["axis_name"]
    if axes == LAST and axis_name is None:
        return InstanceNormOfAnyRank(**_affine(given))
    return OverAxes(feature_axes=axes, axis_name=axis_name, **_affine(given))


READERS: dict[type, Callable[[Mapping[str, Any]], Any]] = {
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

LINEN_LAYERS = tuple(layer for layer in LAYERS if issubclass(layer, nn.Module))
NNX_LAYERS = tuple(layer for layer in LAYERS if issubclass(layer, nnx.Module))
