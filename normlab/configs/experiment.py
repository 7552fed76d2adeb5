"""A config file as a whole: its runs, its claims, and how its arms are tuned."""

import copy
import shlex
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from normlab.configs.claims import Planned, check_measure, read_claims
from normlab.configs.document import ConfigError, Document, Problem, flow
from normlab.configs.expand import expand, is_tied
from normlab.configs.naming import (
    as_axes,
    as_part,
    called_twice,
    is_of_seeds,
    key_of,
    may_be_part,
    own_name,
)
from normlab.configs.overrides import COMMAND_LINE, full_path, read
from normlab.configs.own_code import find_code_beside
from normlab.configs.probes import planned
from normlab.configs.run_config import RunConfig
from normlab.configs.sections import Target
from normlab.configs.signatures import show
from normlab.configs.tune import DEFAULT_MEASURE, Trial, Tuning
from normlab.errors import UserError, did_you_mean
from normlab.measures.claims import Claim
from normlab.measures.measures import ASKED_FOR, METRICS, Measure
from normlab.store.names import as_text, folder_name

SEEDS = ("seed", "train.seed")


@dataclass(frozen=True, eq=False)
class Experiment:
    """A config file, resolved.

    Attributes:
        file: where it was read from.
        overrides: what was changed on the command line.
        name: what it is called.
        question: what it asks, or None.
        target: the accuracy to count steps to, or None.
        runs: at least one, in the order in which they are made. Where arms are tuned, these
            stand for those that tuning will choose: as many, at the first point of the grid.
        claims: to be judged by the runs.
        tuning: what is tried before them, or None.
        tied: whether some axes go together, so that none of them can be overridden alone.
        whole: the experiment of which a command with overrides makes a part; None for a whole one.
        added: the overrides by which a command adds arms to the whole.
        sweep: the section `sweep`, as it is written.
    """

    file: FilePath
    overrides: tuple[str, ...]
    name: str
    question: str | None
    target: Target | None
    runs: list[RunConfig]
    claims: list[Claim]
    tuning: Tuning | None = None
    tied: bool = False
    whole: "Experiment | None" = None
    added: tuple[str, ...] = ()
    sweep: Any = None

    @property
    def folder(self) -> str:
        """The name of the folder that its runs lie in."""
        return folder_name(self.name)

    def command(self, run: RunConfig) -> str:
        """The command that makes this one run alone; a tuned experiment's makes all."""
        whole = self if self.whole is None or self.tuning is not None else self.whole
        words = ["normlab", "run", as_word(self.file), *whole.overrides]
        if self.tuning is not None:
            return shlex.join(words)
        fixed = [f"{axis}={_flow(value)}" for axis, value in run.axes.items()]
        if whole is not self and not {*SEEDS} & {*run.axes}:
            fixed.append(f"seed={run.seed}")
        alone = ["sweep=null"] if whole.tied else []
        return shlex.join([*words, *alone, *fixed])


def load_experiment(file: FilePath, overrides: tuple[str, ...] = ()) -> Experiment:
    """Read, check and expand a config, and decide to which experiment its runs belong.

    Args:
        file: a YAML file.
        overrides: `key=value` each. `normlab.configs.naming` says what they do to the experiment's
            name; `name=...` among them names it.

    Raises:
        UserError: there is no such file.
        ConfigError: everything that is wrong with it, each at its place.
    """
    found = _read_experiment(file, overrides)
    others = tuple(one for one in overrides if not is_of_seeds(one))
    if others and not any(key_of(one) == ("name",) for one in others):
        part = _as_part(found, others)
        if part is not None:
            return part
        found = replace(found, name=own_name(found.name, others))
    whole = None if others == overrides else _read_if_whole(file, others)
    if whole is None:
        return found
    return replace(found, claims=whole.claims, whole=replace(whole, name=found.name))


