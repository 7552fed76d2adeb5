"""From one document to all its runs: every combination of the values of the sweep's axes."""

import copy
import itertools
import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from normlab.errors import did_you_mean
from normlab.runs.config import RunConfig, resolve
from normlab.runs.schema import CALLS, RANGE, Target, show
from normlab.runs.source import full_path, obstacle, read, spell_out_names
from normlab.runs.yaml_source import ConfigError, Document, Problem, flow
from normlab.training.recipe import Recipe

SWEPT = (*CALLS, "train", "decay")
"""The sections that an axis can lie in."""

MOST_RUNS = 10_000
"""More than this is a slip of the finger in a range, and listing them would take minutes."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """A config file, resolved: all its runs, in the order in which they are made.

    Attributes:
        file: where it was read from.
        overrides: what was changed on the command line.
        name: the folder its runs lie in.
        question: what it asks, or None.
        target: the accuracy to count steps to, or None.
        runs: at least one.
    """

    file: FilePath
    overrides: tuple[str, ...]
    name: str
    question: str | None
    target: Target | None
    runs: list[RunConfig]

    def command(self, run: RunConfig) -> str:
        """The command that makes this one run alone."""
        fixed = [f"{axis}={_flow(value)}" for axis, value in run.axes.items()]
        return shlex.join(["normlab", "run", str(self.file), *self.overrides, *fixed])


def load_experiment(file: FilePath, overrides: tuple[str, ...] = ()) -> Experiment:
    """Read, check and expand a config.

    Raises:
        UserError: there is no such file.
        ConfigError: everything that is wrong with it, each at its place.
    """
    document = read(file, overrides)
    axes, problems = _axes(document)
    count = math.prod(map(len, axes.values()))
    if count > MOST_RUNS:
        message = f"the sweep has more than {MOST_RUNS} runs; split it into several files"
        problems.append(Problem(document.mark(("sweep",)), message))
        raise ConfigError([*document.problems, *problems])
    sweepless = copy.deepcopy(document)
    sweepless.value.pop("sweep", None)
    runs: list[RunConfig] = []
    for values in itertools.product(*axes.values()):
        variant = copy.deepcopy(sweepless)
        for axis, value in zip(axes, values, strict=True):
            variant.replace(full_path(axis), value)
        spell_out_names(variant)
        given = {axis: variant.part(full_path(axis)).value for axis in axes}
        run, found = resolve(variant, copy.deepcopy(given))
        problems += found
        runs += [run] if run is not None else []
    problems += _repeated(runs, document)
    unread = {problem.mark for problem in document.problems}
    # What stands in for a value that could not be read is not judged in its turn.
    problems = document.problems + [one for one in problems if one.mark not in unread]
    if problems:
        raise ConfigError(problems)
    target = document.value.get("target")
    return Experiment(
        file=file,
        overrides=overrides,
        name=document.value.get("name", file.stem),
        question=document.value.get("question"),
        target=Target(**target) if target else None,
        runs=runs,
    )


def _axes(document: Document) -> tuple[dict[str, list[Document]], list[Problem]]:
    sweep = document.value.get("sweep", {})
    if not isinstance(sweep, dict):
        message = f"'sweep' must be a mapping of axes to lists of values, found {show(sweep)}"
        return {}, [Problem(document.mark(("sweep",)), message)]
    axes, problems = {}, []
    for axis, values in sweep.items():
        path = ("sweep", axis)
        meant = full_path(str(axis))
        if meant[0] not in SWEPT or not all(meant):
            hint = did_you_mean(str(axis), [*SWEPT, *Recipe.__dataclass_fields__])
            message = f"nothing is called '{axis}' that could be swept; {hint}"
            problems.append(Problem(document.key_mark(path), message))
            continue
        message = obstacle(document, meant) or _clash(axis, axes)
        if message is not None:
            problems.append(Problem(document.key_mark(path), message))
            continue
        found = _values(document, axis, values)
        if not found:
            message = (
                f"the axis '{axis}' must be a list of values, or a range such as 0..4, "
                f"found {show(values)}"
            )
            problems.append(Problem(document.mark(path), message))
            continue
        axes[axis] = found
    return axes, problems


def _clash(axis: str, others: Iterable[str]) -> str | None:
    """What to say if an axis sets what another axis sets, or a part of it."""
    for other in others:
        shorter, longer = sorted((full_path(axis), full_path(other)), key=len)
        if longer[: len(shorter)] == shorter:
            return f"the axes '{other}' and '{axis}' would overwrite each other; keep one"
    return None


def _values(document: Document, axis: str, values: Any) -> list[Document]:
    path = ("sweep", axis)
    if isinstance(values, list):
        return [document.part((*path, index)) for index in range(len(values))]
    match = RANGE.fullmatch(values) if isinstance(values, str) else None
    if match is None:
        return []
    first, last = map(int, match.groups())
    last = min(last, first + MOST_RUNS)  # which is one too many, and is told so
    mark = document.mark(path)
    return [Document(document.source, n, {(): mark}) for n in range(first, last + 1)]


def _repeated(runs: list[RunConfig], document: Document) -> list[Problem]:
    seen: dict[str, RunConfig] = {}
    problems = []
    for run in runs:
        if run.hash in seen:
            message = f"two runs of the sweep are the same: '{run.arm}' with seed {run.seed}"
            problems.append(Problem(document.mark(("sweep",)), message))
        seen[run.hash] = run
    return problems


def _flow(value: Any) -> str:
    """A value as YAML in one line, for a command line."""
    if isinstance(value, dict) and list(value) == ["name"]:
        return value["name"]
    return flow(value)
