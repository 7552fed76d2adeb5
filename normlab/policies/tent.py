"""Evaluates while the network learns to be sure: TENT."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from normlab.adapters.classifier import Classifier
from normlab.core import Array
from normlab.errors import require_field, require_whole
from normlab.policies.contract import Adapted, Source, policy, scales_and_biases
from normlab.policies.entropy import answer_by_batch, entropy, only


@policy(paper="arXiv:2006.10726", learns=True)
@dataclass(frozen=True)
class Tent:
    """Minimises the entropy of its own answers over scales and biases, online (Wang et al. 2021).

    Normalisers that keep statistics take those of the test batch. A batch is answered, then one
    step is taken on the mean entropy of these answers, and the next batch meets the new parameters
    (the authors' code, github.com/DequanWang/tent). Only scales and biases of normalisers learn.
    The defaults are the paper's for CIFAR-10-C at a batch size of 200.

    Attributes:
        learning_rate: the optimiser's learning rate.
        optimizer: "adam" or "sgd".
        momentum: of SGD, or Adam's first decay.
        steps: the number of steps on each batch. With more than one, the answers are those before
            the last step.

    >>> Tent(learning_rate=0.00025, optimizer="sgd").momentum
    0.9
    """

    learning_rate: float = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.9
    steps: int = 1

    def __post_init__(self) -> None:
        rate = self.learning_rate
        require_field(rate >= 0, "learning_rate", rate, "a number, 0 or more")
        require_field(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        require_field(self.optimizer in ("adam", "sgd"), "optimizer", self.optimizer, "adam or sgd")
        require_whole("steps", self.steps, 1)

    @property
    def _optax(self) -> optax.GradientTransformation:
        if self.optimizer == "adam":
            return optax.adam(self.learning_rate, b1=self.momentum)
        return optax.sgd(self.learning_rate, momentum=self.momentum)

    def begin(self, network: Classifier, params: Any, norm_state: Any, source: Source) -> Adapted:
        """Begin with the trained parameters and an unused optimiser."""
        scales_and_biases(network, params, norm_state, source.images[0])
        return Adapted(params, norm_state, norm_state, self._optax.init(params))

    def answer(self, network: Classifier, adapted: Adapted, images: Array) -> tuple[Array, Adapted]:
        """Answer one batch, `(N, H, W, C)`, and learn from it."""
        learns = scales_and_biases(network, adapted.params, adapted.norm_state, images)

        def mean_entropy(params: Any) -> tuple[Array, Any]:
            logits, state = answer_by_batch(network, params, adapted, images)
            return entropy(logits).mean(), (logits, state)

        params, memory, logits, last = adapted.params, adapted.memory, None, adapted.last
        for _ in range(self.steps):
            gradient, (logits, last) = jax.grad(mean_entropy, has_aux=True)(params)
            updates, memory = self._optax.update(only(learns, gradient), memory, params)
            params = optax.apply_updates(params, only(learns, updates))
        assert logits is not None
        return logits, Adapted(params, adapted.norm_state, last, memory)
