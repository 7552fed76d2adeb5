"""The state that a training run carries from step to step, and its data on the device."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.data.augment import standardised
from normlab.data.dataset import Dataset
from normlab.training.mesh import Spread


class Meter(NamedTuple):
    """Sums over the examples seen since the last row of metrics, kept on the device."""

    loss: Array
    correct: Array
    examples: Array

    @classmethod
    def empty(cls) -> "Meter":
        """Make a meter that has seen no examples."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in cls._fields))

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy; waits for the device."""
        loss, correct, examples = jax.device_get(self)
        return float(loss / max(examples, 1)), float(correct / max(examples, 1))


class TrainState(NamedTuple):
    """Everything that the next step needs and a checkpoint must hold.

    Attributes:
        step: number of steps taken. If the run diverges, it stays at the number (from 0) of the
            first step whose loss, gradient or new parameters were not finite.
        params: the model's parameters after the last finite step.
        norm_state: the normalisers' state.
        opt_state: the optimiser's state.
        meter: sums for the next row of metrics.
        diverged: whether there was a step that was not finite.
    """

    step: Array
    params: Any
    norm_state: Any
    opt_state: Any
    meter: Meter
    diverged: Array


class DeviceSplit(NamedTuple):
    """A split on the device; images stay uint8 until they are used in a batch."""

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
    def put(cls, data: Dataset, spread: Spread | None = None) -> "DeviceData":
        """Copy a dataset to the device, or to each of several, once for all its runs."""
        splits = (data.train, data.test, data.validation)
        given: Any = [s and DeviceSplit(*s) for s in splits]  # type: ignore[arg-type]
        found = cls(*given, *map(jnp.asarray, data.channel_statistics()))
        return jax.tree.map(jnp.asarray, found) if spread is None else spread.put(found)

    def on(self, spread: Spread | None) -> "DeviceData":
        """Return the dataset on several devices; itself if it is there."""
        if spread is None or self.mean.sharding == spread.whole:
            return self
        return spread.put(self)

    def standardised(self, images: Array) -> Array:
        """Standardise images `(N, H, W, C)` in 0..255 units; the result is float32."""
        return standardised(images, self.mean, self.std)


@dataclass(frozen=True)
class Clock:
    """Seconds of training and of evaluation so far; a resumed run continues from them."""

    train: float = 0.0
    evaluate: float = 0.0
