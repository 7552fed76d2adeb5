"""Describes the layers of other libraries: their defaults, their arguments and peculiarities.

Checked against flax 0.12.8, torch 2.14.1, timm 1.0.31, keras 3.15.1, haiku 0.0.17 and equinox
0.13.8. `normlab.dialects.library` reads these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Layer:
    """One layer of a library, in normlab's terms.

    Attributes:
        theirs: the library's name of the layer.
        arguments: the library's argument for each field of a description. Two fields with the same
            argument are set together.
        defaults: the library's default of each field, in the library's meaning.
        required: fields without a default.
        entry: the name of the equivalent normaliser, if it differs from the requested name.
        bias_needs_scale: whether the layer has no bias without a scale.
        notes: behaviour that no field expresses, by the number of the difference.
    """

    theirs: str
    arguments: Mapping[str, str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    entry: str | None = None
    bias_needs_scale: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)


def _named(eps: str, scale: str, bias: str | None, **others: str) -> dict[str, str]:
    """Make a table of `arguments`."""
    return {"eps": eps, "use_scale": scale, **({"use_bias": bias} if bias else {}), **others}


_BATCH = {"momentum": "momentum"}
_TORCH_AXES = {"S7": "channels on axis 1 (NCHW)"}
_TORCH_ONE = {"S9": "one value per statistic is an error in training"}
_SILENT_ONE = {"S9": "one value per statistic silently gives zero"}
_FLAX_DTYPE = {"S13": "dtype is the output's in linen, the arithmetic's in nnx"}
_ELEMENTWISE = {"S5": "over an image: a scale and bias for each element"}
_PER_CHANNEL = {"S5": "over an image: a scale and bias for each channel"}
_PIXEL = {"S6": "the channels of one position"}
_LAST = {"S7": "channels last"}

_TORCH = {
    "batch_norm": Layer(
        "BatchNorm1d, 2d, 3d",
        _named("eps", "affine", "bias", **_BATCH),
        {"momentum": 0.1, "eps": 1e-5, "unbiased_running_variance": True},
        bias_needs_scale=True,
        notes={
            **_TORCH_AXES,
            **_TORCH_ONE,
            "S11": "training mode updates the running statistics even if parameters are frozen",
            "S12": "evaluates by the batch without track_running_stats",
            "S13": "narrow input has float32 statistics",
            "S18": "checkpointing runs the forward pass, and its update, twice",
        },
    ),
    "layer_norm": Layer(
        "LayerNorm",
        _named("eps", "elementwise_affine", "bias"),
        {"eps": 1e-5},
        bias_needs_scale=True,
        notes={**_ELEMENTWISE, "S6": "the trailing axes that its shape names", **_SILENT_ONE},
    ),
    "layer_norm_image": Layer(
        "GroupNorm(1, C)",
        _named("eps", "affine", "bias"),
        {"eps": 1e-5},
        bias_needs_scale=True,
        notes={
            "S5": "a scale and bias for each channel (LayerNorm of (C, H, W): for each element)",
            **_TORCH_AXES,
        },
    ),
    "group_norm": Layer(
        "GroupNorm",
        _named("eps", "affine", "bias", groups="num_groups"),
        {"eps": 1e-5},
        required=("groups",),
        bias_needs_scale=True,
        notes={**_TORCH_AXES, **_TORCH_ONE},
    ),
    "instance_norm": Layer(
        "InstanceNorm1d, 2d, 3d",
        _named("eps", "affine", "affine"),
        {"eps": 1e-5, "use_scale": False, "use_bias": False},
        notes={
            **_TORCH_AXES,
            **_TORCH_ONE,
            "S12": "evaluates by averages with track_running_stats",
        },
    ),
    "rms_norm": Layer(
        "RMSNorm",
        _named("eps", "elementwise_affine", None),
        {"eps": 2.0**-23},  # it is finfo(float32).eps for float32 and narrower input
        notes=_PIXEL,
    ),
    "weight_norm": Layer("parametrizations.weight_norm", {}),
}
_TIMM = {
    **_TORCH,
    "layer_norm": Layer(
        "LayerNorm, LayerNorm2d",
        _named("eps", "affine", "affine"),
        {"eps": 1e-6},
        notes={**_PIXEL, **_SILENT_ONE},
    ),
    "group_norm": Layer(
        "GroupNorm",
        _named("eps", "affine", "affine", groups="num_groups"),
        {"eps": 1e-5, "groups": 32},
        notes={**_TORCH_AXES, **_TORCH_ONE},
    ),
    "layer_norm_image": Layer(
        "GroupNorm1",
        _named("eps", "affine", "affine"),
        {"eps": 1e-5},
        notes={**_PER_CHANNEL, **_TORCH_AXES},
    ),
    "rms_norm": Layer(
        "RmsNorm, RmsNorm2d", _named("eps", "affine", None), {"eps": 1e-6}, notes=_PIXEL
    ),
    "evo_norm_b0": Layer(
        "EvoNorm2dB0",
        {"eps": "eps", **_BATCH},
        {"momentum": 0.1, "eps": 1e-3},
        notes={"S2": "its running variance is unbiased; evo_norm_b0 has no such field"},
    ),
    "evo_norm_s0": Layer(
        "EvoNorm2dS0", {"eps": "eps", "groups": "groups"}, {"eps": 1e-5, "groups": 32}
    ),
    "filter_response_norm": Layer("FilterResponseNormTlu2d", {"eps": "eps"}, {"eps": 1e-5}),
    "weight_standardisation": Layer(
        "StdConv2d", {"eps": "eps"}, {"eps": 1e-6, "unbiased": False, "eps_in_variance": True}
    ),
    "scaled_weight_standardisation": Layer(
        "ScaledStdConv2d", {"eps": "eps", "gamma": "gamma"}, {"eps": 1e-6, "floor": 0.0}
    ),
}
_FLAX = {
    "batch_norm": Layer(
        "BatchNorm",
        _named("epsilon", "use_scale", "use_bias", **_BATCH, axis_name="axis_name"),
        {"momentum": 0.99, "eps": 1e-5},
        notes={**_LAST, **_SILENT_ONE, **_FLAX_DTYPE, "S18": "nn.remat updates once"},
    ),
    "layer_norm": Layer(
        "LayerNorm",
        _named("epsilon", "use_scale", "use_bias"),
        {"eps": 1e-6},
        notes={**_PER_CHANNEL, **_PIXEL, **_SILENT_ONE, **_FLAX_DTYPE},
    ),
    "layer_norm_image": Layer(
        "LayerNorm(reduction_axes=(1, 2, 3), feature_axes=-1)",
        _named("epsilon", "use_scale", "use_bias"),
        {"eps": 1e-6},
        notes={**_PER_CHANNEL, **_LAST},
    ),
    "group_norm": Layer(
        "GroupNorm",
        _named("epsilon", "use_scale", "use_bias", groups="num_groups"),
        {"eps": 1e-6, "groups": 32},
        notes={**_LAST, **_SILENT_ONE},
    ),
    "instance_norm": Layer(
        "InstanceNorm",
        _named("epsilon", "use_scale", "use_bias"),
        {"eps": 1e-6},
        notes={**_LAST, **_SILENT_ONE},
    ),
    "rms_norm": Layer("RMSNorm", _named("epsilon", "use_scale", None), {"eps": 1e-6}, notes=_PIXEL),
    "weight_norm": Layer("WeightNorm", {"use_gain": "use_scale"}, {"start": 1.0}),
}
_HAIKU_AFFINE = ("create_scale", "create_offset")
_HAIKU = {
    "batch_norm": Layer(
        "BatchNorm",
        _named("eps", *_HAIKU_AFFINE, momentum="decay_rate", axis_name="cross_replica_axis"),
        {"eps": 1e-5},
        required=("momentum",),
        entry="debiased_batch_norm",
        notes={
            "S7": "channels last, or first by data_format",
            **_SILENT_ONE,
            "S12": "test_local_stats evaluates by the batch",
            "S13": "statistics, parameters and state have the input's dtype",
        },
    ),
    "layer_norm": Layer(
        "LayerNorm(axis=-1)",
        _named("eps", *_HAIKU_AFFINE),
        {"eps": 1e-5},
        notes={**_PER_CHANNEL, "S6": "the axes that it must be given"},
    ),
    "layer_norm_image": Layer(
        "LayerNorm(axis=(1, 2, 3))",
        _named("eps", *_HAIKU_AFFINE),
        {"eps": 1e-5},
        notes=_PER_CHANNEL,
    ),
    "group_norm": Layer(
        "GroupNorm",
        _named("eps", *_HAIKU_AFFINE, groups="groups"),
        {"eps": 1e-5},
        required=("groups",),
        notes={"S7": "channels last, or first by data_format"},
    ),
    "instance_norm": Layer("InstanceNorm", _named("eps", *_HAIKU_AFFINE), {"eps": 1e-5}),
    "rms_norm": Layer("RMSNorm(axis=-1)", _named("eps", "create_scale", None), {"eps": 1e-5}),
}
_EQUINOX_AXES = {"S7": "channels on axis 0 of one example, the batch by vmap"}
_EQUINOX_BATCH = _named(
    "eps", "channelwise_affine", "channelwise_affine", **_BATCH, axis_name="axis_name"
)
_EQUINOX = {
    "batch_norm": Layer(
        'BatchNorm(mode="batch")',
        _EQUINOX_BATCH,
        {"momentum": 0.99, "eps": 1e-5},
        entry="debiased_batch_norm",
        notes={
            "S1": "release 0.13.8 debiases a variance that starts at one, so evaluations of the "
            "first steps see it too large; this entry is the average as intended",
            **_EQUINOX_AXES,
            "S13": "dtype is the dtype of parameters and state",
        },
    ),
    "averaged_batch_norm": Layer(
        'BatchNorm(mode="ema"), the default',
        _EQUINOX_BATCH,
        {"momentum": 0.99, "eps": 1e-5},
        notes={**_EQUINOX_AXES, "S13": "dtype is the dtype of parameters and state"},
    ),
    "layer_norm": Layer(
        "LayerNorm", _named("eps", "use_weight", "use_bias"), {"eps": 1e-5}, notes=_ELEMENTWISE
    ),
    "group_norm": Layer(
        "GroupNorm",
        _named("eps", "channelwise_affine", "channelwise_affine", groups="groups"),
        {"eps": 1e-5},
        required=("groups",),
        notes=_EQUINOX_AXES,
    ),
    "rms_norm": Layer(
        "RMSNorm",
        _named("eps", "use_weight", "use_bias"),
        {"eps": 1e-5, "use_bias": True},
        notes={"S10": "a bias by default, which the paper and the other libraries do not have"},
    ),
}
_KERAS = {
    "batch_norm": Layer(
        "BatchNormalization",
        _named("epsilon", "scale", "center", **_BATCH),
        {"momentum": 0.99, "eps": 1e-3},
        notes={
            "S7": "channels last, or elsewhere by axis",
            **_SILENT_ONE,
            "S11": "trainable=False means evaluation mode too",
            "S13": "narrow input has float32 statistics",
            "S20": "renorm=True has fixed limits, none by default",
        },
    ),
    "layer_norm": Layer(
        "LayerNormalization",
        _named("epsilon", "scale", "center"),
        {"eps": 1e-3},
        notes={**_ELEMENTWISE, **_PIXEL, **_SILENT_ONE},
    ),
    "group_norm": Layer(
        "GroupNormalization",
        _named("epsilon", "scale", "center", groups="groups"),
        {"eps": 1e-3, "groups": 32},
        notes={"S7": "channels last, or elsewhere by axis", **_SILENT_ONE},
    ),
    "rms_norm": Layer("RMSNormalization", {"eps": "epsilon"}, {"eps": 1e-6}, notes=_PIXEL),
}

LAYERS: dict[str, dict[str, Layer]] = {
    "equinox": _EQUINOX,
    "flax": _FLAX,
    "haiku": _HAIKU,
    "keras": _KERAS,
    "timm": _TIMM,
    "torch": _TORCH,
}
"""The layers by library and normaliser."""
