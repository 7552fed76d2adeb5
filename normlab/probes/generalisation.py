"""Measures how much better a network is on its training images than on test images."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from normlab.adapters.classifier import Classifier
from normlab.core import Array
from normlab.data.augment import standardised
from normlab.errors import UserError
from normlab.probes.contract import Moment, Readings, Subject, probe

AT_ONCE = 500
"""The greatest number of images that go through the network together."""


@partial(jax.jit, static_argnums=0)
def sums(network: Classifier, params: Any, state: Any, images: Array, labels: Array) -> Array:
    """Sum the loss and the number of correct predictions in evaluation: `(2,)` float32."""
    logits = network.apply(params, state, images, train=False)[0].astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
    return jnp.stack([losses.sum(), correct.sum()])


@probe(paper="arXiv:1611.03530")
@dataclass(frozen=True)
class Generalisation:
    """Measures accuracy and loss on training images and on test images, both in evaluation.

    - train_accuracy, train_loss: on the first training images (a config's `probes.examples`),
      without augmentation, with stored statistics, without dropout.
    - test_accuracy, test_loss: on all test images.
    - accuracy_gap: train_accuracy minus test_accuracy.
    - loss_gap: test_loss minus train_loss.

    Both gaps are positive if the network is better on its training images. A run's own
    `train_accuracy` differs: it is the mean over the steps since the last evaluation, on augmented
    images, with batch statistics and dropout, while the parameters change. Regularisation lowers it
    even if nothing is gained.

    >>> Generalisation()
    Generalisation()
    """

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure six numbers for the whole network."""
        test = moment.held_out
        if test is None:
            raise UserError(
                "generalisation compares with the test images, and there are none here: put it "
                "into a config's 'probes', or into normlab.Watch"
            )
        evaluated = partial(sums, Classifier(subject.model), moment.params, moment.norm_state)

        def means(images: Array, labels: Array, as_seen: Any) -> Array:
            count = len(labels)
            parts = [slice(i, min(i + AT_ONCE, count)) for i in range(0, count, AT_ONCE)]
            each = [evaluated(as_seen(images[p]), labels[p]) for p in parts]
            return jnp.stack(each).sum(axis=0) / count

        train_loss, train_accuracy = means(moment.images, moment.labels, lambda x: x)
        test_loss, test_accuracy = means(
            test.images, test.labels, lambda x: standardised(x, test.mean, test.std)
        )
        return {
            "train_accuracy": train_accuracy,
            "test_accuracy": test_accuracy,
            "accuracy_gap": train_accuracy - test_accuracy,
            "train_loss": train_loss,
            "test_loss": test_loss,
            "loss_gap": test_loss - train_loss,
        }
