"""Holds the result of a run, read once from its folder or from a published file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from normlab.errors import UserError
from normlab.store.files import DamagedError
from normlab.store.layout import DAMAGED, FINISHED
from normlab.store.reading import JsonRows
from normlab.store.run import Run


@dataclass(frozen=True, eq=False)
class Record:
    """The state and results of a run when its files were read; a run in progress moves on.

    Attributes:
        path: the run's folder; the last part of it is the run's name. A published run has no
            folder of its own any more.
        arm: the name that sets the run apart from the others, without the seed.
        seed: its seed.
        axes: the axes of the sweep but the seed, and the run's value on each.
        status: the status that the last process wrote.
        metrics: a row an evaluation, in order.
        provenance: a record for each process that worked on the run: place, time, versions,
            hardware.
        probes: the rows of the probes, as `Run.probes`.
        read_config: a function that reads the resolved config; that takes longer than all the rest.
        damage: the damaged file, its fault and the mend; a damaged record holds nothing else.
        published: whether it was read from a published file, which keeps fewer rows.
        right: for each test example whether a published run answers it rightly, if that was kept,
            because a claim generalises to new test images.
    """

    path: Path
    arm: str
    seed: int
    axes: dict[str, Any]
    status: dict[str, Any]
    metrics: JsonRows
    provenance: JsonRows
    probes: JsonRows
    read_config: Callable[[], dict[str, Any]]
    damage: str = ""
    published: bool = False
    right: np.ndarray | None = None

    @classmethod
    def read(cls, run: "Run | Record") -> "Record":
        """Read a run's files; a damaged run gives a record that says so.

        Args:
            run: the run; a record stays as it is.
        """
        if isinstance(run, Record):
            return run
        try:
            status, metrics, provenance, probes = run.whole()
        except DamagedError as error:
            return cls.damaged(run, error)
        place = run.path, run.arm, run.seed, run.axes

        def config() -> dict[str, Any]:
            return run.config if run.begun else {}

        return cls(*place, status, metrics, provenance, probes, config)

    @classmethod
    def damaged(cls, run: "Run | Record", error: DamagedError) -> "Record":
        """Make the record of a run with damaged files."""
        place = run.path, run.arm, run.seed, run.axes
        return cls(*place, {"state": DAMAGED}, [], [], [], dict, str(error))

    @property
    def state(self) -> str:
        """The state of the run, in one word.

        It is new (not begun, or deleted), running, interrupted, failed, diverged, done or damaged.
        """
        return self.status["state"]

    @property
    def begun(self) -> bool:
        """Return whether the run had been begun."""
        return self.state != "new"

    @property
    def finished(self) -> bool:
        """Return whether the run has its result: done, or diverged."""
        return self.state in FINISHED

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config; empty if the run was never begun, or is damaged.

        Raises:
            DamagedError: the config is damaged.
        """
        return self.read_config()

    @property
    def data(self) -> dict[str, Any]:
        """Name, fingerprint, classes and sizes of the data it was made on."""
        return self.provenance[-1]["data"]

    def params(self) -> Any:
        """Return the model's parameters at the last checkpoint, as `Run.params` does.

        Raises:
            UserError: the run is published, and published results keep no parameters.
        """
        if self.published:
            raise UserError(
                f"{self.path.name} is published without its parameters: make the run anew"
            )
        return Run(self.path).params()


def axes_of(records: Iterable[Run | Record]) -> list[str]:
    """List the axes of the runs' sweep, without the seed."""
    return list(dict.fromkeys(axis for record in records for axis in record.axes))


def setting_words(axes: dict[str, Any]) -> str:
    """Name a place in a sweep: text as it is, another value with its axis.

    >>> setting_words({"norm": "batch_norm", "batch_size": 8})
    'batch_norm, batch_size=8'
    """
    return ", ".join(v if isinstance(v, str) else f"{axis}={v}" for axis, v in axes.items())