def _as_part(found: Experiment, others: tuple[str, ...]) -> Experiment | None:
    """Make of what a command asks for a part of its file's experiment; None if it is none."""
    whole = _read_if_whole(found.file)
    if whole is None or whole.tuning is not None or not may_be_part(others):
        return None
    runs = as_part(found.runs, whole.runs)
    if runs is not None:
        return replace(found, runs=runs, claims=whole.claims, whole=whole)
    axes = as_axes(others, whole.sweep)
    seeds = tuple(one for one in found.overrides if is_of_seeds(one))
    more = None if axes is None else _read_if_whole(found.file, (*axes, *seeds))
    if more is None or called_twice(more.runs, whole.runs):
        return None
    added = tuple(sorted(axes or ()))
    origins = {run.hash: run.origins for run in found.runs}  # as the command was given
    runs = [run.came_from(origins.get(run.hash, run.origins)) for run in more.runs]
    return replace(found, runs=runs, claims=whole.claims, whole=whole, added=added)


def added_arms(experiment: Experiment, added: tuple[str, ...]) -> list[RunConfig]:
    """Give the runs that some overrides added to an experiment, as its file describes them now."""
    whole = (experiment.whole or experiment).overrides
    found = _read_if_whole(experiment.file, (*whole, *added))
    return [] if found is None else found.runs


def _read_if_whole(file: FilePath, overrides: tuple[str, ...] = ()) -> Experiment | None:
    """Read an experiment; None if there is none with these overrides alone."""
    try:
        return _read_experiment(file, overrides)
    except UserError:
        return None


def as_word(file: FilePath) -> str:
    """Write a file as a word of a command line, which must not begin as an option does.

    >>> as_word(FilePath("-x.yaml"))
    './-x.yaml'
    """
    text = as_text(file)
    return f"./{text}" if text.startswith("-") else text


def _read_experiment(file: FilePath, overrides: tuple[str, ...]) -> Experiment:
    document = read(file, overrides)
    find_code_beside(file)
    tuning, problems = _read_tuning(document)
    if tuning is None:
        runs, found = expand(document)
        problems += found
    else:
        first = tuning.candidates[0].point
        runs = [candidate.config for candidate in tuning.candidates if candidate.point == first]
    metrics = _metrics(document)
    points = [] if problems else [_planned(run, document) for run in runs]
    claims, found = read_claims(document, points, metrics, lenient=bool(overrides))
    problems += found
    unread = {problem.mark for problem in document.problems}
    # What stands in for a value that could not be read is not judged in its turn.
    problems = document.problems + [one for one in problems if one.mark not in unread]
    if problems:
        raise ConfigError(problems)
    target = document.value.get("target")
    return Experiment(
        file=file,
        overrides=overrides,
        name=document.value.get("name", as_text(file.stem)),
        question=document.value.get("question"),
        target=Target(**target) if target else None,
        runs=runs,
        claims=claims,
        tuning=tuning,
        tied=is_tied(document),
        sweep=document.value.get("sweep"),
    )


def _planned(run: RunConfig, document: Document) -> Planned:
    """A run as the claims see it; its inside is traced only where a claim may speak of it."""
    inside = planned(run.sections) if document.value.get("claims") else None
    return Planned(run.arm, run.seed, run.labels, inside)


def _metrics(document: Document) -> list[str]:
    data, train = document.value.get("data"), document.value.get("train")
    validated = isinstance(data, dict) and data.get("validation") is not None
    given = train.get("metrics") if isinstance(train, dict) else None
    asked = given if isinstance(given, list) else []  # what else it is, the section's check says
    return [
        metric
        for metric in METRICS
        if (validated or not metric.startswith("val_"))
        and (metric not in ASKED_FOR or metric.partition("_")[2] in asked)
    ]


def _read_tuning(document: Document) -> tuple[Tuning | None, list[Problem]]:
    """The section `tune`, with all the runs that it may lead to, or all that is wrong with it.

    Without it there is neither a tuning nor a problem.
    """
    tune = document.value.get("tune")
    if tune is None:
        return None, []
    problems = _misshapen(tune, document)
    if problems:
        return None, problems + expand(document)[1]
    grid = [str(axis) for axis in tune["grid"]]
    measure, problems = _read_measure(document)
    trials, found = _expand_with(_without_probes(document), grid, of_trials=True)
    candidates, also_found = _expand_with(document, grid, of_trials=False)
    problems += found + also_found
    both = {trial.config.seed for trial in trials} & {run.config.seed for run in candidates}
    if both:
        message = (
            f"the sweep has {', '.join(map(str, sorted(both)))} of these seeds too; a run that "
            "helped to choose must not be reported, so give others"
        )
        problems.append(Problem(document.mark(("tune", "seeds")), message))
    if problems:
        return None, problems
    values = {axis: list(dict.fromkeys(trial.point[axis] for trial in trials)) for axis in grid}
    seeds = sorted({trial.config.seed for trial in trials})
    return Tuning(values, seeds, measure, trials, candidates), []


