"""Shares the formulas of the policies that learn from the entropy of their answers."""

from typing import Any

import jax
import jax.numpy as jnp

from normlab.adapters.classifier import Classifier
from normlab.adapters.statistics import with_batch
from normlab.core import Array
from normlab.policies.contract import Adapted, answer_with


def entropy(logits: Array) -> Array:
    """Compute the entropy in nats of each answer, `(N,)` for logits `(N, K)`.

    >>> entropy(jnp.array([[0.0, 0.0], [80.0, 0.0]])).round(3).tolist()
    [0.693..., 0.0]
    """
    logs = jax.nn.log_softmax(logits)
    return -(jnp.exp(logs) * logs).sum(axis=-1)


def answer_by_batch(
    network: Classifier, params: Any, adapted: Adapted, images: Array
) -> tuple[Array, Any]:
    """Return logits under the statistics of the batch itself, and the state with them."""
    return answer_with(network, params, adapted.norm_state, images, with_batch)


def only(marked: Any, tree: Any) -> Any:
    """Return a tree with zeros where it is not marked."""
    return jax.tree.map(lambda one, leaf: leaf if one else jnp.zeros_like(leaf), marked, tree)
