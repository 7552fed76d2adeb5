"""Holds the normalisers: one file each, or one for a family that the literature names.

Every entry is a frozen dataclass, its description, with `init` and `apply` (see
`normlab.core.Normaliser`), for a model and a config. Entries without a state also have a function
of the same name, arrays in and arrays out, for a notebook: `group_norm` beside `GroupNorm`. Only
`identity`, `evo_norm_s0` and what takes a condition, a key or an activation lack one. Of the
entries with a state, `batch_norm` and `batch_renorm` have one, which takes the running statistics
as arguments. A new file with a class marked `@normaliser(...)` is found by itself.
"""

from typing import TYPE_CHECKING

from normlab.catalogue import NORMS, lazily

if TYPE_CHECKING:
    from normlab.norms.adaptive import AdaptiveLayerNorm as AdaptiveLayerNorm
    from normlab.norms.adaptive import AdaptiveLayerNormZero as AdaptiveLayerNormZero
    from normlab.norms.averaged import AveragedBatchNorm as AveragedBatchNorm
    from normlab.norms.batch import BatchNorm as BatchNorm
    from normlab.norms.batch_group import BatchGroupNorm as BatchGroupNorm
    from normlab.norms.batch_instance import BatchInstanceNorm as BatchInstanceNorm
    from normlab.norms.batch_renorm import BatchRenorm as BatchRenorm
    from normlab.norms.compressed_rms import CompressedRMSNorm as CompressedRMSNorm
    from normlab.norms.conditional import ConditionalBatchNorm as ConditionalBatchNorm
    from normlab.norms.controls import Affine as Affine
    from normlab.norms.controls import Identity as Identity
    from normlab.norms.debiased import DebiasedBatchNorm as DebiasedBatchNorm
    from normlab.norms.divisive import DivisiveNorm as DivisiveNorm
    from normlab.norms.dynamic import DynamicErf as DynamicErf
    from normlab.norms.dynamic import DynamicTanh as DynamicTanh
    from normlab.norms.dynamic_isru import DynamicISRU as DynamicISRU
    from normlab.norms.evo import EvoNormB0 as EvoNormB0
    from normlab.norms.evo import EvoNormS0 as EvoNormS0
    from normlab.norms.example_weighted import ExampleWeightedBatchNorm as ExampleWeightedBatchNorm
    from normlab.norms.filter_response import FilterResponseNorm as FilterResponseNorm
    from normlab.norms.frozen import FrozenBatchNorm as FrozenBatchNorm
    from normlab.norms.global_response import GlobalResponseNorm as GlobalResponseNorm
    from normlab.norms.group import GroupNorm as GroupNorm
    from normlab.norms.instance import InstanceNorm as InstanceNorm
    from normlab.norms.kernel import KernelNorm as KernelNorm
    from normlab.norms.l1 import L1BatchNorm as L1BatchNorm
    from normlab.norms.layer import LayerNorm as LayerNorm
    from normlab.norms.layer import LayerNormImage as LayerNormImage
    from normlab.norms.local_response import LocalResponseNorm as LocalResponseNorm
    from normlab.norms.mode import ModeNorm as ModeNorm
    from normlab.norms.moving_average import MovingAverageBatchNorm as MovingAverageBatchNorm
    from normlab.norms.normality import NormalityBatchNorm as NormalityBatchNorm
    from normlab.norms.normality import NormalityGroupNorm as NormalityGroupNorm
    from normlab.norms.normality import NormalityLayerNorm as NormalityLayerNorm
    from normlab.norms.online import OnlineNorm as OnlineNorm
    from normlab.norms.partial_rms import PartialRMSNorm as PartialRMSNorm
    from normlab.norms.population import PopulationNorm as PopulationNorm
    from normlab.norms.positional import PositionalNorm as PositionalNorm
    from normlab.norms.power import PowerNorm as PowerNorm
    from normlab.norms.progressive import ProgressiveBatchNorm as ProgressiveBatchNorm
    from normlab.norms.proxy import ProxyGroupNorm as ProxyGroupNorm
    from normlab.norms.rms import RMSNorm as RMSNorm
    from normlab.norms.scale import ScaleNorm as ScaleNorm
    from normlab.norms.seed_norm import SeedNorm as SeedNorm
    from normlab.norms.split import SplitBatchNorm as SplitBatchNorm
    from normlab.norms.switchable import SwitchableNorm as SwitchableNorm
    from normlab.norms.taper import TaperNorm as TaperNorm
    from normlab.norms.whitening import DecorrelatedBatchNorm as DecorrelatedBatchNorm
    from normlab.norms.whitening import IterativeNorm as IterativeNorm

__getattr__, __dir__ = lazily(__name__, NORMS)
