"""Every normaliser that another library has too: one table, for live comparison and golden files.

A case names the library's layer with the conventions converted in its line. What is compared is a
record: outputs and input gradients of two training steps, the parameters' gradients in the last,
and the evaluation after it. `python -m tests.peers.norms`, where the libraries are installed,
writes the records to `goldens/norms.npz`, by which machines without them hold the same table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from normlab import norms
from normlab.core import Normaliser
from tests.norms.conftest import sample, with_values

from . import goldens
from .libraries import (
    STEPS,
    C,
    Record,
    by_position,
    channels_first,
    jax_record,
    of_equinox,
    of_flax,
    of_haiku,
    of_keras,
    of_torch,
)

STATISTICS = {"mean": sample((C,), seed=7), "variance": 1 + sample((C,), seed=8) ** 2}


class Case(NamedTuple):
    ours: Normaliser
    library: str
    theirs: Callable[[dict[str, np.ndarray]], Record]
    converted: Callable[[Any], Any] = lambda state: state
    """Our state after the last step, as the library would have it."""


def parameters(case: Case) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in with_values(case.ours.init(C)[0]).items()}


def our_record(case: Case) -> Record:
    def step(params, state, x, train):
        return case.ours.apply(params, state, x, train=train)

    state = case.ours.init(C)[1]
    if case.library == "torchvision":
        state = {k: jnp.asarray(v) for k, v in STATISTICS.items()}
    return jax_record(step, parameters(case), state, case.converted)


def torch_layer(name, *args, **options):
    def make():
        import torch

        return getattr(torch.nn, name)(*args, **options)

    return make


def timm_layer(name, *args, **options):
    def make():
        from timm import layers
        from timm.layers import grn

        return getattr(layers, name, getattr(grn, name, None))(*args, **options)

    return make


def fixed(params):
    """torchvision holds scale, bias and statistics as buffers: no gradient of them."""
    import torch
    from torchvision.ops.misc import FrozenBatchNorm2d

    layer = FrozenBatchNorm2d(C, eps=1e-5)
    ours = {"weight": params["scale"], "bias": params["bias"]}
    theirs = {"running_mean": STATISTICS["mean"], "running_var": STATISTICS["variance"]}
    layer.load_state_dict({k: torch.tensor(v) for k, v in {**ours, **theirs}.items()})
    return of_torch(lambda: layer, names={})(params)


def unbiased(values: int, momentum: float = 0.9):
    """The running variance as of variances divided by one value less; it began at one."""
    begun, factor = momentum**STEPS, values / (values - 1)
    return lambda s: {**s, "variance": begun + (s["variance"] - begun) * factor}


def debiased(state, momentum=0.9):
    """haiku's averages, from which what is left of zero (ours: zero and one) is taken out."""
    left = momentum**STEPS
    mean, variance = state["mean"], state["variance"]
    return {"mean": mean / (1 - left), "variance": (variance - left) / (1 - left)}


ALL, PER_SPLIT = 4 * 2 * 3, 2 * 2 * 3
SPLIT = {k: [v, f"aux_bn.0.{v}"] for k, v in (("scale", "weight"), ("bias", "bias"))}
BOTH = {"create_scale": True, "create_offset": True}
IMAGE = {"reduction_axes": (1, 2, 3), "feature_axes": 3}
CLIPS = {"rmax": 3.0, "rmin": 1 / 3.0, "dmax": 5.0}
TORCH_BN = norms.BatchNorm(unbiased_running_variance=True)  # torch's momentum 0.1 is 0.9 here
AT_ONCE = norms.BatchRenorm(momentum=0.9, warm_up=0, r_rise=0, d_rise=0)

