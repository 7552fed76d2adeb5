"""Holds the placements, which say where in a network the normalisers stand.

A placement is a frozen dataclass that writes down one block as its paper's figure draws it. A
config names it in the section `placement`, beside the `norm` that stands in every slot. Those of
`TokenPlacement` are for the transformer, those of `ImagePlacement` for the residual networks.

>>> from normlab.models import Vit
>>> from normlab.norms import RMSNorm
>>> from normlab.placements import MixLN
>>> Vit(norm=RMSNorm(), classes=10, placement=MixLN(share=0.5)).placement
MixLN(share=0.5)

A new file with a class marked `@placement(...)` (from `normlab.placements.contract`) is found by
itself.
"""

from typing import TYPE_CHECKING

from normlab.catalogue import PLACEMENTS, lazily

if TYPE_CHECKING:
    from normlab.placements.deep_norm import DeepNorm as DeepNorm
    from normlab.placements.hybrid_norm import HybridNorm as HybridNorm
    from normlab.placements.hybrid_norm import HybridNormStar as HybridNormStar
    from normlab.placements.keel import Keel as Keel
    from normlab.placements.layer_norm_scaling import LayerNormScaling as LayerNormScaling
    from normlab.placements.mix_ln import MixLN as MixLN
    from normlab.placements.norm_former import NormFormer as NormFormer
    from normlab.placements.peri import Peri as Peri
    from normlab.placements.peri import Sandwich as Sandwich
    from normlab.placements.post import Post as Post
    from normlab.placements.pre import Pre as Pre
    from normlab.placements.residual import V1 as V1
    from normlab.placements.residual import V2 as V2
    from normlab.placements.residual import AfterAddition as AfterAddition
    from normlab.placements.residual import Branch as Branch
    from normlab.placements.residual import V1ActNorm as V1ActNorm
    from normlab.placements.residual import V2ActNorm as V2ActNorm
    from normlab.placements.span_norm import SpanNorm as SpanNorm
    from normlab.placements.sub_ln import SubLN as SubLN

__getattr__, __dir__ = lazily(__name__, PLACEMENTS)
