"""Loads a config file as a whole: its runs, its claims and the tuning of its arms."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from normlab.configs.admission import admit
from normlab.configs.claims import PlannedRun, read_claims, recorded_metrics
from normlab.configs.document import ConfigError, Mark, Node, Problem, flow, show
from normlab.configs.engines import is_of_engine, read_engine
from normlab.configs.evaluations import look_ahead
from normlab.configs.expand import expand, is_tied
from normlab.configs.learning_rate import RATE
from normlab.configs.naming import (
    as_axes,
    as_part,
    called_twice,
    is_of_seeds,
    key_of,
    may_be_part,
    own_name,
)
from normlab.configs.overrides import read
from normlab.configs.probes import look_inside
from normlab.configs.resolve import check_section
from normlab.configs.run_config import SEED_AXES, RunConfig, as_label, on_command_line
from normlab.configs.sections import CALLS, TARGET, TOP_LEVEL, WORDS, Target, elsewhere
from normlab.configs.shipped import config_file
from normlab.configs.signatures import Checked
from normlab.configs.sweep import spelt_out
from normlab.configs.tune import Tuning, check_drawn, read_tuning
from normlab.errors import UserError, did_you_mean
from normlab.measures.claims import Claim
from normlab.spellings import meant
from normlab.store.names import as_text, folder_name, without_marks
from normlab.store.seeds import setting_of, shared

FOLDER_NAME = re.compile(r"\w[\w .=+-]{0,99}")


@dataclass(frozen=True, eq=False)
class Experiment:
    """A config file, resolved.

    Attributes:
        file: the file that it was read from.
        overrides: the changes on the command line.
        name: the name of the experiment.
        question: the question that it asks, or None.
        target: the accuracy to count steps to, or None.
        runs: at least one, in the order in which they are made. Where arms are tuned, these
            stand for the runs that tuning will choose: as many, at the first point of the grid.
        claims: to be judged by the runs.
        tuning: the trials before the runs, or None.
        tied: whether some axes go together, so that none of them can be overridden alone.
        whole: the whole experiment, if the command's overrides make a part of it; else None.
        added: the overrides by which a command adds arms to the whole.
        sweep: the section `sweep`, as it is written.
        baseline: the arm that reports compare the others with, or None for the usual one.
        looks: the numbers of seeds an arm at which the claims are judged, rising; empty for one
            look, at all seeds.
        engine: the engine that makes the runs, a call `{name: ..., options}`, or None for the usual
            one.
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
    baseline: str | None = None
    looks: tuple[int, ...] = ()
    engine: dict[str, Any] | None = None

    @property
    def folder(self) -> str:
        """The name of the folder that its runs lie in."""
        return folder_name(self.name)

    def command(self, run: RunConfig) -> str:
        """Return the command that makes this one run alone; a tuned experiment's makes all."""
        whole = self if self.whole is None or self.tuning is not None else self.whole
        words = ["normlab", "run", as_word(self.file), *whole.overrides]
        if self.tuning is not None:
            return shlex.join(words)
        fixed = [f"{axis}={on_command_line(value)}" for axis, value in run.axes.items()]
        if whole is not self and not {*SEED_AXES} & {*run.axes}:
            fixed.append(f"seed={flow(setting_of(run.seed))}")
        alone = ["sweep=null"] if whole.tied else []
        return shlex.join([*words, *alone, *fixed])


def load_experiment(file: FilePath, overrides: tuple[str, ...] = ()) -> Experiment:
    """Read, check and expand a config, and decide to which experiment its runs belong.

    Args:
        file: a YAML file.
        overrides: words `key=value`. `name=...` names the experiment; without it, they change its
            name as `normlab.configs.naming` says.

    Raises:
        UserError: there is no such file.
        ConfigError: the config has mistakes; the message lists all of them, each at its place.
    """
    file = config_file(file)
    found = _read_experiment(file, overrides)
    others = tuple(one for one in overrides if not is_of_seeds(one) and not is_of_engine(one))
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
    """Return a command's runs as a part of its file's experiment, or None if they are none."""
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
    origins = {run.hash: run.origins for run in found.runs}  # the places in the command
    runs = [run.came_from(origins.get(run.hash, run.origins)) for run in more.runs]
    return replace(found, runs=runs, claims=whole.claims, whole=whole, added=added)


