"""The loss that training lowers and evaluation reports."""

import jax
import optax

from normlab.core import Array


def cross_entropy(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
    """Compute the cross-entropy of each example, `(N,)`, in nats.

    Args:
        logits: `(N, K)`, float32.
        labels: `(N,)`, whole numbers below K.
        label_smoothing: the share of each label that is spread evenly over all K classes.

    >>> import jax.numpy as jnp
    >>> cross_entropy(jnp.array([[0.0, 0.0], [5.0, 0.0]]), jnp.array([1, 0])).round(3).tolist()
    [0.693..., 0.007...]
    """
    if label_smoothing == 0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))
