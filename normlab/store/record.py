"""What one run left on disk, read once."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from normlab.store.files import DamagedError
from normlab.store.layout import DAMAGED, FINISHED
from normlab.store.run import Entry


@dataclass(frozen=True)
class Record:
    """A snapshot of a run's files; a run still being made may have moved on since.

    Attributes:
        entry: the run, its arm, seed and axes.
        state: new (not begun, or deleted), running, interrupted, failed, diverged or done; damaged
            if a file is not as it was written, and then the record has nothing but `damage`.
        status: what the last process said.
        rows: of metrics, in order.
        provenance: a record for each time it was worked on.
        probes: what probes saw, as `Run.probes`.
        damage: which file is damaged, how, and the mend.
    """

    entry: Entry
    state: str
    status: dict[str, Any]
    rows: list[dict[str, Any]]
    provenance: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    damage: str = ""

    @classmethod
    def read(cls, entry: Entry) -> "Record":
        """Read a run's files."""
        try:
            status, rows, provenance, probes = entry.run.whole()
        except DamagedError as error:
            return cls.damaged(entry, error)
        return cls(entry, status["state"], status, rows, provenance, probes)

    @classmethod
    def damaged(cls, entry: Entry, error: DamagedError) -> "Record":
        """That of a run of which nothing is believed."""
        return cls(entry, DAMAGED, {"state": DAMAGED}, [], [], [], str(error))

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
        """The resolved config; empty if the run was never begun, or is damaged.

        Raises:
            DamagedError: the config is, which `read_records` makes sure of only where it matters.
        """
        run = self.entry.run
        return run.config if run.begun and not self.damage else {}

    @property
    def finished(self) -> bool:
        """Whether the run has its result: done, or diverged."""
        return self.state in FINISHED

    @property
    def data(self) -> dict[str, Any]:
        """Name, fingerprint, classes and sizes of the data it was made on."""
        return self.provenance[-1]["data"]


def read_records(entries: Iterable[Entry]) -> list[Record]:
    """The records of runs; a damaged one is said to be, and the others are as they are.

    Reading a config takes longer than all the rest, and an arm's configs are alike but for the
    seed: here the first of each arm is read.
    """
    records = [Record.read(entry) for entry in entries]
    arms: set[str] = set()
    for index, record in enumerate(records):
        if record.arm in arms:
            continue
        try:
            if record.config:
                arms.add(record.arm)
        except DamagedError as error:
            records[index] = Record.damaged(record.entry, error)
    return records
