"""Tunes fairly: every arm tries the same small grid, and its best point goes into the sweep.

    tune:
      grid: {learning_rate: [0.03, 0.1, 0.3]}
      seeds: 100..101

Trials are runs like any other, with seeds that the sweep does not have. The best point is chosen on
examples held out of the training split (`data.validation`), never on the test split.

With `anew: true` every seed of the sweep has a choice of its own, by its own share of the tuning
seeds. The interval over seeds then holds the noise of the choice. Without it the choice is one for
all seeds, and reports draw the tuning seeds again to tell how much the choice may move a mean.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from normlab.configs.claims import check_measure, recorded_metrics
from normlab.configs.document import Node, Problem, show
from normlab.configs.expand import expand
from normlab.configs.overrides import full_path
from normlab.configs.run_config import SEED_AXES, RunConfig
from normlab.configs.signatures import Checked, fields_model, unknown_keys
from normlab.errors import UserError
from normlab.measures.claims import Claim
from normlab.measures.measures import Measure
from normlab.store.record import Record
from normlab.store.run import Run
from normlab.store.seeds import seed_text

DEFAULT_MEASURE = "final(val_accuracy)"
EXAMPLE = "{grid: {learning_rate: [0.03, 0.1, 0.3]}, seeds: 100..101}"


@dataclass(frozen=True)
class Tune:
    """The section `tune`: every arm tries the same grid, and is then run at its best point.

    Attributes:
        grid: axes and their values, as in `sweep`.
        seeds: the seeds of the trials, which must not be those of the sweep.
        measure: the measure that chooses the best point. Its metric is of the examples that
            `data.validation` holds out.
        anew: whether each seed of the sweep has a choice of its own. The tuning seeds are then
            shared out among the sweep's, in order, and must be as many or a multiple.
    """

    grid: dict[str, Any]
    seeds: Any
    measure: str = DEFAULT_MEASURE
    anew: bool = False


class Trial(NamedTuple):
    """A run with a point of the grid.

    Attributes:
        arm: the arm of the sweep that the trial is for, or that the run belongs to.
        point: the value on each axis of the grid.
        config: the config of the run.
    """

    arm: str
    point: dict[str, Any]
    config: RunConfig


@dataclass(frozen=True, eq=False)
class Tuning:
    """The trials of a tuning, and the runs that it may lead to.

    Attributes:
        grid: the values of each axis of the grid.
        seeds: the seeds of the trials.
        measure: the measure that chooses the best point.
        trials: every arm at every point of the grid, with every seed of the trials.
        candidates: every run of the sweep at every point of the grid. One point of each is run.
        anew: whether each seed of the sweep has a choice of its own.
    """

    grid: dict[str, list[Any]]
    seeds: list[int]
    measure: Measure
    trials: list[Trial]
    candidates: list[Trial]
    anew: bool = False

    def choose(self, runs: Iterable[Run]) -> dict[str, Any]:
        """Choose the best point of every arm, and return it as the experiment's folder keeps it.

        Args:
            runs: the trials' runs, in the order of `trials`.

        Raises:
            UserError: a trial has no result, so its arm would be tuned with fewer trials.
        """
        scores: dict[str, dict[int, dict[int, float]]] = {}
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
            own.setdefault(points.index(trial.point), {})[trial.config.seed] = value.number
            steps[trial.arm] = steps.get(trial.arm, 0) + record.status["steps"]
        return {
            "grid": self.grid,
            "seeds": self.seeds,
            "measure": str(self.measure),
            **({"anew": True} if self.anew else {}),
            "chosen": {arm: self._best(points, own, steps[arm]) for arm, own in scores.items()},
        }

    @property
    def shares(self) -> dict[int, list[int]]:
        """The tuning seeds of each seed of the sweep, if each has a choice of its own."""
        every = sorted({candidate.config.seed for candidate in self.candidates})
        each = len(self.seeds) // len(every)
        return {seed: self.seeds[i * each : (i + 1) * each] for i, seed in enumerate(every)}

    def _best(
        self, points: list[dict[str, Any]], scores: dict[int, dict[int, float]], steps: int
    ) -> dict[str, Any]:
        best, score = self._best_by(scores, self.seeds)
        chosen, more = [points[best]], {}
        if self.anew:
            by_seed = {str(s): points[self._best_by(scores, own)[0]]
                       for s, own in self.shares.items()}  # fmt: skip
            chosen, more = list(by_seed.values()), {"by_seed": by_seed}
        return {
            "values": points[best],
            "score": score,
            "trials": sum(map(len, scores.values())),
            "steps": steps,
            "at_edge": any(_at_edge(v, self.grid[a]) for one in chosen for a, v in one.items()),
            "tried": [{"values": points[i], "scores": [*own.values()]}
                      for i, own in scores.items()],
            **more,
        }  # fmt: skip

    def _best_by(
        self, scores: dict[int, dict[int, float]], seeds: Iterable[int]
    ) -> tuple[int, float]:
        """Return the place of the point with the best mean over some tuning seeds, and the mean."""
        own = list(seeds)
        means = {index: float(np.mean([v[s] for s in own])) for index, v in scores.items()}
        sign = 1 if self.measure.higher_is_better else -1
        best = max(means, key=lambda index: sign * means[index])  # the first of equal ones
        return best, means[best]

    def chosen_runs(self, chosen: dict[str, Any]) -> list[RunConfig]:
        """Return the sweep's runs, each at the point chosen for its arm, or for it and its seed."""

        def point(candidate: Trial) -> dict[str, Any]:
            own = chosen[candidate.arm]
            return own.get("by_seed", {}).get(str(candidate.config.seed), own["values"])

        return [one.config for one in self.candidates if one.point == point(one)]


