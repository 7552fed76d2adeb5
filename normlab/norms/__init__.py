"""The normalisers: one file each, or one for a family of one equation; this folder is the list.

Every file has two faces. A function, the mathematics: arrays in, arrays out, for a notebook. And a
frozen dataclass, its description, with `init` and `apply` (see `normlab.core.Normaliser`), for a
model and a config. A new file with a class marked `@normaliser(...)` is found by itself.
"""

from typing import TYPE_CHECKING, Any

from normlab.catalogue import NORMS

if TYPE_CHECKING:
    from normlab.norms.batch import BatchNorm as BatchNorm
    from normlab.norms.controls import Affine as Affine
    from normlab.norms.controls import Identity as Identity
    from normlab.norms.elementwise import DynamicErf as DynamicErf
    from normlab.norms.elementwise import DynamicTanh as DynamicTanh
    from normlab.norms.filter_response import FilterResponseNorm as FilterResponseNorm
    from normlab.norms.global_response import GlobalResponseNorm as GlobalResponseNorm
    from normlab.norms.group import GroupNorm as GroupNorm
    from normlab.norms.instance import InstanceNorm as InstanceNorm
    from normlab.norms.layer import LayerNorm as LayerNorm
    from normlab.norms.layer import LayerNormImage as LayerNormImage
    from normlab.norms.rms import RMSNorm as RMSNorm
    from normlab.norms.scale import ScaleNorm as ScaleNorm


def __getattr__(name: str) -> Any:
    """`normlab.norms.GroupNorm` and the like, found through the catalogue when first asked for."""
    for entry in NORMS.entries().values():
        if entry.attribute == name:
            return entry.load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [entry.attribute for entry in NORMS.entries().values()]