def added_arms(experiment: Experiment, added: tuple[str, ...]) -> list[RunConfig]:
    """Return the runs that some overrides add to an experiment, as its file describes them now."""
    whole = (experiment.whole or experiment).overrides
    found = _read_if_whole(experiment.file, (*whole, *added))
    return [] if found is None else found.runs


def _read_if_whole(file: FilePath, overrides: tuple[str, ...] = ()) -> Experiment | None:
    """Read an experiment, or return None if these overrides alone do not make one."""
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
    unreadable: list[Problem] = []
    config = read(file, overrides, unreadable)
    admission = admit(config, file)
    problems = _check_keys(config) + _check_bases(config)
    target, found = _read_target(config)
    problems += found
    tuning, found = read_tuning(config)
    problems += found
    if tuning is None:
        runs, found = expand(config)
        problems += found
    else:
        first = tuning.candidates[0].point
        runs = [candidate.config for candidate in tuning.candidates if candidate.point == first]
    points = [] if problems else [_planned(run, config) for run in runs]
    claims, found = read_claims(config, points, recorded_metrics(config), lenient=bool(overrides))
    problems += found
    baseline, found = _read_baseline(config, [] if problems else runs, lenient=bool(overrides))
    problems += found
    looks, found = _read_looks(config, [] if problems else runs, lenient=bool(overrides))
    problems += found
    units = {claim.unit for claim in claims if claim.unit is not None}
    if units and len(looks) > 1:
        message = (
            f"'looks' count seeds, and a claim's unit is {min(units)}, of which every look would "
            "see all; remove 'looks' or the claim's unit"
        )
        problems.append(Problem(config.mark_at(("looks",)), message))
    problems += check_drawn(config, claims, tuning)
    engine, found = read_engine(config)
    problems += found
    unread = {problem.mark for problem in unreadable}
    # The parser puts a stand-in where a value cannot be read; complaints about it would mislead.
    problems = admission.told(unreadable + [p for p in problems if p.mark not in unread])
    if problems:
        raise ConfigError(problems, admission.folders())
    return Experiment(
        file=file,
        overrides=overrides,
        name=config.value.get("name", as_text(file.stem)),
        question=config.value.get("question"),
        target=target,
        runs=runs,
        claims=claims,
        tuning=tuning,
        tied=is_tied(config),
        sweep=config.value.get("sweep"),
        baseline=baseline,
        looks=looks,
        engine=engine,
    )


def _check_keys(config: Node) -> list[Problem]:
    """Return the mistakes in the keys of the config, and in the values that must be text."""
    problems = []
    for key, node in config.content.items():
        value = node.value
        if key not in (*TOP_LEVEL, *RATE):  # an override may give the bare rate
            shown = f"'{key}'" if isinstance(key, str) else show(key)
            message = f"an experiment has no key {shown}; {_nearest_key(str(key), node.key_mark)}"
            problems.append(Problem(node.key_mark, message))
        elif key in WORDS and not isinstance(value, str):
            problems.append(Problem(node.mark, f"'{key}' must be text, found {show(value)}"))
        elif key == "name" and not FOLDER_NAME.fullmatch(without_marks(value)):
            message = (
                "'name' names a folder: at most 100 letters, digits, spaces and any of _.=+-, "
                f"beginning with a letter or digit, found {show(value)}"
            )
            problems.append(Problem(node.mark, message))
    return problems


def _nearest_key(key: str, mark: Mark) -> str:
    """Suggest the key that was likely meant by an unknown one."""
    place = elsewhere(key)
    if place is None or meant(key, TOP_LEVEL):
        return did_you_mean(key, TOP_LEVEL)
    if mark.override is not None:
        return f"did you mean '{place[0]}'?"
    return f"did you mean '{place[0]}' in '{place[1]}'?"