def _at_edge(value: Any, values: list[Any]) -> bool:
    numbers = [v for v in values if isinstance(v, int | float)]
    return len(numbers) == len(values) > 1 and value in (min(numbers), max(numbers))


def read_tuning(config: Node) -> Checked[Tuning | None]:
    """Read the section `tune`, with all the runs that it may lead to, or all its mistakes.

    A config without the section has neither a tuning nor a problem.
    """
    tune = config.get("tune")
    if tune is None or tune.content is None:
        return None, []
    problems = _misshapen(tune, config)
    if problems:
        return None, problems + expand(config)[1]
    grid = [str(axis) for axis in tune.value["grid"]]
    measure, problems = _read_measure(tune, config)
    # The measure cannot be one of probes, so trials need none.
    unprobed = config.without("probes", "evaluate")
    trials, found = _expand_with(unprobed, tune, grid, of_trials=True)
    candidates, also_found = _expand_with(config, tune, grid, of_trials=False)
    problems += found + also_found
    both = {trial.config.seed for trial in trials} & {run.config.seed for run in candidates}
    if both:
        message = (
            f"the sweep has {', '.join(map(seed_text, sorted(both)))} of these seeds too; a run "
            "that helped to choose must not be reported, so give others"
        )
        problems.append(Problem(tune.mark_at(("seeds",)), message))
    if problems:
        return None, problems
    values = {axis: list(dict.fromkeys(trial.point[axis] for trial in trials)) for axis in grid}
    seeds = sorted({trial.config.seed for trial in trials})
    anew, swept = bool(tune.value.get("anew")), len({one.config.seed for one in candidates})
    if anew and len(seeds) % swept:
        message = (
            f"tune: with 'anew' each of the sweep's seeds, {swept}, has its own share of the "
            f"tuning seeds: give as many, or a multiple, found {len(seeds)}"
        )
        return None, [Problem(tune.mark_at(("seeds",)), message)]
    return Tuning(values, seeds, measure, trials, candidates, anew), []


def check_drawn(config: Node, claims: Iterable[Claim], tuning: Tuning | None) -> list[Problem]:
    """Complain of a claim that generalises to a new choice by tuning, where none can be drawn."""
    wanted = any("tuning" in (claim.generalise or ()) for claim in claims)
    if not wanted or (tuning is not None and (tuning.anew or len(tuning.seeds) > 1)):
        return []
    message = (
        "a claim generalises to tuning, so the choice must be drawn again: give 'tune' at least "
        "two seeds"
    )
    return [Problem(config.mark_at(("claims",)), message)]


