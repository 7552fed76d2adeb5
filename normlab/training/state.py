"""What a training run carries from step to step, and what it says on the way."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.data.augment import standardised
from normlab.data.dataset import Dataset, Split


class Meter(NamedTuple):
    """Sums over the examples seen since the last row of metrics, kept on the device."""

    loss: Array
    correct: Array
    examples: Array

    @classmethod
    def empty(cls) -> "Meter":
        """Nothing seen yet."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in cls._fields))

    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy; waits for the device."""
        loss, correct, examples = jax.device_get(self)
        return float(loss / max(examples, 1)), float(correct / max(examples, 1))


class TrainState(NamedTuple):
    """Everything that the next step needs; the whole of what a checkpoint must hold.

    Attributes:
        step: steps taken. It stands still once the run has diverged, at the number of the first
            step (from 0) whose loss, gradient or new parameters were not finite.
        params: the model's parameters, as the last finite step left them.
        norm_state: the normalisers' state.
        opt_state: the optimiser's.
        meter: sums for the next row of metrics.
        diverged: whether there was such a step.
    """

    step: Array
    params: Any
    norm_state: Any
    opt_state: Any
    meter: Meter
    diverged: Array


class DeviceSplit(NamedTuple):
    """A split on the device: images stay uint8 until a batch of them is used."""

    images: Array
    labels: Array


class DeviceData(NamedTuple):
    """A dataset on the device, with the training images' mean and deviation in 0..255 units."""

    train: DeviceSplit
    test: DeviceSplit
    validation: DeviceSplit | None
    mean: Array
    std: Array

    @classmethod
    def put(cls, data: Dataset) -> "DeviceData":
        """Copy a dataset to the device, once for all its runs."""
        mean, std = data.channel_statistics()

        def split(arrays: Split) -> DeviceSplit:
            return DeviceSplit(jnp.asarray(arrays.images), jnp.asarray(arrays.labels))

        validation = None if data.validation is None else split(data.validation)
        return cls(
            split(data.train), split(data.test), validation, jnp.asarray(mean), jnp.asarray(std)
        )

    def standardised(self, images: Array) -> Array:
        """Images in 0..255 units as a model takes them: float32, `(N, H, W, C)`."""
        return standardised(images, self.mean, self.std)


@dataclass(frozen=True)
class Clock:
    """Seconds spent so far, each kind apart; a resumed run goes on from them."""

    train: float = 0.0
    evaluate: float = 0.0
