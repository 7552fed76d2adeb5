"""What a training tells while it goes on: a value an event."""

from collections.abc import Callable
from dataclasses import dataclass

from normlab.training.program import Compiled
from normlab.training.state import Clock, TrainState


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