def _misshapen(tune: Node, config: Node) -> list[Problem]:
    if not isinstance(tune.content, dict):
        message = f"'tune' must be a mapping, as in {EXAMPLE}, found {show(tune.value)}"
        return [Problem(tune.mark, message)]
    keys = fields_model(Tune).model_fields
    problems = unknown_keys(tune, keys, "tune")
    for key, field in keys.items():
        if field.is_required() and key not in tune.content:
            message = f"tune needs the key '{key}', as in {EXAMPLE}"
            problems.append(Problem(tune.mark, message))
    anew = tune.value.get("anew", False)
    if type(anew) is not bool:
        message = f"tune: 'anew' must be true or false, found {show(anew)}"
        problems.append(Problem(tune.mark_at(("anew",)), message))
    grid = tune.get("grid")
    if grid is None:
        return problems
    if not isinstance(grid.content, dict) or not grid.content:
        found = show(grid.value)
        message = f"tune: 'grid' must be a mapping of axes to lists of values, found {found}"
        return [*problems, Problem(grid.mark, message)]
    sweep = config.get("sweep")
    for axis, values in grid.content.items():
        given = config.find(full_path(str(axis)))
        if sweep is not None and sweep.get(axis) is not None:
            message = f"'{axis}' is swept too; what is tuned cannot be an axis of the sweep"
            problems.append(Problem(values.key_mark, message))
        elif given is not None and given.mark.override is not None:
            message = f"tuning would choose '{axis}' itself; add tune=null to fix it"
            problems.append(Problem(given.mark, message))
    return problems


def _read_measure(tune: Node, config: Node) -> Checked[Measure]:
    text = tune.value.get("measure", DEFAULT_MEASURE)
    try:
        if not isinstance(text, str):
            raise UserError(f"'measure' must be text, found {show(text)}")
        measure = Measure.parse(text)
        if measure.axis is not None:
            raise UserError(f"{measure} is taken over several runs; tuning needs one of each run")
        if any(metric.startswith("test") for metric in measure.metrics):
            raise UserError(
                f"{measure} would choose by the test split; choose by val_accuracy or val_loss"
            )
        if measure.higher_is_better is None:
            raise UserError(f"{measure} does not say whether more or less of it is better")
        check_measure(measure, [], recorded_metrics(config))
    except UserError as error:
        problem = Problem(tune.mark_at(("measure",)), f"tune: {error}")
        return Measure.parse(DEFAULT_MEASURE), [problem]
    return measure, []


def _expand_with(
    config: Node, tune: Node, grid: list[str], of_trials: bool
) -> Checked[list[Trial]]:
    """Multiply the sweep with the grid; trials have their own seeds in place of the sweep's."""
    sweep = config.get("sweep")
    if sweep is None or not isinstance(sweep.content, dict):
        sweep = Node({}, config.mark)
    if of_trials:
        sweep = sweep.without(*SEED_AXES)
        excluded = sweep.get("exclude")
        if excluded is not None and isinstance(excluded.content, list):
            rules = [rule for rule in excluded.content if not _speaks_of_seeds(rule)]
            sweep = sweep.put(("exclude",), replace(excluded, content=rules or None))
        sweep = sweep.put(("seed",), tune.at(("seeds",)))
    for axis, values in tune.at(("grid",)).content.items():
        sweep = sweep.put((str(axis),), values)
    runs, problems = expand(config.put(("sweep",), sweep))
    if problems:
        return [], problems
    return [_as_trial(run, grid, of_trials) for run in runs], problems


def _speaks_of_seeds(rule: Node) -> bool:
    return isinstance(rule.content, dict) and bool(set(SEED_AXES) & set(rule.content))


def _as_trial(run: RunConfig, grid: list[str], is_trial: bool) -> Trial:
    def rest(table: dict[str, Any]) -> dict[str, Any]:
        return {axis: value for axis, value in table.items() if axis not in grid}

    reduced = replace(run, axes=rest(run.axes), names=rest(run.names), words=rest(run.words))
    point = {axis: run.labels[axis] for axis in grid}
    # The point is part of a trial's name, but a run of the sweep has the name of its arm alone.
    return Trial(reduced.arm, point, run if is_trial else reduced)
