"""Finds what the choice by tuning adds to the noise of an arm, by resampling the tuning seeds.

With other tuning seeds another value of the grid might have been chosen. The tuning seeds are drawn
anew with replacement, the same for every arm, and each draw chooses again by the trials' scores.
How much the trials' mean of a measure varies from choice to choice is what the choice adds. A
bootstrap of T seeds shows (T - 1) / T of a variance, and the standard error is raised for that.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from normlab.measures.measures import Measure
from normlab.store.record import Record

RESAMPLES = 2_000

NO_TUNING, ONE_SEED, NO_TRIALS, ANEW = (
    "the arms were not tuned",
    "one tuning seed does not show what the choice by tuning adds",
    "the results of the trials are not here",
    "tuning was done anew for each seed, so the seeds' interval holds the noise of the choice",
)
"""Reasons why nothing is joined with the interval over seeds."""


@dataclass(frozen=True, eq=False)
class TuningNoise:
    """The choices that other tuning seeds would have led to.

    Attributes:
        tuning: the tuning as the experiment's folder keeps it; empty if there was none.
        trials: the runs that chose.
    """

    tuning: Mapping[str, Any]
    trials: Sequence[Record]

    @property
    def anew(self) -> bool:
        """Return whether each seed has a choice of its own."""
        return bool(self.tuning.get("anew"))

    @property
    def lacking(self) -> str:
        """Why the choice cannot be resampled; empty if it can."""
        if not self.tuning:
            return NO_TUNING
        if self.anew:
            return ANEW
        scored = all("tried" in own for own in self.tuning["chosen"].values())
        return "" if len(self.tuning["seeds"]) > 1 and scored else ONE_SEED

    @cached_property
    def _drawn(self) -> np.ndarray:
        """`(resamples, seeds)` how often each tuning seed is drawn."""
        seeds = len(self.tuning["seeds"])
        return np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)

    def _choices(self, arm: str) -> np.ndarray:
        """Return the place of the point that each resample chooses for an arm."""
        scores = np.array([one["scores"] for one in self.tuning["chosen"][arm]["tried"]], float)
        sign = 1 if Measure.parse(self.tuning["measure"]).higher_is_better else -1
        return (sign * scores @ self._drawn.T).argmax(axis=0)

    def shares(self, arm: str) -> list[tuple[dict[str, Any], float]]:
        """Return the share of resamples that choose each point for an arm, the greatest first."""
        tried = self.tuning["chosen"][arm]["tried"]
        counts = np.bincount(self._choices(arm), minlength=len(tried)) / RESAMPLES
        found = [(one["values"], float(c)) for one, c in zip(tried, counts, strict=True) if c]
        return sorted(found, key=lambda one: -one[1])

    def error(
        self, arms: Sequence[Record], signs: Sequence[int], measure: Measure
    ) -> tuple[float, str]:
        """Return the standard error that the choices give a sum of arms' means.

        Args:
            arms: a run of each arm.
            signs: 1 or -1 for each arm.
            measure: the measure of the means.

        Returns:
            The error, and why there is none.
        """
        if self.lacking:
            return math.nan, self.lacking
        total = np.zeros(RESAMPLES)
        for arm, sign in zip(arms, signs, strict=True):
            means = self._means(arm, measure)
            if means is None:
                return math.nan, NO_TRIALS
            total += sign * means[self._choices(arm.arm)]
        seeds = len(self.tuning["seeds"])
        return float(total.std() * math.sqrt(seeds / (seeds - 1))), ""

    def _means(self, arm: Record, measure: Measure) -> np.ndarray | None:
        """Return the trials' mean of a measure at each point of the grid; None if one lacks it."""
        grid = self.tuning["grid"]
        own = _key(arm.axes, grid)
        found: dict[str, list[float]] = {}
        for trial in self.trials:
            value = measure.of(trial) if trial.finished and trial.metrics else None
            if _key(trial.axes, grid) == own and value is not None and not value.censored:
                point = json.dumps([trial.axes.get(axis) for axis in grid])
                found.setdefault(point, []).append(value.number)
        if arm.arm not in self.tuning["chosen"]:
            return None
        points = [
            json.dumps([one["values"].get(axis) for axis in grid])
            for one in self.tuning["chosen"][arm.arm]["tried"]
        ]
        seeds = len(self.tuning["seeds"])
        if any(len(found.get(point, [])) < seeds for point in points):
            return None
        return np.array([np.mean(found[point]) for point in points])


def _key(axes: Mapping[str, Any], grid: Iterable[str]) -> str:
    return json.dumps({axis: value for axis, value in axes.items() if axis not in grid})
