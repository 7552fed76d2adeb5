"""Looks at what an experiment has so far: notes its results, and finds the arms still needed."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from normlab.configs.claims import PlannedRun
from normlab.configs.experiment import Experiment
from normlab.configs.run_config import RunConfig
from normlab.errors import UserError
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim, arms_of
from normlab.store.journal import note, read_journal
from normlab.store.layout import FINISHED, JOURNAL
from normlab.store.loading import load_runs
from normlab.store.reading import digest
from normlab.store.run import Run
from normlab.store.runs import alone


class Results:
    """Writes the results of an experiment's runs into its journal, each once.

    An experiment without a plan has no journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[tuple[str, str | None]] | None = None

    def note(self, run: Run, state: str) -> None:
        """Write down how a run has ended, if it has a result that is not written down yet."""
        if state not in ("skipped", *FINISHED) or not (self._folder / JOURNAL).exists():
            return
        if self._known is None:
            lines = read_journal(self._folder).of("finished")
            self._known = {(line["run"], line.get("digest")) for line in lines}
        result = (run.path.name, digest(run.status))
        if result not in self._known:
            self._known.add(result)
            with alone(self._folder):
                note(self._folder, "finished", run=result[0], digest=result[1])


def arms_to_begin_with(experiment: Experiment, runs: Sequence[RunConfig]) -> set[str]:
    """Name the arms that an experiment's claims are about.

    Raises:
        UserError: no claim is about the arms of these runs.
    """
    found = _arms_of(experiment.claims, runs)
    if not found:
        raise UserError(
            f"{experiment.file}: no claim is about the arms of this command; run it without "
            "--until-decided"
        )
    return found


def arms_of_open_claims(folder: Path, runs: Sequence[RunConfig]) -> set[str]:
    """Name the arms of an experiment that its undecided claims are about."""
    verdicts = judge(load_runs(folder))
    claims = [v.claim for v in verdicts if v.outcome == "undecided" and not v.withdrawn]
    return _arms_of(claims, runs)


def _arms_of(claims: Iterable[Claim], runs: Sequence[RunConfig]) -> set[str]:
    """Name the arms that claims are about; a claim about arms that are not there has none."""
    points, found = [PlannedRun(run.arm, run.seed, run.labels) for run in runs], set()
    for claim in claims:
        with contextlib.suppress(UserError):  # a command makes a part of the arms
            found |= {point.arm for _, own in arms_of(points, claim) for point in own}
    return found
