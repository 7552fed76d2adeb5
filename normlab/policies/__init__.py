"""Policies: what a trained network does with its normalisers when it is evaluated.

Every file is one policy: which statistics an evaluation takes, or what a network learns from the
test batches as they come. A frozen dataclass marked `@policy(...)` is one (see
`normlab.policies.contract`); the catalogue finds a new file with one. `evaluate` judges any linen
or NNX classifier by one policy, on a stream of test batches (`normlab.policies.streams`).
"""

from typing import TYPE_CHECKING

from normlab.catalogue import POLICIES, lazily

if TYPE_CHECKING:
    from normlab.policies.alpha_bn import AlphaBN as AlphaBN
    from normlab.policies.evaluating import evaluate as evaluate
    from normlab.policies.exact import Exact as Exact
    from normlab.policies.sar import SAR as SAR
    from normlab.policies.stored import Stored as Stored
    from normlab.policies.tent import Tent as Tent
    from normlab.policies.test_batch import TestBatch as TestBatch
    from normlab.policies.ttn import TTN as TTN

__getattr__, __dir__ = lazily(__name__, POLICIES, evaluate="normlab.policies.evaluating")
