"""What a training run carries from step to step, and what it says on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.data.augment import standardised
from normlab.data.dataset import Dataset, Split

if TYPE_CHECKING:
    from normlab.training.program import Compiled


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


@dataclass(frozen=True)
class Progress:
    """Now and then: where the run is, and the loss of one of the last batches."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Row:
    """One line of metrics: name to number."""

    metrics: dict[str, float | int]


@dataclass(frozen=True)
class Saveable:
    """The state at a moment when it may be saved; donated to the next step, so save it now."""

    state: TrainState
    clock: Clock


@dataclass(frozen=True)
class Lookable:
    """The state before a step that somebody wants to look at, or after the last.

    It is donated to the next step, so look at once.

    Attributes:
        state: as it is then.
        compiled: the program that it belongs to, on its data.
    """

    state: TrainState
    compiled: "Compiled"


@dataclass(frozen=True)
class Diverged:
    """The run ended because a loss, a gradient or the new parameters were not finite.

    Attributes:
        step: the first such step, from 0.
        layer: the path of the parameter with the largest norm just before it.
        norm: that norm.
    """

    step: int
    layer: str
    norm: float


Event = Progress | Row | Saveable | Lookable | Diverged
Emit = Callable[[Event], None]
