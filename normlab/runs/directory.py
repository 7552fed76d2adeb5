"""A run on disk, and the folder of an experiment's runs.

A run's folder holds `config.yaml` (resolved; itself a config), `metrics.jsonl` (a row an
evaluation), `probes.jsonl` (a row for each quantity at each step looked at, if probes were on),
`status.json`, `provenance.json` (one record for each time it was worked on), `checkpoints/`, and
`error.txt` if it failed. Everything here reads and writes without jax.
"""

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock
import yaml

from normlab.errors import UserError
from normlab.runs.rows import append_rows, keep_rows, read_rows, write_atomically

CONFIG, METRICS, STATUS = "config.yaml", "metrics.jsonl", "status.json"
PROBES = "probes.jsonl"
PROVENANCE, CHECKPOINTS, ERROR, LOCK = "provenance.json", "checkpoints", "error.txt", "lock"
EXPERIMENT, CLAIMS = "experiment.json", "claims.json"
PUBLISHED, PUBLISHED_PROVENANCE = "metrics.json", "provenance.json"

FINISHED = ("done", "diverged")
"""States in which a run has its result. The others: new, running, interrupted, failed."""


class RunBusyError(UserError):
    """Another process is working on this run."""


@dataclass(frozen=True)
class Run:
    """One run, as it lies on disk."""

    path: Path

    @property
    def begun(self) -> bool:
        """Whether there is anything of it yet."""
        return (self.path / CONFIG).exists()

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config: section to keys to values."""
        return yaml.safe_load(_text(self.path / CONFIG))

    @property
    def status(self) -> dict[str, Any]:
        """`state`, `arm`, `seed`, and what the last process said at the end of its work."""
        file = self.path / STATUS
        return json.loads(_text(file)) if file.exists() else {"state": "new"}

    @property
    def state(self) -> str:
        """new, running, interrupted, failed, diverged or done."""
        return self.status["state"]

    @property
    def metrics(self) -> list[dict[str, float | int]]:
        """The rows of metrics in order; a last line torn by a crash is left out."""
        return read_rows(self.path / METRICS)

    @property
    def probes(self) -> list[dict[str, Any]]:
        """What probes saw: `step`, `probe`, `quantity`, `layers`, `values`, in order.

        With `layers` (their names, from input to output) there is a value for each; without them
        `values` is a number, or a list. null stands for what was not finite. A row with an `error`
        says why a probe has nothing of that step.
        """
        return read_rows(self.path / PROBES)

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Where, when and with what the run was made: a record for each time it was worked on."""
        file = self.path / PROVENANCE
        return json.loads(_text(file)) if file.exists() else []

    def params(self) -> Any:
        """The model's parameters at the last checkpoint, as a tree of numpy arrays."""
        from normlab.runs.checkpoint import restore_anything

        return restore_anything(self.path / CHECKPOINTS)["params"]

    def __repr__(self) -> str:
        status = self.status
        rows = self.metrics
        accuracy = f", test accuracy {rows[-1]['test_accuracy']:.3f}" if rows else ""
        return f"<Run {self.path.name}: {status['state']}{accuracy}>"

    # Writing, for the process that holds the lock.

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, even by kill -9.

        Raises:
            RunBusyError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            pid = self.status.get("pid", "unknown")
            message = f"{self.path}: another process (pid {pid}) is working on this run"
            raise RunBusyError(message) from None
        try:
            yield
        finally:
            lock.release()

    def write_config(self, sections: dict[str, Any]) -> None:
        """Write the resolved config, unless it is there."""
        if not (self.path / CONFIG).exists():
            write_atomically(self.path / CONFIG, yaml.safe_dump(sections, sort_keys=False))

    def write_status(self, state: str, **more: Any) -> None:
        """Replace the status."""
        status = {"state": state, "pid": os.getpid(), "host": platform.node(), **more}
        write_atomically(self.path / STATUS, json.dumps(status, indent=1))

    def add_provenance(self, record: dict[str, Any]) -> None:
        """Add a record to the provenance."""
        records = [*self.provenance, record]
        write_atomically(self.path / PROVENANCE, json.dumps(records, indent=1))

    def append_metrics(self, row: dict[str, float | int]) -> None:
        """Add a row, on disk before this returns."""
        append_rows(self.path / METRICS, [row])

    def append_probes(self, rows: list[dict[str, Any]]) -> None:
        """Add what probes saw at one step, on disk before this returns."""
        append_rows(self.path / PROBES, rows)

    def keep_rows_to(self, step: int) -> None:
        """Drop the rows after `step`: the steps from there on are about to be made again.

        A row of metrics tells of the steps before it; what probes see at a step is seen again.
        """
        keep_rows(self.path / METRICS, lambda row: row["step"] <= step)
        if (self.path / PROBES).exists():
            keep_rows(self.path / PROBES, lambda row: row["step"] < step)


