"""Keeps what the training loop says: rows, probes and checkpoints, each when its time has come."""

import time
from collections.abc import Callable
from typing import Any

from normlab.engine.checkpoint import Checkpoints
from normlab.engine.probe_rows import Prober
from normlab.store.run import Run
from normlab.training.events import Event, Lookable, Progress, Row, Saveable

SECONDS_BETWEEN_NOTES = 1.0
"""How often a running run's status says where it is."""


class Saver:
    """Writes what the loop says: rows at once, checkpoints and probes when it offers a state."""

    def __init__(
        self,
        run: Run,
        about: dict[str, Any],
        checkpoints: Checkpoints,
        tell: Callable[[Event], None],
        seconds: float,
        prober: Prober | None,
    ):
        self._run, self._about, self._checkpoints, self._tell = run, about, checkpoints, tell
        self._seconds, self._prober = seconds, prober
        self._last = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._noted = 0.0

    def __call__(self, event: Event) -> None:
        """Write what one event says, and tell it."""
        if isinstance(event, Row):
            self._run.append_metrics(event.metrics)
        if isinstance(event, Lookable) and self._prober is not None:
            rows, seconds = self._prober.look(event.state)
            self._run.append_probes(rows)
            self._about["probe_seconds"] += seconds
        if isinstance(event, Progress):
            self._note(event.step)
        if isinstance(event, Saveable):
            self._run.check_still_held()
            self._checkpoints.save(event.state, event.clock)
            self._last = time.monotonic()
        self._tell(event)

    def is_due(self) -> bool:
        """Return whether the last checkpoint is long ago."""
        return time.monotonic() - self._last > self._seconds

    def _note(self, step: int) -> None:
        """Say in the status where the run is, and its pace since it was begun or gone on with."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, step
        began, first = self._first
        if step > first and now - self._noted > SECONDS_BETWEEN_NOTES:
            pace = (now - began) / (step - first)
            self._run.write_status("running", **self._about, step=step, seconds_per_step=pace)
            self._noted = now


class Helper:
    """Takes part in checkpoints and probes of a run whose records another process writes.

    Args:
        checkpoints: the run's checkpoints, to which every process writes its part.
        prober: the run's probes, or None.
    """

    def __init__(self, checkpoints: Checkpoints, prober: Prober | None):
        self._checkpoints, self._prober = checkpoints, prober

    def __call__(self, event: Event) -> None:
        """Do the part of this process; what a probe sees is dropped."""
        if isinstance(event, Lookable) and self._prober is not None:
            self._prober.look(event.state)
        if isinstance(event, Saveable):
            self._checkpoints.save(event.state, event.clock)
