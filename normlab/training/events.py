"""Defines the events that training emits."""

from collections.abc import Callable
from dataclasses import dataclass

from normlab.training.compiled import Compiled
from normlab.training.state import Clock, TrainState


@dataclass(frozen=True)
class Progress:
    """The current step and the loss of a recent batch, emitted now and then."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Row:
    """A row of metrics, from name to number."""

    metrics: dict[str, float | int]


@dataclass(frozen=True)
class Saveable:
    """A state that may be saved. It is donated to the next step, so it must be saved at once."""

    state: TrainState
    clock: Clock


@dataclass(frozen=True)
class Lookable:
    """The state before a requested step, or after the last step.

    It is donated to the next step, so it must be inspected at once.

    Attributes:
        state: the state at that time.
        compiled: the compiled program and its data.
    """

    state: TrainState
    compiled: Compiled


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