# fmt: off
CASES: dict[str, Case] = {f"{name}, {case.library}": case for name, case in [
    ("batch", Case(norms.BatchNorm(), "flax", of_flax(
        lambda train: nn.BatchNorm(use_running_average=not train, momentum=0.9)))),
    ("layer", Case(norms.LayerNorm(eps=1e-6), "flax", of_flax(lambda _: nn.LayerNorm()))),
    ("layer, image", Case(norms.LayerNormImage(eps=1e-6), "flax", of_flax(
        lambda _: nn.LayerNorm(**IMAGE)))),
    ("group", Case(norms.GroupNorm(groups=4, eps=1e-6), "flax", of_flax(
        lambda _: nn.GroupNorm(num_groups=4)))),
    ("instance", Case(norms.InstanceNorm(eps=1e-6), "flax", of_flax(
        lambda _: nn.InstanceNorm()))),
    ("rms", Case(norms.RMSNorm(eps=1e-6), "flax", of_flax(lambda _: nn.RMSNorm()))),

    ("batch", Case(TORCH_BN, "torch", of_torch(torch_layer("BatchNorm2d", C)))),
    ("group", Case(norms.GroupNorm(groups=2), "torch", of_torch(torch_layer("GroupNorm", 2, C)))),
    ("layer, image", Case(norms.LayerNormImage(), "torch", of_torch(
        torch_layer("GroupNorm", 1, C)))),  # torch's LayerNorm((C, H, W)) has a scale a pixel
    ("instance", Case(norms.InstanceNorm(), "torch", of_torch(
        torch_layer("InstanceNorm2d", C, affine=True)))),
    ("layer", Case(norms.LayerNorm(), "torch", of_torch(torch_layer("LayerNorm", C), last=True))),
    ("rms", Case(norms.RMSNorm(eps=float(np.finfo(np.float32).eps)), "torch", of_torch(
        torch_layer("RMSNorm", C), last=True))),
    ("local response", Case(norms.LocalResponseNorm(size=4, k=1, alpha=0.1), "torch", of_torch(
        torch_layer("LocalResponseNorm", 4, alpha=0.4)))),  # of the mean of squares
    ("frozen batch", Case(norms.FrozenBatchNorm(), "torchvision", fixed)),

    ("batch", Case(TORCH_BN, "timm", of_torch(
        timm_layer("BatchNormAct2d", C, apply_act=False)))),
    ("split batch", Case(norms.SplitBatchNorm(), "timm", of_torch(
        timm_layer("SplitBatchNorm2d", C, num_splits=2), names=SPLIT), unbiased(PER_SPLIT))),
    ("layer", Case(norms.LayerNorm(eps=1e-6), "timm", of_torch(timm_layer("LayerNorm2d", C)))),
    ("rms", Case(norms.RMSNorm(eps=1e-6), "timm", of_torch(timm_layer("RmsNorm2d", C)))),
    ("EvoNorm B0", Case(norms.EvoNormB0(eps=1e-3), "timm", of_torch(
        timm_layer("EvoNorm2dB0", C)), unbiased(ALL))),
    ("EvoNorm S0", Case(norms.EvoNormS0(groups=2), "timm", of_torch(
        timm_layer("EvoNorm2dS0", C, groups=2)))),
    ("filter response", Case(norms.FilterResponseNorm(), "timm", of_torch(
        timm_layer("FilterResponseNormTlu2d", C, eps=1e-6)))),
    ("global response", Case(norms.GlobalResponseNorm(), "timm", of_torch(
        timm_layer("GlobalResponseNorm", C), last=True))),

    ("batch", Case(norms.BatchNorm(), "dm-haiku", of_haiku(
        lambda hk: hk.BatchNorm(decay_rate=0.9, **BOTH), training=True), debiased)),
    ("layer", Case(norms.LayerNorm(), "dm-haiku", of_haiku(lambda hk: hk.LayerNorm(-1, **BOTH)))),
    ("group", Case(norms.GroupNorm(groups=2), "dm-haiku", of_haiku(lambda hk: hk.GroupNorm(2)))),
    ("instance", Case(norms.InstanceNorm(), "dm-haiku", of_haiku(
        lambda hk: hk.InstanceNorm(**BOTH)))),
    ("rms", Case(norms.RMSNorm(), "dm-haiku", of_haiku(lambda hk: hk.RMSNorm(-1)))),

    ("batch", Case(norms.BatchNorm(eps=1e-3), "keras", of_keras(
        lambda k: k.BatchNormalization(momentum=0.9)))),
    ("batch renorm", Case(AT_ONCE, "keras", of_keras(lambda k: k.BatchNormalization(
        momentum=0.9, epsilon=1e-5, renorm=True, renorm_momentum=0.9, renorm_clipping=CLIPS)))),
    ("layer", Case(norms.LayerNorm(eps=1e-3), "keras", of_keras(
        lambda k: k.LayerNormalization()))),
    ("group", Case(norms.GroupNorm(groups=2, eps=1e-3), "keras", of_keras(
        lambda k: k.GroupNormalization(2)))),
    ("instance", Case(norms.InstanceNorm(eps=1e-3), "keras", of_keras(
        lambda k: k.GroupNormalization(-1)))),
    ("rms", Case(norms.RMSNorm(eps=1e-6), "keras", of_keras(lambda k: k.RMSNormalization()))),
    ("scale", Case(norms.ScaleNorm(), "keras", of_keras(
        lambda k: k.UnitNormalization()))),  # to a length of one; the learnt length is put on after

    ("layer", Case(norms.LayerNorm(), "equinox", of_equinox(
        lambda nn: nn.LayerNorm(C), by_position))),
    ("rms", Case(norms.RMSNorm(), "equinox", of_equinox(
        lambda nn: nn.RMSNorm(C, use_bias=False), by_position))),
    ("group", Case(norms.GroupNorm(groups=2), "equinox", of_equinox(
        lambda nn: nn.GroupNorm(2, C), channels_first))),
]}
# fmt: on

if __name__ == "__main__":
    records = {name: case.theirs(parameters(case)) for name, case in CASES.items()}
    goldens.save(
        "norms",
        {
            f"{name}/{key}": value
            for name, record in records.items()
            for key, value in record.items()
        },
        tuple(sorted({case.library for case in CASES.values()})),
    )
