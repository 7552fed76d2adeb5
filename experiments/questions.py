"""Reads the questions and their committed results, for the programs that make pages of them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from normlab.evidence.remarks import Remarks, read_remarks
from normlab.evidence.verdicts import Verdict, judge
from normlab.store.layout import PUBLISHED
from normlab.store.loading import load_runs
from normlab.store.record import Record
from normlab.store.runs import Runs

HERE = Path(__file__).parent
ROOT, RESULTS, NOTES = HERE.parent, HERE / "results", HERE / "questions.yaml"

SIZES = ("set", "depth", "width", "size")
"""The sizes of networks and data that a reader wants to know first."""


@dataclass(frozen=True)
class Question:
    """One question with its committed results.

    Attributes:
        name: the name of its config and of the folder of its results.
        runs: the published runs.
        notes: what `questions.yaml` says about it.
    """

    name: str
    runs: Runs
    notes: dict[str, Any]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on its claims."""
        return judge(self.runs)

    @cached_property
    def remarks(self) -> Remarks:
        """A person's remarks on its results."""
        return read_remarks(self.runs.path)

    @property
    def outcomes(self) -> list[str]:
        """The outcomes of its claims, in order; "withdrawn" if a verdict no longer stands."""
        return [standing_of(verdict) for verdict in self.verdicts]

    @property
    def n(self) -> str:
        """The number of runs an arm: "5", or "3 to 5"."""
        arms: dict[str, int] = {}
        for run in self.runs:
            arms[run.arm] = arms.get(run.arm, 0) + 1
        low, high = min(arms.values()), max(arms.values())
        return str(low) if low == high else f"{low} to {high}"

    @property
    def devices(self) -> str:
        """The devices that it was measured on, in words."""
        proofs = [proof for run in self.runs for proof in run.provenance]
        words = (
            f"{proof.get('cores', '?')} CPU cores" if device.startswith("cpu") else device
            for proof in proofs
            for device in proof["devices"]
        )
        return ", ".join(sorted(set(words)))

    @cached_property
    def records(self) -> list[Record]:
        """The records of its runs."""
        return self.runs.records()

    @property
    def setting(self) -> str:
        """Network and data, as far as all runs share them."""
        words = []
        for section in ("model", "data"):
            every = [record.config[section] for record in self.records]
            own = every[0]
            same = [
                key for key in SIZES if key in own and all(o.get(key) == own[key] for o in every)
            ]
            more = ", ".join(f"{key} {own[key]}" for key in same)
            names = ", ".join(dict.fromkeys(one["name"] for one in every))
            words.append(f"{names} ({more})" if more else names)
        return f"{' on '.join(words)}, {self.devices}"

    @property
    def budget(self) -> str:
        """How long each run was trained, and how its settings were tuned."""
        steps = sorted({record.status["steps"] for record in self.records})
        words = f"{steps[0]:,} steps" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,} steps"
        tuning = self.runs.about.get("tuning")
        if not tuning:
            return words
        grid = ", ".join(f"{axis} in {values}" for axis, values in tuning["grid"].items())
        seeds = len(tuning["seeds"])
        return f"{words}, {grid} chosen by {seeds} other seed{'s' if seeds > 1 else ''}"


def standing_of(verdict: Verdict) -> str:
    """Return a verdict's outcome, or "withdrawn"."""
    return "withdrawn" if verdict.retracted else verdict.outcome


def notes(file: Path = NOTES) -> dict[str, dict[str, Any]]:
    """Read what is written by hand about each question."""
    return {name: own or {} for name, own in yaml.safe_load(file.read_text("utf-8")).items()}


def questions(results: Path = RESULTS, written: dict[str, Any] | None = None) -> list[Question]:
    """List the questions with results in the order of `questions.yaml`, then others by name."""
    written = notes() if written is None else written
    found = sorted(file.parent.name for file in results.glob(f"*/{PUBLISHED}"))
    order = [*(name for name in written if name in found), *(n for n in found if n not in written)]
    return [Question(name, load_runs(results / name), written.get(name, {})) for name in order]
