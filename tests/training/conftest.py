"""A tiny dataset and a tiny network that the tests of training share."""

import jax
import numpy as np
import optax
import pytest

from normlab.data.dataset import Dataset, Split
from normlab.models.plain import MLP
from normlab.norms import BatchNorm
from normlab.training.compiled import Compiled
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData

TRAIN, TEST, CLASSES = 70, 22, 3


@pytest.fixture(scope="session")
def data():
    """Make 70 training examples (four batches of 16 and 6 more) and 22 test examples.

    A training image's first two pixels hold its number, so that each can be identified.
    """
    noise = np.random.default_rng(0)

    def split(n):
        labels = noise.integers(0, CLASSES, n, dtype=np.int32)
        pixels = noise.integers(0, 60, (n, 4, 4, 1)) + 70 * labels.reshape(n, 1, 1, 1)
        images = pixels.astype(np.uint8)
        images[:, 0, 0, 0] = np.arange(n)
        return Split(images, labels)

    return Dataset("tiny", split(TRAIN), split(TEST), tuple("abc"))


@pytest.fixture(scope="session")
def device_data(data):
    return DeviceData.put(data)


def lenient(optimizer):
    """Let an optimiser mix dtypes, as optax's Adam and schedules do; our own code may not."""

    def update(grads, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(grads, state, params)

    return optax.GradientTransformation(optimizer.init, update)


@pytest.fixture(scope="session")
def program():
    """Build a `Program` around a perceptron of one hidden layer."""

    def build(norm=None, optimizer=None, augmentations=(), dtype="float32", **recipe):
        norm = norm or BatchNorm()
        fields = {"epochs": 2, "batch_size": 16, "eval_batch_size": 8, **recipe}
        return Program(
            MLP(norm=norm, classes=CLASSES, widths=(8,), activation="relu", dtype=dtype),
            lenient(optimizer or optax.sgd(0.1, momentum=0.9)),
            Recipe(**fields),
            augmentations,
        )

    return build


@pytest.fixture(scope="session")
def compiled(program, device_data):
    """Build a `Compiled` of such a program on the tiny data."""
    return lambda **settings: Compiled(program(**settings), device_data)