@dataclass(frozen=True)
class Entry:
    """A run's place in its experiment.

    Attributes:
        run: the run, made or not yet made.
        arm: what sets it apart from the others, without the seed.
        seed: its seed.
        axes: the axes of the sweep but the seed, and its value on each: a number, text, a
            truth value, or the label of a named call.
    """

    run: Run
    arm: str
    seed: int
    axes: dict[str, Any]


@dataclass(frozen=True)
class Runs:
    """The runs of one experiment, as they lie on disk.

    Attributes:
        path: the experiment's folder.
        about: name, question, target, config file and overrides, as last run.
        entries: the runs that the last command named, made or not yet made, in its order.
        trials: those that the arms were tuned by.
    """

    path: Path
    about: dict[str, Any]
    entries: list[Entry]
    trials: list[Entry] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """The runs alone."""
        return [entry.run for entry in self.entries]

    @property
    def ever_claimed(self) -> list[dict[str, Any]]:
        """Every claim that ever stood in the config, those that were taken out of it too."""
        file = self.path / CLAIMS
        known = json.loads(_text(file)) if file.exists() else []
        return self.about.get("ever_claimed", known)  # where it is published

    def frame(self) -> Any:
        """A pandas DataFrame with a row a run: its arm, seed, axes, state and last metrics.

        Raises:
            UserError: pandas is not installed.
        """
        from normlab.runs import notebook

        return notebook.to_frame(notebook.last_rows(self))

    def curves(self) -> Any:
        """As `frame`, with a row for every evaluation of every run."""
        from normlab.runs import notebook

        return notebook.to_frame(notebook.all_rows(self))

    def probes(self) -> Any:
        """As `frame`, with a row for every number that probes saw in every run."""
        from normlab.runs import notebook

        return notebook.to_frame(notebook.probe_rows(self))

    def _repr_html_(self) -> str:
        from normlab.runs import notebook

        return notebook.to_html(self)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        states = [run.state for run in self.runs]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"<Runs {self.path}: {counts}>"


def write_experiment(
    path: Path, about: dict[str, Any], entries: list[Entry], trials: Sequence[Entry] = ()
) -> None:
    """Note which runs of a folder belong to the experiment as it is now."""
    path.mkdir(parents=True, exist_ok=True)
    lists = {"runs": _written(entries), "trials": _written(trials)}
    write_atomically(path / EXPERIMENT, json.dumps({**about, **lists}, indent=1))


def _written(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [{**asdict(e), "run": e.run.path.name} for e in entries]


def note_claims(path: Path, claims: list[dict[str, Any]]) -> None:
    """Keep every claim that ever stood, so that one taken out of the config is not forgotten."""
    file = path / CLAIMS
    known = json.loads(_text(file)) if file.exists() else []
    new = [claim for claim in claims if claim not in known]
    if new:
        write_atomically(file, json.dumps([*known, *new], indent=1))


def load(path: str | Path) -> Run | Runs:
    """A run's folder, or an experiment's (as published, too), read from disk.

    Raises:
        UserError: the folder is neither.
    """
    folder = Path(path)
    if (folder / CONFIG).is_file():
        return Run(folder)
    if (folder / EXPERIMENT).is_file():
        about = json.loads(_text(folder / EXPERIMENT))
        entries, trials = (
            [Entry(**{**e, "run": Run(folder / e["run"])}) for e in about.pop(key)]
            for key in ("runs", "trials")
        )
        return Runs(folder, about, entries, trials)
    if (folder / PUBLISHED).is_file():
        from normlab.runs.published import read_published

        return read_published(folder)
    near = sorted(str(file.parent) for file in folder.glob(f"*/{EXPERIMENT}"))
    hint = f"; experiments below it: {', '.join(near)}" if near else ""
    raise UserError(f"{folder} is neither a run nor an experiment of normlab{hint}")


def load_runs(path: str | Path) -> Runs:
    """An experiment from its folder.

    Raises:
        UserError: it is none.
    """
    found = load(path)
    if not isinstance(found, Runs):
        raise UserError(
            f"{path} is a single run; give the experiment's folder, {found.path.parent}"
        )
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
