"""How much better a network knows its training images than images that it was not trained on."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from normlab.adapters.linen_places import Variables
from normlab.core import Array
from normlab.data.augment import standardised
from normlab.errors import UserError
from normlab.models.slots import NORM_STATE
from normlab.probes.contract import Moment, Readings, Subject, probe

AT_ONCE = 500
"""Images that go through the network together, at most."""


@partial(jax.jit, static_argnums=0)
def sums(model: nn.Module, variables: Variables, images: Array, labels: Array) -> Array:
    """The summed loss of images in evaluation, and how many are recognised: `(2,)` float32."""
    logits: Any = model.apply(variables, images, train=False)
    logits = logits.astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
    return jnp.stack([losses.sum(), correct.sum()])


@probe(paper="arXiv:1611.03530")
@dataclass(frozen=True)
class Generalisation:
    """Accuracy and loss on training images and on the test images, both in evaluation.

    train_accuracy, train_loss: on the first training images (a config's `probes.examples`), as
    they are: without augmentation, with stored statistics, without dropout. test_accuracy,
    test_loss: on all test images. accuracy_gap: train_accuracy less test_accuracy. loss_gap:
    test_loss less train_loss. So both gaps are positive where the network knows its training
    images better.

    A run's own `train_accuracy` is another thing: the mean over the steps since the last
    evaluation, of augmented images, with statistics of the batch and with units dropped, by
    parameters that moved meanwhile. What regularises makes that one low without any gain.

    >>> Generalisation()
    Generalisation()
    """

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Six numbers."""
        test = moment.held_out
        if test is None:
            raise UserError(
                "generalisation compares with the test images, and there are none here: put it "
                "into a config's 'probes', or into normlab.Watch"
            )
        variables = {"params": moment.params, NORM_STATE: moment.norm_state}

        def means(images: Array, labels: Array, as_seen: Any) -> Array:
            count = len(labels)
            parts = [slice(i, min(i + AT_ONCE, count)) for i in range(0, count, AT_ONCE)]
            each = [sums(subject.model, variables, as_seen(images[p]), labels[p]) for p in parts]
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
