"""Evaluates with the statistics that training stored."""

from dataclasses import dataclass
from typing import Any

from normlab.adapters.classifier import Classifier
from normlab.core import Array
from normlab.policies.contract import Adapted, Source, policy


@policy(paper="arXiv:1502.03167")
@dataclass(frozen=True)
class Stored:
    """Takes the statistics that training stored: the usual evaluation (Ioffe and Szegedy 2015).

    >>> Stored()
    Stored()
    """

    def begin(self, network: Classifier, params: Any, norm_state: Any, source: Source) -> Adapted:
        """Take the network as it is."""
        return Adapted(params, norm_state, norm_state)

    def answer(self, network: Classifier, adapted: Adapted, images: Array) -> tuple[Array, Adapted]:
        """Answer one batch, `(N, H, W, C)`."""
        logits, _ = network.apply(adapted.params, adapted.norm_state, images, train=False)
        return logits, adapted