def _check_bases(config: Node) -> list[Problem]:
    """Complain of a section that no run has because the sweep replaces it.

    Its writer expects it to count. Only a section in the same file as the sweep is a mistake.
    """
    problems = []
    sweep = config.get("sweep") or Node(None, config.mark)
    rates = RATE if sweep.get(RATE[0]) is not None else ()  # the sweep puts the rate into every arm
    for name in CALLS:
        base, axis = config.get(name), sweep.get(name)
        if base is None or axis is None or not isinstance(base.content, dict):
            continue
        swept = axis.value.values() if isinstance(axis.content, dict) else axis.value
        if not isinstance(swept, Iterable) or isinstance(swept, str):
            continue
        arms = [spelt_out(name, one) for one in swept]
        said = base.without(*rates).value
        used = any(isinstance(arm, dict) and _says(arm, said) for arm in arms)
        written = (base.mark.source, base.mark.override, axis.mark.override)
        if used or written != (axis.mark.source, None, None):
            continue
        message = (
            f"no run has this '{name}', because the sweep puts others in its place: delete it, or "
            f"write it, or those of its keys that are to hold, in the sweep's '{name}'"
        )
        problems.append(Problem(base.key_mark, message))
    return problems


def _says(arm: dict[str, Any], base: dict[str, Any]) -> bool:
    """Return whether an arm has every key and value of the base."""
    return all(key in arm and arm[key] == value for key, value in base.items())


def _read_baseline(config: Node, runs: list[RunConfig], lenient: bool) -> Checked[str | None]:
    """Read the baseline: the name of an arm, or its label on one axis."""
    given = config.get("baseline")
    if given is None or given.content is None:
        return None, []
    wanted = as_label(given.value) if isinstance(given.content, str | int | float) else None
    if wanted is None:
        message = f"'baseline' must be the name of an arm, found {show(given.value)}"
        return None, [Problem(given.mark, message)]
    arms = dict.fromkeys(run.arm for run in runs)
    labels = {str(label) for run in runs for label in run.labels.values()}
    lenient = lenient and given.mark.override is None  # overrides may leave the file's arm out
    if runs and not lenient and wanted not in arms and wanted not in labels:
        message = f"'baseline' must be the name of an arm: none is '{wanted}'; "
        return None, [Problem(given.mark, message + did_you_mean(wanted, [*arms, *labels]))]
    return wanted, []


def _read_looks(config: Node, runs: list[RunConfig], lenient: bool) -> Checked[tuple[int, ...]]:
    """Read the looks; the last one is at all seeds, unless a command makes a part of them."""
    given = config.get("looks")
    if given is None or given.content is None:
        return (), []
    looks = given.value
    whole = isinstance(looks, list) and all(type(look) is int for look in looks)
    if not whole or not looks or looks[0] < 2 or sorted(set(looks)) != looks:
        message = (
            "'looks' must be rising numbers of seeds, each at least 2, as in [5, 10, 20], "
            f"found {show(looks)}"
        )
        return (), [Problem(given.mark, message)]
    seeds, crossed = len(seeds_of(runs)), shared(seeds_of(runs))
    if crossed and len(looks) > 1:
        message = (
            "a look counts independent repetitions, and here the streams "
            f"{' and '.join(crossed)} are crossed, so runs share them: take 'looks' out, or let "
            "one stream vary"
        )
        return (), [Problem(given.mark, message)]
    if runs and not lenient and looks[-1] != seeds:
        message = f"the last of 'looks' must be the number of seeds, {seeds}, found {looks[-1]}"
        return (), [Problem(given.mark, message)]
    return tuple(looks), []


def seeds_of(runs: Iterable[RunConfig]) -> list[int]:
    """List the seeds of some runs, each once, in their order."""
    return list(dict.fromkeys(run.seed for run in runs))


def _read_target(config: Node) -> Checked[Target | None]:
    given = config.get("target")
    if given is None:
        return None, []
    checked, problems = check_section(given, "target", TARGET)
    return None if checked is None else Target(**checked), problems


def _planned(run: RunConfig, config: Node) -> PlannedRun:
    """Return a run as the claims see it; what it records is traced only if there are claims."""
    claims = config.get("claims")
    if claims is None or not claims.value:
        return PlannedRun(run.arm, run.seed, run.labels)
    seen = look_inside(run.sections), look_ahead(run.sections)
    return PlannedRun(run.arm, run.seed, run.labels, *seen)
