"""The folder of an experiment's runs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from normlab.store import frames, layout
from normlab.store.jsonl import write_atomically
from normlab.store.run import Entry, Run
from normlab.store.shared import known_claims


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
        if "ever_claimed" in self.about:  # where it is published
            return self.about["ever_claimed"]
        return known_claims(self.path)

    def frame(self) -> Any:
        """A pandas DataFrame with a row a run: its arm, seed, axes, state and last metrics.

        Raises:
            UserError: pandas is not installed.
        """
        return frames.to_frame(frames.last_rows(self.entries))

    def curves(self) -> Any:
        """As `frame`, with a row for every evaluation of every run."""
        return frames.to_frame(frames.all_rows(self.entries))

    def probes(self) -> Any:
        """As `frame`, with a row for every number that probes saw in every run."""
        return frames.to_frame(frames.probe_rows(self.entries))

    def _repr_html_(self) -> str:
        return frames.to_html(self.path, self.about, self.entries)

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
    write_atomically(path / layout.EXPERIMENT, json.dumps({**about, **lists}, indent=1))


def _written(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [{**asdict(e), "run": e.run.path.name} for e in entries]
