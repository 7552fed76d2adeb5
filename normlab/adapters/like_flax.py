"""The arguments of Flax's own layers, read with Flax's meaning."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
from flax import nnx

from normlab.core import Normaliser
from normlab.errors import UserError, did_you_mean
from normlab.norms.batch import BatchNorm
from normlab.norms.group import GroupNorm
from normlab.norms.instance import InstanceNorm
from normlab.norms.layer import LayerNorm, LayerNormImage
from normlab.norms.rms import RMSNorm

WITHOUT_EFFECT = {
    "use_fast_variance",  # statistics are exact in any case
    "force_float32_reductions",  # and float32 or wider
    "use_running_average",  # the adapters' layers take it
    "num_features",
    "param_dtype",
    "promote_dtype",
    "scale_init",
    "bias_init",
    "scale_metadata",
    "bias_metadata",
    "rngs",
    "parent",
    "name",
    "feature_axis",
}
ONLY = {"axis": (-1,), "dtype": (None,), "axis_index_groups": (None,), "feature_axes": (-1,)}
"""Arguments that have no counterpart but for these values."""


def like_flax(layer: Any, **arguments: Any) -> Normaliser:
    """The normaliser that a layer of Flax is, by the arguments that Flax gives it.

    Args:
        layer: `BatchNorm`, `LayerNorm`, `GroupNorm`, `InstanceNorm` or `RMSNorm` of `flax.linen` or
            `flax.nnx`: the class, with Flax's defaults, or a layer, with its own arguments.
        **arguments: Flax's constructor arguments.

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
    allowed = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    for name in arguments:
        if name not in allowed:
            raise UserError(
                f"flax's {cls.__name__} has no argument {name}; {did_you_mean(name, allowed)}"
            )
    given = {**_arguments_of(layer, cls, allowed), **arguments}
    for name, values in ONLY.items():
        if given.get(name) not in (*values, (-1,)) and name in given:
            raise UserError(
                f"{name}={given[name]!r} of flax's {cls.__name__} has no counterpart: channels are "
                "last, and a result has the dtype of the input"
            )
    return read(given)


def _arguments_of(layer: Any, cls: type, names: list[str]) -> dict[str, Any]:
    if not isinstance(layer, type):
        return {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    parameters = inspect.signature(cls.__init__).parameters
    return {
        name: parameters[name].default
        for name in names
        if parameters[name].default is not inspect.Parameter.empty
    }


def _affine(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "eps": given["epsilon"],
        "use_scale": given["use_scale"],
        "use_bias": given.get("use_bias", False),
    }


def _local(given: Mapping[str, Any]) -> None:
    if given.get("axis_name") is not None:
        raise UserError(
            f"axis_name={given['axis_name']!r}: statistics of an example are not shared between "
            "devices here"
        )


def _batch(given: Mapping[str, Any]) -> Normaliser:
    return BatchNorm(momentum=given["momentum"], axis_name=given["axis_name"], **_affine(given))


def _layer(given: Mapping[str, Any]) -> Normaliser:
    _local(given)
    axes = given["reduction_axes"]
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if axes == (-1,):
        return LayerNorm(**_affine(given))
    whole = {tuple(range(1, n + 1)) for n in (2, 3, 4)} | {tuple(range(-n, 0)) for n in (2, 3, 4)}
    if axes in whole:
        return LayerNormImage(**_affine(given))
    raise UserError(
        f"reduction_axes={axes} is neither the channels (-1) nor all axes of an example, as in "
        "(1, 2, 3) for images"
    )


def _group(given: Mapping[str, Any]) -> Normaliser:
    _local(given)
    if given.get("reduction_axes") is not None:
        raise UserError("reduction_axes of flax's GroupNorm has no counterpart: give none")
    if given["num_groups"] is None:
        raise UserError(
            f"group_size={given['group_size']} leaves the number of groups to the layer's width: "
            "give num_groups, the width over it"
        )
    return GroupNorm(groups=given["num_groups"], **_affine(given))


def _instance(given: Mapping[str, Any]) -> Normaliser:
    _local(given)
    return InstanceNorm(**_affine(given))


def _rms(given: Mapping[str, Any]) -> Normaliser:
    _local(given)
    if given["reduction_axes"] not in (-1, (-1,)):
        raise UserError(f"reduction_axes={given['reduction_axes']}: channels (-1) alone")
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
