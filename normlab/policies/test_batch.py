"""Evaluates with the statistics of each test batch."""

from dataclasses import dataclass
from typing import Any

from normlab.adapters.classifier import Classifier
from normlab.adapters.statistics import with_batch, with_mixture
from normlab.core import Array, State
from normlab.errors import require_field
from normlab.policies.contract import Adapted, Source, answer_with, policy


@policy(paper="arXiv:2006.10963; with a prior: arXiv:2006.16971")
@dataclass(frozen=True)
class TestBatch:
    """Takes the statistics of the test batch itself (Nado et al. 2020).

    With a prior of N examples and n in the batch, N / (N + n) of the stored mean and variance are
    mixed in (Schneider et al. 2020; `normlab.adapt`).

    Attributes:
        prior: the weight of the stored statistics, in examples; 0 for the batch alone.

    >>> TestBatch(prior=16)
    TestBatch(prior=16)
    """

    __test__ = False  # pytest collects classes of such a name

    prior: float = 0.0

    def __post_init__(self) -> None:
        require_field(self.prior >= 0, "prior", self.prior, "a number of examples, 0 or more")

    def begin(self, network: Classifier, params: Any, norm_state: Any, source: Source) -> Adapted:
        """Take the network as it is."""
        return Adapted(params, norm_state, norm_state)

    def answer(self, network: Classifier, adapted: Adapted, images: Array) -> tuple[Array, Adapted]:
        """Answer one batch, `(N, H, W, C)`."""
        weight = self.prior / (self.prior + len(images))

        def mixed(place: Any, state: State, moments: Any) -> State:
            return with_mixture(place, state, moments, weight)

        change = mixed if self.prior else with_batch
        found = answer_with(network, adapted.params, adapted.norm_state, images, change)
        return found[0], adapted._replace(last=found[1])
