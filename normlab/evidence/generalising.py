"""Widens intervals over seeds, so that they speak of new test images and new tuning as well."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from normlab.evidence.estimates import IntervalEstimate, no_interval
from normlab.evidence.images import ArmAnswers, arm_answers, errors_of, has_images, widened
from normlab.evidence.tuning_noise import ANEW, TuningNoise
from normlab.measures.claims import Claim
from normlab.measures.measures import Measure
from normlab.store.files import DamagedError
from normlab.store.record import Record
from normlab.store.runs import Runs

SIGNS = {1: (1,), 2: (1, -1), 4: (1, -1, -1, 1)}
"""The signs of one arm, of a difference, and of a difference of differences."""

WORDS = {"images": "new test images", "tuning": "a new choice by tuning"}
"""What an interval speaks of beside new seeds, in words."""

Arms = Sequence[Sequence[Record]]


@dataclass(frozen=True, eq=False)
class OtherNoise:
    """What an experiment shows of noise that its seeds do not show.

    Attributes:
        runs: the experiment.
    """

    runs: Runs
    _answers: dict[tuple[Path, ...], ArmAnswers | None] = field(default_factory=dict)

    @cached_property
    def tuning(self) -> TuningNoise:
        """What the choice by tuning adds."""
        about = self.runs.about.get("tuning") or {}
        return TuningNoise(about, [Record.read(run) for run in self.runs.trials])

    def answers(self, records: Sequence[Record]) -> ArmAnswers | None:
        """Return the answers of an arm's runs, which are read once."""
        key = tuple(record.path for record in records)
        if key not in self._answers:
            self._answers[key] = None
            with contextlib.suppress(DamagedError):  # a verdict over seeds does not need them
                self._answers[key] = arm_answers(records)
        return self._answers[key]

    def error(self, kind: str, arms: Arms, measure: Measure) -> tuple[float, str]:
        """Return the standard error of one kind that a sum of arms has, or why there is none."""
        signs = SIGNS[len(arms)]
        if kind == "images":
            return errors_of([self.answers(own) for own in arms], signs)
        return self.tuning.error([own[0] for own in arms], signs, measure)

    def joined(
        self, found: IntervalEstimate, kinds: Sequence[str], arms: Arms, measure: Measure
    ) -> IntervalEstimate:
        """Return an estimate whose interval speaks of these kinds of noise beside the seeds.

        Args:
            found: the estimate, with its interval over seeds.
            kinds: of images and tuning.
            arms: the runs of each arm.
            measure: the measure.
        """
        for kind in kinds:
            if kind == "seeds" or found.lacking:
                continue
            error, why = self.error(kind, arms, measure)
            if why == ANEW:
                found = replace(found, method=f"{found.method}, tuned anew for each seed")
            elif why:
                return no_interval(found.quantity, found.estimate, found.n, why)
            else:
                found = widened(found, error, WORDS[kind])
        return found

    def deciding(
        self, claim: Claim, found: IntervalEstimate, arms: Arms
    ) -> tuple[IntervalEstimate, IntervalEstimate | None]:
        """Return the estimate with the interval that decides a claim, and with another to state.

        A claim that generalises is decided by the wider interval, and that of the seeds is stated.
        Otherwise that of the seeds decides, and the one for new test images is stated, if the runs'
        answers are stored.
        """
        measure = claim.measured
        if claim.generalise is not None:
            return self.joined(found, claim.generalise, arms, measure), found
        known = has_images(measure) and not found.lacking and claim.unit is None
        if not known or found.quantity == "ratio":
            return found, None
        wide = self.joined(found, ["images"], arms, measure)
        return found, None if wide.lacking else wide
