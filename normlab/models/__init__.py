"""Networks with slots for any normaliser, activation and kernel transform.

>>> from normlab.models import MLP
>>> from normlab.norms import LayerNorm
>>> MLP(norm=LayerNorm(), classes=10).widths
(100, 100, 100)

The catalogue finds a new file with a Flax module marked `@model(...)` (from
`normlab.models.slots`).
"""

from typing import TYPE_CHECKING

from normlab.catalogue import MODELS, lazily

if TYPE_CHECKING:
    from normlab.models.fixup import Fixup as Fixup
    from normlab.models.ngpt import NGPT as NGPT
    from normlab.models.normaliser_free import NormaliserFree as NormaliserFree
    from normlab.models.plain import MLP as MLP
    from normlab.models.plain import Convnet as Convnet
    from normlab.models.resnet import Resnet as Resnet
    from normlab.models.resnet import ResnetV2 as ResnetV2
    from normlab.models.skipinit import Skipinit as Skipinit
    from normlab.models.speednet import Speednet as Speednet
    from normlab.models.vit import Vit as Vit

__getattr__, __dir__ = lazily(__name__, MODELS)
