"""The folder of an experiment's runs."""

import contextlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normlab.store import formats, frames, layout
from normlab.store.combining import side_by_side
from normlab.store.files import DamagedError, read_json
from normlab.store.leases import leased
from normlab.store.record import Record
from normlab.store.run import Run
from normlab.store.writing import write_atomically


@dataclass(frozen=True)
class Runs:
    """The runs of one experiment, as they lie on disk.

    Attributes:
        path: the experiment's folder.
        about: name, question, target, config file and overrides of the last command.
        runs: the runs that the last command named, made or not yet made, in its order. Published
            results have no folders of runs; there they are records, which are read alike.
        trials: the runs by which the arms were tuned.
        former: runs that the experiment had before its config changed; their folders may be gone.
        parts: the experiments that were added up to these runs; empty for a single one.
    """

    path: Path
    about: dict[str, Any]
    runs: Sequence[Run | Record]
    trials: Sequence[Run | Record] = field(default_factory=list)
    former: Sequence[Run | Record] = field(default_factory=list)
    parts: "Sequence[Runs]" = ()

    def records(self) -> list[Record]:
        """Read the records of the runs; a damaged run has a record that says so.

        Reading a config takes longer than all the rest, and an arm's configs differ only in the
        seed. So the config of the first run of each arm is read here.
        """
        records = [Record.read(run) for run in self.runs]
        arms: set[str] = set()
        for index, record in enumerate(records):
            if record.arm in arms:
                continue
            try:
                if record.config:
                    arms.add(record.arm)
            except DamagedError as error:
                records[index] = Record.damaged(record, error)
        return records

    @property
    def command(self) -> str:
        """The command that last made or changed the experiment."""
        if self.parts:
            return "; ".join(part.command for part in self.parts)
        about = self.about
        return shlex.join(["normlab", "run", about.get("config", "?"), *about.get("overrides", [])])

    @property
    def ever_claimed(self) -> list[dict[str, Any]]:
        """Every claim that ever stood in the config, including those taken out of it."""
        if "ever_claimed" in self.about:  # published results have it here
            return self.about["ever_claimed"]
        return known_claims(self.path)

    def frame(self) -> Any:
        """Return a pandas DataFrame with a row a run: its arm, seed, axes, state and last metrics.

        Raises:
            UserError: pandas is not installed.
        """
        return frames.to_frame(frames.last_rows(self.records()))

    def curves(self) -> Any:
        """Return a frame like `frame`, with a row for every evaluation of every run."""
        return frames.to_frame(frames.all_rows(self.records()))

    def probes(self) -> Any:
        """Return a frame like `frame`, with a row for every number of the probes in every run."""
        return frames.to_frame(frames.probe_rows(self.records()))

    def _repr_html_(self) -> str:
        return frames.to_html(self.path, self.about, self.records())

    def __add__(self, other: "Runs") -> "Runs":
        """Put the runs of two experiments side by side, to be compared as those of one.

        An arm that both configure alike is one arm. If different arms have one name, every arm is
        named with its experiment. Claims are judged by the runs of their own experiment.
        """
        if not isinstance(other, Runs):
            return NotImplemented
        parts = [part for runs in (self, other) for part in runs.parts or [runs]]
        folders = {part.path.resolve(): part for part in parts}
        parts = list(folders.values())  # an experiment beside itself is itself
        if len(parts) == 1:
            return self
        names = [part.about["name"] for part in parts]
        if len(set(names)) < len(names):
            names = [str(part.path) for part in parts]
        together = " + ".join(names)
        questions = list(dict.fromkeys(filter(None, (p.about.get("question") for p in parts))))
        targets = [part.about.get("target") for part in parts]
        about = {
            "name": together,
            "question": " ".join(questions) or None,
            "target": targets[0] if all(target == targets[0] for target in targets) else None,
            "config": " + ".join(part.about.get("config", "?") for part in parts),
            "claims": [],
            "ever_claimed": [],
        }
        runs = side_by_side({n: part.runs for n, part in zip(names, parts, strict=True)})
        former = [run for part in parts for run in part.former]
        return Runs(parts[0].path.parent / together, about, runs, [], former, parts)

    def __iter__(self) -> Iterator[Run | Record]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        states = [run.state for run in self.runs]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"<Runs {self.path}: {counts}>"


def write_experiment(
    path: Path,
    about: dict[str, Any],
    runs: Sequence[Run | Record],
    trials: Sequence[Run | Record] = (),
    former: Sequence[Run | Record] = (),
) -> None:
    """Write down the runs of the experiment as it is now, and those that it had before."""
    path.mkdir(parents=True, exist_ok=True)
    lists = {"runs": _places(runs), "trials": _places(trials)}
    if former:
        lists["former"] = _places(former)
    write_atomically(path / layout.EXPERIMENT, json.dumps({**about, **lists}, indent=1))


def _places(runs: Sequence[Run | Record]) -> list[dict[str, Any]]:
    return [{"run": r.path.name, "arm": r.arm, "seed": r.seed, "axes": r.axes} for r in runs]


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold an experiment's folder, so that nobody changes it between reading and writing back.

    A process that comes later waits. A process that was killed does not hold it any more.
    """
    path.mkdir(parents=True, exist_ok=True)
    with leased(path / layout.LOCK, wait=True):
        yield


def note_claims(path: Path, claims: list[dict[str, Any]]) -> None:
    """Keep every claim that ever stood in the config, so that a withdrawn one is not forgotten."""
    with alone(path):
        known = known_claims(path)
        new = [claim for claim in claims if claim not in known]
        if new:
            write_atomically(path / layout.CLAIMS, json.dumps([*known, *new], indent=1))


def known_claims(path: Path) -> list[dict[str, Any]]:
    """Read every claim that ever stood in the config.

    Raises:
        DamagedError: the file is not as it was written.
    """
    mend = "restore it from a copy; without it, claims taken out of the config are forgotten"
    return read_json(path / layout.CLAIMS, formats.CLAIMS, mend) or []
