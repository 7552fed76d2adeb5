"""A run's folder on disk, and how it is read and written.

A run's folder holds `config.yaml` (resolved; itself a config), `metrics.jsonl` (a row for each
evaluation), `probes.jsonl` (a row for each quantity at each step looked at, if probes were on),
`status.json`, `provenance.json` (one record for each time it was worked on), `checkpoints/`,
`outcomes.json` (the answers for the test set, once it is done), and
`error.txt` if it failed. Everything here reads and writes without jax.
"""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from normlab.errors import UserError
from normlab.store import layout, reading
from normlab.store.files import DamagedError
from normlab.store.leases import LeaseHeldError, confirm, holder_of, leased
from normlab.store.writing import append_rows, write_atomically, write_rows


class RunBusyError(UserError):
    """Another process is working on the run."""


@dataclass(frozen=True)
class Run:
    """One run's folder, and its place in its experiment.

    Attributes:
        path: the folder, whether the run is made or not yet made; two runs of one folder are equal.
        arm: the name that sets the run apart from the others, without the seed.
        seed: its seed.
        axes: the axes of the sweep but the seed, and the run's value on each: a number, text, a
            truth value, or the label of a named call.
    """

    path: Path
    arm: str = field(default="", compare=False)
    seed: int = field(default=0, compare=False)
    axes: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def begun(self) -> bool:
        """Return whether the run has been begun."""
        return (self.path / layout.CONFIG).exists()

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config: section to keys to values."""
        return reading.read_config(self.path, self.status)

    @property
    def status(self) -> dict[str, Any]:
        """The status: `state`, `arm`, `seed`, and the last process's notes at its end."""
        return reading.read_status(self.path)

    @property
    def state(self) -> str:
        """The state of the run: new, running, interrupted, failed, diverged, done or damaged."""
        try:
            return self.status["state"]
        except DamagedError:
            return layout.DAMAGED

    @property
    def metrics(self) -> list[dict[str, float | int]]:
        """The rows of metrics, in order. A last line that a crash tore off is left out.

        Raises:
            DamagedError: the file is not as it was written; the other properties raise it too.
        """
        return reading.read_metrics(self.path, self.status)

    @property
    def probes(self) -> list[dict[str, Any]]:
        """Return the rows of the probes: `step`, `probe`, `quantity`, `layers`, `values`, in order.

        With `layers` (names, from input to output) there is a value for each layer; without them
        `values` is a number or a list. null stands for a value that was not finite. A row with an
        `error` says why a probe measured nothing at that step.
        """
        return reading.read_probes(self.path, self.status)

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Return a record for each process that made the run: place, time, versions, hardware."""
        return reading.read_provenance(self.path, self.status)

    def whole(self) -> reading.Whole:
        """Read status, metrics, provenance and probes, and check them against each other.

        Raises:
            DamagedError: a file has changed since it was written, or does not match the others.
        """
        return reading.read_whole(self.path)

    def params(self) -> Any:
        """Return the model's parameters at the last checkpoint, as a tree of numpy arrays."""
        from normlab.store.checkpoint_files import restore_anything

        return restore_anything(self.path / layout.CHECKPOINTS)["params"]

    def __repr__(self) -> str:
        try:
            status, rows, *_ = self.whole()
        except DamagedError:
            return f"<Run {self.path.name}: {layout.DAMAGED}>"
        last = f", test accuracy {rows[-1].get('test_accuracy', 0.0):.3f}" if rows else ""
        return f"<Run {self.path.name}: {status['state']}{last}>"

    # The methods below write, for the process that holds the run.

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. A process that was killed does not hold it any more.

        Raises:
            RunBusyError: another process holds it.
        """
        self._refuse_links()
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(leased(self.path / layout.LOCK))
            except LeaseHeldError as error:
                by = error.holder or "another process"
                raise RunBusyError(f"{self.path}: {by} is working on this run") from None
            self._remove_drafts()
            yield

    @property
    def is_held(self) -> bool:
        """Return whether another process is working on the run now."""
        return holder_of(self.path / layout.LOCK) is not None

    def check_still_held(self) -> None:
        """Check that no other process has taken the run over from this one.

        Raises:
            RunBusyError: this process was stopped for so long that another has.
        """
        try:
            confirm(self.path / layout.LOCK)
        except LeaseHeldError as error:
            raise RunBusyError(str(error)) from None

    def _refuse_links(self) -> None:
        """Refuse a folder by whose links something elsewhere would be written."""
        for place in (self.path, *(self.path / name for name in layout.OF_RUN)):
            if place.is_symlink():
                raise UserError(
                    f"{place}: it is a link, and a run writes into its own folder alone; put the "
                    "folder that it points to in its place, or delete the link"
                )

    def _remove_drafts(self) -> None:
        """Remove what a process that was killed while it wrote a file has left."""
        for name in layout.OF_RUN:
            for draft in self.path.glob(f".{name}.*"):
                with contextlib.suppress(OSError):
                    draft.unlink()

    def write_config(self, sections: dict[str, Any]) -> None:
        """Write the resolved config; the run's name ends in its hash, so no other can be there."""
        self.check_still_held()
        write_atomically(self.path / layout.CONFIG, yaml.safe_dump(sections, sort_keys=False))

    def write_status(self, state: str, *, sealed: bool = False, **more: Any) -> None:
        """Replace the status; a `sealed` one, of a finished run, holds digests of all its files."""
        self.check_still_held()
        status = {"state": state, "pid": os.getpid(), "host": platform.node(), **more}
        status = reading.sealed(self.path, status) if sealed else status
        write_atomically(self.path / layout.STATUS, json.dumps(status, indent=1))

    def add_provenance(self, record: dict[str, Any]) -> None:
        """Add a record to the provenance."""
        self.check_still_held()
        records = [*self.provenance, record]
        write_atomically(self.path / layout.PROVENANCE, json.dumps(records, indent=1))

    def append_metrics(self, row: dict[str, float | int]) -> None:
        """Add a row, on disk before this returns."""
        self.check_still_held()
        append_rows(self.path / layout.METRICS, [row])

    def append_probes(self, rows: list[dict[str, Any]]) -> None:
        """Add the rows of the probes at one step, on disk before this returns."""
        self.check_still_held()
        append_rows(self.path / layout.PROBES, rows)

    def keep_rows_to(self, step: int) -> None:
        """Drop the rows after `step`, because the steps from there on are about to be made again.

        A row of metrics is about the steps before it. The probes measure `step` again.
        """
        self.check_still_held()
        rows = [row for row in self.metrics if row["step"] <= step]
        write_rows(self.path / layout.METRICS, rows)
        if (self.path / layout.PROBES).exists():
            rows = [row for row in self.probes if row["step"] < step]
            write_rows(self.path / layout.PROBES, rows)
