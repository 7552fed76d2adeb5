"""What one run left on disk, read once."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from normlab.runs.directory import FINISHED, Entry


@dataclass(frozen=True)
class Record:
    """A snapshot of a run's files; a run still being made may have moved on since.

    Attributes:
        entry: the run, its arm, seed and axes.
        state: new (not begun, or deleted), running, interrupted, failed, diverged or done.
        status: what the last process said.
        rows: of metrics, in order.
        provenance: a record for each time it was worked on.
    """

    entry: Entry
    state: str
    status: dict[str, Any]
    rows: list[dict[str, Any]]
    provenance: list[dict[str, Any]]

    @classmethod
    def read(cls, entry: Entry) -> "Record":
        """Read a run's files."""
        run = entry.run
        status = run.status
        return cls(entry, status["state"], status, run.metrics, run.provenance)

    @property
    def arm(self) -> str:
        """The entry's arm."""
        return self.entry.arm

    @property
    def seed(self) -> int:
        """The entry's seed."""
        return self.entry.seed

    @property
    def axes(self) -> dict[str, Any]:
        """The entry's axes."""
        return self.entry.axes

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config; empty if the run was never begun."""
        run = self.entry.run
        return run.config if run.begun else {}

    @cached_property
    def probes(self) -> list[dict[str, Any]]:
        """What probes saw, as `Run.probes`; read when it is first asked for."""
        return self.entry.run.probes

    @property
    def finished(self) -> bool:
        """Whether the run has its result: done, or diverged."""
        return self.state in FINISHED

    @property
    def data(self) -> dict[str, Any]:
        """Name, fingerprint, classes and sizes of the data it was made on."""
        return self.provenance[-1]["data"]
