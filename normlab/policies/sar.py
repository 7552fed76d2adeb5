"""Evaluates while the network learns from its sure answers, by sharpness-aware steps: SAR."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from normlab.adapters.classifier import Classifier
from normlab.core import Array
from normlab.errors import require_field
from normlab.policies.contract import Adapted, Source, policy, scales_and_biases
from normlab.policies.entropy import answer_by_batch, entropy, only


class Memory(NamedTuple):
    """What SAR remembers between batches.

    Attributes:
        optimizer: the state of SGD.
        average: the moving average of the loss; NaN before the first batch with a sure answer.
        start: the trained parameters.
        resets: how often the trained parameters came back.
    """

    optimizer: Any
    average: Array
    start: Any
    resets: Array


@policy(paper="arXiv:2302.12400", learns=True)
@dataclass(frozen=True)
class SAR:
    """Minimises the entropy of its sure answers by sharpness-aware steps (Niu et al. 2023).

    - Only answers whose entropy is below `margin * log(classes)` count.
    - The gradient is taken at the parameters plus `rho` times the unit vector of a first gradient,
      over those of the sure answers that are still sure there (Foret et al. 2021).
    - The trained parameters come back if the moving average of that second loss falls below
      `reset_below`: a collapsed network is very sure.

    Normalisers that keep statistics take those of the test batch; group and layer normalisation,
    which the paper recommends, have none and need nothing. The paper leaves the scales and biases
    of the top layers alone: the last of a ResNet's four stages, or the last 3 of a ViT's 12 blocks.
    `share` says it for any network. As in the authors' code (github.com/mr-eggplant/SAR), a batch
    is answered before the step, and a reset leaves the moving average as it is.

    Attributes:
        learning_rate: that of SGD.
        momentum: that of SGD.
        margin: the largest entropy of a sure answer, in parts of the logarithm of the classes.
        rho: how far the first step goes.
        reset_below: the average loss in nats at which the trained parameters come back; 0 for
            never.
        share: the share of the normalisers that learn, from the input on.

    >>> SAR(margin=0.4).reset_below
    0.2
    """

    learning_rate: float = 2.5e-4
    momentum: float = 0.9
    margin: float = 0.4
    rho: float = 0.05
    reset_below: float = 0.2
    share: float = 0.75

    def __post_init__(self) -> None:
        for field in ("learning_rate", "rho", "reset_below"):
            value = getattr(self, field)
            require_field(value >= 0, field, value, "a number, 0 or more")
        require_field(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        require_field(self.margin > 0, "margin", self.margin, "above 0")
        require_field(0 < self.share <= 1, "share", self.share, "above 0 and at most 1")

    @property
    def _optax(self) -> optax.GradientTransformation:
        return optax.sgd(self.learning_rate, momentum=self.momentum)

    def begin(self, network: Classifier, params: Any, norm_state: Any, source: Source) -> Adapted:
        """Begin with the trained parameters and an unused optimiser."""
        scales_and_biases(network, params, norm_state, source.images[0], self.share)
        none_yet, zero = jnp.full((), jnp.nan), jnp.zeros((), jnp.int32)
        memory = Memory(self._optax.init(params), none_yet, params, zero)
        return Adapted(params, norm_state, norm_state, memory)

    def answer(self, network: Classifier, adapted: Adapted, images: Array) -> tuple[Array, Adapted]:
        """Answer one batch, `(N, H, W, C)`, and learn from its sure answers."""
        params, memory = adapted.params, adapted.memory
        learns = scales_and_biases(network, params, adapted.norm_state, images, self.share)

        def entropies(params: Any) -> tuple[Array, tuple[Array, Any]]:
            logits, state = answer_by_batch(network, params, adapted, images)
            return entropy(logits), (logits, state)

        def first_loss(params: Any) -> Any:
            found, answered = entropies(params)
            sure = jax.lax.stop_gradient(found < self._margin(answered[0]))
            return _mean(found, sure), (sure, answered)

        def second_loss(params: Any, sure: Array) -> Any:
            found, (logits, _) = entropies(params)
            still = sure & jax.lax.stop_gradient(found < self._margin(logits))
            return _mean(found, still), still.any()

        gradient, (sure, (logits, last)) = jax.grad(first_loss, has_aux=True)(params)
        gradient = only(learns, gradient)
        # The authors' code adds 1e-12 to the norm, so that a gradient of zero goes nowhere.
        length = self.rho / (optax.tree.norm(gradient) + 1e-12)
        beside = jax.tree.map(lambda p, g: p + length * g, params, gradient)
        (loss, any_sure), gradient = jax.value_and_grad(second_loss, has_aux=True)(beside, sure)
        updates, optimizer = self._optax.update(only(learns, gradient), memory.optimizer, params)
        moved = optax.apply_updates(params, updates)

        first = jnp.isnan(memory.average)
        average = jnp.where(first, loss, 0.9 * memory.average + 0.1 * loss)
        average = jnp.where(any_sure, average, memory.average)
        resets = average < self.reset_below  # False for NaN
        fresh = (memory.start, self._optax.init(memory.start))
        params, optimizer = jax.tree.map(
            lambda new, old: jnp.where(resets, new, old), fresh, (moved, optimizer)
        )
        memory = Memory(optimizer, average, memory.start, memory.resets + resets)
        return logits, Adapted(params, adapted.norm_state, last, memory)

    def _margin(self, logits: Array) -> float:
        return self.margin * math.log(logits.shape[-1])


def _mean(values: Array, counts: Array) -> Array:
    """Compute the mean of the values that count, or 0 if none does."""
    count = jnp.maximum(counts.sum(), 1).astype(values.dtype)
    return jnp.where(counts, values, 0).sum() / count