def _without_probes(document: Document) -> Document:
    """The config of trials: no measure of probes can decide, so looking would be for nothing."""
    variant = copy.deepcopy(document)
    if "probes" in variant.value:
        variant.replace(("probes",), Document(document.source, None))
    return variant


def _misshapen(tune: Any, document: Document) -> list[Problem]:
    form = "{grid: {learning_rate: [0.03, 0.1, 0.3]}, seeds: 100..101}"
    if not isinstance(tune, dict):
        message = f"'tune' must be a mapping, as in {form}, found {show(tune)}"
        return [Problem(document.mark(("tune",)), message)]
    keys = ("grid", "seeds", "measure")
    problems = [
        Problem(
            document.key_mark(("tune", key)),
            f"tune has no key '{key}'; {did_you_mean(str(key), keys)}",
        )
        for key in tune
        if key not in keys
    ]
    for key in ("grid", "seeds"):
        if key not in tune:
            message = f"tune needs the key '{key}', as in {form}"
            problems.append(Problem(document.mark(("tune",)), message))
    grid = tune.get("grid", {"": 0})
    if not isinstance(grid, dict) or not grid:
        message = f"tune: 'grid' must be a mapping of axes to lists of values, found {show(grid)}"
        return [*problems, Problem(document.mark(("tune", "grid")), message)]
    sweep = document.value.get("sweep")
    for axis in grid:
        path, place = ("tune", "grid", axis), document.marks.get(full_path(str(axis)))
        if isinstance(sweep, dict) and axis in sweep:
            message = f"'{axis}' is swept too; what is tuned cannot be an axis of the sweep"
            problems.append(Problem(document.key_mark(path), message))
        elif place is not None and place.source.startswith(COMMAND_LINE):
            message = f"tuning would choose '{axis}' itself; add tune=null to fix it"
            problems.append(Problem(place, message))
    return problems


def _read_measure(document: Document) -> tuple[Measure, list[Problem]]:
    text = document.value["tune"].get("measure", DEFAULT_MEASURE)
    mark = document.mark(("tune", "measure"))
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
        check_measure(measure, [], _metrics(document))
    except UserError as error:
        return Measure.parse(DEFAULT_MEASURE), [Problem(mark, f"tune: {error}")]
    return measure, []


def _expand_with(
    document: Document, grid: list[str], of_trials: bool
) -> tuple[list[Trial], list[Problem]]:
    """The sweep multiplied with the grid; for the trials with their seeds instead of its own."""
    variant = copy.deepcopy(document)
    if not isinstance(variant.value.get("sweep"), dict):
        variant.value["sweep"] = {}
    if of_trials:
        sweep = variant.value["sweep"]
        for axis in SEEDS:
            sweep.pop(axis, None)
        if isinstance(sweep.get("exclude"), list):  # what it says of seeds is not of these
            rules = [
                rule
                for rule in sweep["exclude"]
                if not (isinstance(rule, dict) and set(SEEDS) & set(rule))
            ]
            sweep["exclude"] = rules or None
        variant.replace(("sweep", "seed"), document.part(("tune", "seeds")))
    for axis in grid:
        variant.replace(("sweep", axis), document.part(("tune", "grid", axis)))
    runs, problems = expand(variant)
    if problems:
        return [], problems
    return [_as_trial(run, grid, of_trials) for run in runs], problems


def _as_trial(run: RunConfig, grid: list[str], is_trial: bool) -> Trial:
    def rest(table: dict[str, Any]) -> dict[str, Any]:
        return {axis: value for axis, value in table.items() if axis not in grid}

    reduced = replace(run, axes=rest(run.axes), names=rest(run.names), words=rest(run.words))
    point = {axis: run.labels[axis] for axis in grid}
    # A trial is told apart by its point; a run of the sweep is that of its arm, however tuned.
    return Trial(reduced.arm, point, run if is_trial else reduced)


def _flow(value: Any) -> str:
    """A value as YAML in one line, for a command line."""
    if isinstance(value, dict) and list(value) == ["name"]:
        return value["name"]
    return flow(value)
