"""Evaluates with a fixed mixture of stored statistics and those of the test batch."""

from dataclasses import dataclass
from typing import Any

from normlab.adapters.classifier import Classifier
from normlab.adapters.statistics import with_mixture
from normlab.core import Array, State
from normlab.errors import require_field
from normlab.policies.contract import Adapted, Source, answer_with, policy


@policy(paper="arXiv:2110.04065")
@dataclass(frozen=True)
class AlphaBN:
    """Mixes stored statistics with the test batch's in fixed parts: alpha-BN (You et al. 2021).

    Both the mean and the variance are `alpha * stored + (1 - alpha) * batch`. The parts do not
    depend on the batch's size, unlike those of `test_batch` with a prior. This is what the paper
    calls alpha-BN, which learns nothing. The paper's Core, a loss for adapting on top of it, is
    another method and is not built here.

    Attributes:
        alpha: the weight of the stored statistics, from 0 to 1.

    >>> AlphaBN(alpha=0.5)
    AlphaBN(alpha=0.5)
    """

    alpha: float = 0.9

    def __post_init__(self) -> None:
        require_field(0 <= self.alpha <= 1, "alpha", self.alpha, "between 0 and 1")

    def begin(self, network: Classifier, params: Any, norm_state: Any, source: Source) -> Adapted:
        """Take the network as it is."""
        return Adapted(params, norm_state, norm_state)

    def answer(self, network: Classifier, adapted: Adapted, images: Array) -> tuple[Array, Adapted]:
        """Answer one batch, `(N, H, W, C)`."""

        def mixed(place: Any, state: State, moments: Any) -> State:
            return with_mixture(place, state, moments, self.alpha)

        found = answer_with(network, adapted.params, adapted.norm_state, images, mixed)
        return found[0], adapted._replace(last=found[1])
