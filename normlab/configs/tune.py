"""Fair tuning: every arm tries the same small grid, and its best value goes into the sweep.

    tune:
      grid: {learning_rate: [0.03, 0.1, 0.3]}
      seeds: 100..101

Trials are runs like any other, with seeds that the sweep does not have. What is best is decided on
examples held out of the training split (`data.validation`), never on the test split.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from normlab.configs.run_config import RunConfig
from normlab.errors import UserError
from normlab.measures.measures import Measure
from normlab.store.record import Record
from normlab.store.run import Run

DEFAULT_MEASURE = "final(val_accuracy)"


class Trial(NamedTuple):
    """A run with a point of the grid.

    Attributes:
        arm: the arm of the sweep that it is tried for, or that it is a run of.
        point: axis of the grid to value.
        config: the run.
    """

    arm: str
    point: dict[str, Any]
    config: RunConfig


@dataclass(frozen=True, eq=False)
class Tuning:
    """What is tried, and what it may lead to.

    Attributes:
        grid: axis to its values.
        seeds: of the trials.
        measure: what decides.
        trials: every arm at every point of the grid, with every seed of the trials.
        candidates: every run of the sweep at every point of the grid, of which one each is made.
    """

    grid: dict[str, list[Any]]
    seeds: list[int]
    measure: Measure
    trials: list[Trial]
    candidates: list[Trial]

    def choose(self, runs: Iterable[Run]) -> dict[str, Any]:
        """The best point of every arm, as the experiment's folder keeps it.

        Args:
            runs: the trials' runs, in the order of `trials`.

        Raises:
            UserError: a trial has no result, so that its arm would be judged by less than others.
        """
        scores: dict[str, dict[int, list[float]]] = {}
        steps: dict[str, int] = {}
        points = list({str(trial.point): trial.point for trial in self.trials}.values())
        for trial, run in zip(self.trials, runs, strict=True):
            record = Record.read(run)
            value = self.measure.of(record) if record.finished else None
            if value is None:
                raise UserError(
                    f"{run.path}: this trial has no result "
                    f"({record.damage or record.state}), and arms must be tuned alike: mend it, "
                    "and give the same command again"
                )
            own = scores.setdefault(trial.arm, {})
            own.setdefault(points.index(trial.point), []).append(value.number)
            steps[trial.arm] = steps.get(trial.arm, 0) + record.status["steps"]
        return {
            "grid": self.grid,
            "seeds": self.seeds,
            "measure": str(self.measure),
            "chosen": {arm: self._best(points, own, steps[arm]) for arm, own in scores.items()},
        }

    def _best(
        self, points: list[dict[str, Any]], scores: dict[int, list[float]], steps: int
    ) -> dict[str, Any]:
        means = {index: float(np.mean(values)) for index, values in scores.items()}
        sign = 1 if self.measure.higher_is_better else -1
        best = max(means, key=lambda index: sign * means[index])  # of equals, the first
        return {
            "values": points[best],
            "score": means[best],
            "trials": sum(map(len, scores.values())),
            "steps": steps,
            "at_edge": any(_at_edge(value, self.grid[a]) for a, value in points[best].items()),
            "tried": [{"values": points[i], "scores": own} for i, own in scores.items()],
        }

    def chosen_runs(self, chosen: dict[str, Any]) -> list[RunConfig]:
        """The sweep's runs, each at the point chosen for its arm."""
        return [
            candidate.config
            for candidate in self.candidates
            if candidate.point == chosen[candidate.arm]["values"]
        ]


def _at_edge(value: Any, values: list[Any]) -> bool:
    numbers = [v for v in values if isinstance(v, int | float)]
    return len(numbers) == len(values) > 1 and value in (min(numbers), max(numbers))
