"""Every dialect's layers beside the library's own, over steps of training and evaluation.

One table of cases drives the live comparison (tests/dialects/test_library.py, where the library is
installed) and the golden file, which `python -m tests.peers.dialects` makes from all six.

A case's function makes the library's layer with the library's defaults and runs it: for each batch
a step of training (output, gradients of input, scale and bias), then an evaluation. Running
statistics come back in the library's own form; `Case.converted` says how ours become them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.peers import goldens, layers

SHAPE = (4, 2, 3, 4)
STEPS = 4
SPREAD = np.array([1.0, 0.1, 0.01, 0.003], np.float32)
"""Of the channels: small enough for eps to show, in a library's default and in ours."""

Arrays = dict[str, np.ndarray]


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Input and output gradient of each step."""
    rng = np.random.default_rng(4)
    drawn = rng.standard_normal((STEPS, 2, *SHAPE)).astype(np.float32)
    return [((x + 0.3 * (step + 1)) * SPREAD, dy) for step, (x, dy) in enumerate(drawn)]


def affine() -> Arrays:
    """Scale and bias that are neither one nor zero."""
    return {
        "scale": np.array([0.5, 1.5, 2.0, 0.8], np.float32),
        "bias": np.array([0.3, -0.2, 0.1, 0.6], np.float32),
    }


@dataclass(frozen=True)
class Case:
    """A line of the table.

    Attributes:
        dialect, normaliser: which layer.
        run: the library's layer over the batches: (batches, scale, bias) -> arrays by name.
        arguments: what the library has no default for, or a test gives, in its meaning.
        converted: our running statistics after each step, (state, step from 1) -> the library's.
    """

    dialect: str
    normaliser: str
    run: Callable[..., Arrays]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    converted: Callable[[Arrays, int], Arrays] | None = None

    @property
    def name(self) -> str:
        """Name it for people, and in the golden file."""
        given = ",".join(f"{key}={value}" for key, value in self.arguments.items())
        return f"{self.dialect} {self.normaliser}" + (f" {given}" if given else "")


def plain(state: Arrays, step: int) -> Arrays:
    """Flax, keras and torch keep what normlab keeps."""
    return {"mean": state["mean"], "variance": state["variance"]}


def equinox_batch(state: Arrays, step: int) -> Arrays:
    """Equinox keeps the averages before debiasing, and begins that of the variance at one."""
    left = 0.99**step
    return {
        "mean": state["mean"] * (1 - left),
        "variance": state["variance"] * (1 - left) + left,
    }


def timm_evo(state: Arrays, step: int) -> Arrays:
    """Timm's running variance is unbiased, of 4 * 2 * 3 values; evo_norm_b0's is not."""
    left, n = 0.9**step, np.prod(SHAPE[:3])
    return {"variance": (state["variance"] - left) * n / (n - 1) + left}


T, F, H = layers.torch_layer, layers.flax_layer, layers.haiku_layer
E, K = layers.equinox_layer, layers.keras_layer
G2, M9 = {"groups": 2}, {"momentum": 0.9}
IMAGE = (1, 2, 3)

CASES = [
    Case("torch", "batch_norm", T("BatchNorm2d", 4), converted=plain),
    Case("torch", "batch_norm", T("BatchNorm2d", 4, momentum=0.3), {"momentum": 0.3}, plain),
    Case("torch", "batch_norm", T("BatchNorm2d", 4, momentum=None), {"momentum": None}, plain),
    Case("torch", "layer_norm", T("LayerNorm", 4, first=False)),
    Case("torch", "layer_norm_image", T("GroupNorm", 1, 4)),
    Case("torch", "group_norm", T("GroupNorm", 2, 4), G2),
    Case("torch", "instance_norm", T("InstanceNorm2d", 4)),
    Case("torch", "rms_norm", T("RMSNorm", 4, first=False)),
    Case("timm", "batch_norm", T("BatchNormAct2d", 4, apply_act=False, library="timm"), {}, plain),
    Case("timm", "layer_norm", T("LayerNorm2d", 4, library="timm")),
    Case("timm", "layer_norm_image", T("GroupNorm1", 4, library="timm")),
    Case("timm", "group_norm", T("GroupNorm", 4, num_groups=2, library="timm"), G2),
    Case("timm", "instance_norm", T("InstanceNorm2d", 4)),
    Case("timm", "rms_norm", T("RmsNorm2d", 4, library="timm")),
    Case("timm", "evo_norm_b0", T("EvoNorm2dB0", 4, library="timm"), {}, timm_evo),
    Case("timm", "evo_norm_s0", T("EvoNorm2dS0", 4, groups=2, library="timm"), G2),
    Case("timm", "filter_response_norm", T("FilterResponseNormTlu2d", 4, library="timm")),
    Case("flax", "batch_norm", F("BatchNorm"), converted=plain),
    Case("flax", "layer_norm", F("LayerNorm")),
    Case("flax", "layer_norm_image", F("LayerNorm", reduction_axes=IMAGE, feature_axes=-1)),
    Case("flax", "group_norm", F("GroupNorm", num_groups=2), G2),
    Case("flax", "instance_norm", F("InstanceNorm")),
    Case("flax", "rms_norm", F("RMSNorm")),
    Case("haiku", "batch_norm", H("BatchNorm", True, True, 0.9), M9, plain),
    Case("haiku", "layer_norm", H("LayerNorm", -1, True, True)),
    Case("haiku", "layer_norm_image", H("LayerNorm", IMAGE, True, True, param_axis=-1)),
    Case("haiku", "group_norm", H("GroupNorm", 2), G2),
    Case("haiku", "instance_norm", H("InstanceNorm", True, True)),
    Case("haiku", "rms_norm", H("RMSNorm", -1, param_axis=-1)),
    Case("equinox", "batch_norm", E("BatchNorm", 4, "n", mode="batch"), {}, equinox_batch),
    Case("equinox", "averaged_batch_norm", E("BatchNorm", 4, "n", mode="ema"), {}, plain),
    Case("equinox", "layer_norm", E("LayerNorm", 4, over=3)),
    Case("equinox", "group_norm", E("GroupNorm", 2, 4, over=1), G2),
    Case("equinox", "rms_norm", E("RMSNorm", 4, over=3)),
    Case("keras", "batch_norm", K("BatchNormalization"), converted=plain),
    Case("keras", "layer_norm", K("LayerNormalization")),
    Case("keras", "group_norm", K("GroupNormalization", groups=2), G2),
    Case("keras", "rms_norm", K("RMSNormalization")),
]  # fmt: skip


KERNELS = [
    ("timm", "weight_standardisation", layers.torch_kernel("StdConv2d")),
    ("timm", "scaled_weight_standardisation", layers.torch_kernel("ScaledStdConv2d")),
    ("timm", "weight_norm", layers.torch_weight_norm),
    ("torch", "weight_norm", layers.torch_weight_norm),
    ("flax", "weight_norm", layers.flax_weight_norm),
]
"""Dialect, kernel transform, and the library's: (HWIO kernel, gradient) -> both, as arrays."""


def kernel() -> tuple[np.ndarray, np.ndarray]:
    """A kernel, units of different sizes, and the gradient of what it becomes."""
    drawn = np.random.default_rng(5).standard_normal((2, 3, 3, 2, 3)).astype(np.float32)
    return drawn[0] * np.array([1.0, 0.03, 0.002], np.float32) + 0.001, drawn[1]


def main() -> None:
    """Write the golden file."""
    found = {}
    for dialect, name, run in KERNELS:
        found.update({f"{dialect} {name}/{key}": v for key, v in run(*kernel()).items()})
    for case in CASES:
        arrays = case.run(batches(), **affine())
        found.update({f"{case.name}/{key}": value for key, value in arrays.items()})
    libraries = ("torch", "timm", "flax", "dm-haiku", "equinox", "keras", "jax")
    goldens.save("dialects", found, libraries)


if __name__ == "__main__":
    main()
