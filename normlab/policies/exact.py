"""Evaluates with the exact statistics of training batches."""

from dataclasses import dataclass
from typing import Any

from normlab.adapters.classifier import Classifier
from normlab.adapters.statistics import keeps_statistics, recalibrate
from normlab.core import Array
from normlab.policies.contract import Adapted, Source, policy


@policy(paper="arXiv:2105.07576")
@dataclass(frozen=True)
class Exact:
    """Takes the exact statistics of training batches in place of a running average ("PreciseBN").

    They are pooled over the source's batches (Wu and Johnson 2021, section 3; `recalibrate`). A
    network without statistics of batches stays as it is.

    >>> Exact()
    Exact()
    """

    def begin(self, network: Classifier, params: Any, norm_state: Any, source: Source) -> Adapted:
        """Pool the statistics of the source's batches."""
        variables = network.variables(params, norm_state)
        if keeps_statistics(network.model, variables, source.images[0]):
            variables = recalibrate(network.model, variables, list(source.images))
        state = network.split(variables)[1]
        return Adapted(params, state, state)

    def answer(self, network: Classifier, adapted: Adapted, images: Array) -> tuple[Array, Adapted]:
        """Answer one batch, `(N, H, W, C)`."""
        logits, _ = network.apply(adapted.params, adapted.norm_state, images, train=False)
        return logits, adapted
