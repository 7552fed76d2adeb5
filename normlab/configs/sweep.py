"""Reads the section `sweep`: a grid of axes, axes that go together, listed points, and exclusions.

    sweep:
      norm: [batch_norm, {name: group_norm, groups: 8}]  # or {label: value, ...}
      seed: 0..4
      zip: {batch_size: [32, 128], learning_rate: [0.05, 0.2]}
      list: [{model.depth: 8, epochs: 9}, {model.depth: 20, epochs: 30}]  # or {label: point, ...}
      exclude: [{norm: batch_norm, batch_size: 32}]

Each of the first four is a factor with several alternatives, and the runs are the product of all
factors. A seed may be split into its streams, `seed: {init: 0..4, order: 0, augment: 0..4}`: every
combination is a run, and a stream that is not named has the number 0.
"""

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from normlab.configs.document import Node, Path, Problem, named, show
from normlab.configs.learning_rate import RATE
from normlab.configs.overrides import Fixed, full_path, obstacle
from normlab.configs.run_config import SEED_AXES, as_label, value_label
from normlab.configs.sections import CALLS, FORMS
from normlab.configs.seed_streams import (
    SEED_PATH,
    TOGETHER,
    cross,
    has_several,
    is_by_streams,
    numbers_of,
)
from normlab.errors import did_you_mean
from normlab.training.recipe import Recipe

SWEPT = (*CALLS, "train", "decay", "evaluate")
"""The sections that an axis can lie in."""

MOST_RUNS = 10_000
"""The greatest number of runs in a sweep. More are a slip in a range, and slow to list."""


@dataclass(frozen=True)
class Point:
    """Values of some axes of the sweep.

    Attributes:
        values: the value on each axis, in which a call is a mapping.
        names: the label of the value, for each axis that has labels in the config.
        words: the word in the arm's name for each axis, if the config chooses it.
    """

    values: dict[str, Node] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    def __or__(self, other: "Point") -> "Point":
        return Point(self.values | other.values, self.names | other.names, self.words | other.words)

    def has(self, axis: str, wanted: Any) -> bool:
        """Return whether its value on an axis is this one, or has this label."""
        value = self.values[axis].value
        return self.names.get(axis) == as_label(wanted) or value == spelt_out(axis, wanted)

    def label(self, axis: str) -> str:
        """Return its value on an axis in words for people."""
        return self.names.get(axis) or as_label(value_label(self.values[axis].value))


def spelt_out(axis: str, value: Any) -> Any:
    """Return a value of an axis; the name of a call becomes a mapping with that name.

    >>> spelt_out("norm", "identity"), spelt_out("model.activation", "identity")
    ({'name': 'identity'}, 'identity')
    """
    return {"name": value} if axis in CALLS and isinstance(value, str) else value


def read_axes(config: Node) -> tuple[list[list[Point]], list[str], list[Problem]]:
    """Return the factors of the sweep in order, all their axes, and every mistake in them."""
    reader = _Reader(config)
    return reader.factors(), list(reader.axes), reader.problems


def joined(parts: Iterable[Point]) -> Point:
    """Join points of different axes to one."""
    return functools.reduce(operator.or_, parts, Point())


class _Reader:
    """Reads the section, and notes the mistakes on the way."""

    def __init__(self, config: Node):
        self.config = config
        self.problems: list[Problem] = []
        self.axes: dict[str, Path] = {}  # each axis with the path of its key
        sweep = config.get("sweep")
        self.sweep: dict[Any, Node] = {}
        if sweep is not None and isinstance(sweep.content, dict):
            self.sweep = sweep.content
        elif sweep is not None and sweep.content is not None:
            found = show(sweep.value)
            message = f"'sweep' must be a mapping of axes to lists of values, found {found}"
            self.problems.append(Problem(sweep.mark, message))

    def factors(self) -> list[list[Point]]:
        found: list[list[Point]] = []
        for key, node in self.sweep.items():
            path, given = ("sweep", key), node.content
            if isinstance(given, Fixed) or (key in FORMS and given is None):
                continue
            if key == "zip":
                groups = range(len(given)) if isinstance(given, list) else [None]
                found += [self.zipped(path if i is None else (*path, i)) for i in groups]
            elif key == "list":
                found.append(self.listed(path))
            elif key != "exclude" and self.claims(path):
                axis = str(key)
                found.append([self.point(axis, *value) for value in self.values(path)])
        here = self.config.find(SEED_PATH)
        if here is not None and has_several(here.value) and not {*SEED_AXES} & {*self.axes}:
            self.axes["seed"] = SEED_PATH  # several seeds in `train` are an axis too
            found.append([self.point("seed", *value) for value in self.crossed(SEED_PATH)])
        return [factor for factor in found if factor]

    def claims(self, path: Path) -> bool:
        """Note the key at `path` as an axis, or complain if it is none or clashes with another."""
        axis = str(path[-1])
        meant = full_path(axis)
        if meant != SEED_PATH and meant[:2] == SEED_PATH:
            message = f"{TOGETHER}, as in seed: {{{meant[2]}: 0..4, order: 0}}"
        elif meant != RATE and (meant[0] not in SWEPT or not all(meant)):
            hint = did_you_mean(axis, [*SWEPT, *Recipe.__dataclass_fields__, *RATE, *FORMS])
            message = f"nothing is called '{axis}' that could be swept; {hint}"
        else:
            message = obstacle(self.config, meant) or self.clash(axis)
        if message is not None:
            self.problems.append(Problem(self.config.key_mark_at(path), message))
            return False
        self.axes[axis] = path
        return True

    def clash(self, axis: str) -> str | None:
        """Return a message if an axis sets a path that another axis sets too, or else None."""
        if axis in self.axes:
            first = self.config.key_mark_at(self.axes[axis])
            return f"the axis '{axis}' is given twice in the sweep, first at {first}; keep one"
        for other in self.axes:
            shorter, longer = sorted((full_path(axis), full_path(other)), key=len)
            if longer[: len(shorter)] == shorter:
                return f"the axes '{other}' and '{axis}' would overwrite each other; keep one"
        return None

    def values(self, path: Path) -> list[tuple[str | None, Node]]:
        """Return the values of the axis at `path`, each with its label, if it has one."""
        axis, given = path[-1], self.at(path)
        if axis in SEED_AXES and is_by_streams(given):
            return self.crossed(path)
        if isinstance(given, list) and given:
            return [(None, self.value((*path, i), path)) for i in range(len(given))]
        if isinstance(given, dict) and given and not (axis in CALLS and "name" in given):
            return [(self.label((*path, key)), self.value((*path, key), path)) for key in given]
        numbers = numbers_of(given, MOST_RUNS + 1)
        if numbers:
            return [(None, Node(number, self.config.mark_at(path))) for number in numbers]
        message = (
            f"the axis '{axis}' must be a list of values, or a range such as 0..4, "
            f"found {show(given)}"
        )
        if isinstance(given, dict) and given:
            message += "; one value needs brackets around it: [{...}]"
        self.complain(path, message)
        return []

    def crossed(self, path: Path) -> list[tuple[str | None, Node]]:
        seeds, problems = cross(self.config, path, MOST_RUNS + 1)  # `expand` complains of too many
        self.problems += problems
        return [(None, seed) for seed in seeds]

    def zipped(self, path: Path) -> list[Point]:
        """Return the points of axes that go together, value by value."""
        given = self.at(path)
        if not isinstance(given, dict) or not given:
            message = (
                "'zip' must be a mapping of axes to lists of values, or a list of such mappings, "
                f"found {show(given)}"
            )
            self.complain(path, message)
            return []
        columns = {str(a): self.values((*path, a)) for a in given if self.claims((*path, a))}
        columns = {axis: column for axis, column in columns.items() if column}
        if len({len(column) for column in columns.values()}) > 1:
            counts = ", ".join(f"'{axis}' has {len(column)}" for axis, column in columns.items())
            message = (
                "the axes of a 'zip' go together value by value, so each needs as many values as "
                f"the others: {counts}"
            )
            self.complain(path, message)
        return [
            joined(self.point(axis, *value) for axis, value in zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=False)
        ]

    def listed(self, path: Path) -> list[Point]:
        """Return the points that are written out in a list."""
        given = self.at(path)
        if not isinstance(given, list | dict) or not given:
            message = (
                "'list' must be a list of points, or a mapping of labels to points, "
                f"found {show(given)}"
            )
            self.complain(path, message)
            return []
        points: list[Point] = []
        first: list[Any] = []
        for key in given if isinstance(given, dict) else range(len(given)):
            here, point = (*path, key), given[key]
            if not isinstance(point, dict) or not point:
                message = (
                    "a point of 'list' must be a mapping of axes to values, as in "
                    f"{{norm: batch_norm, batch_size: 32}}, found {show(point)}"
                )
                self.complain(here, message)
                continue
            if not first:
                first = list(point)
                axes = [axis for axis in first if self.claims((*here, axis))]
            elif point.keys() != set(first):
                message = (
                    "the points of 'list' must all have the same axes: the first has "
                    f"{_words(first)}, this one {_words(point)}"
                )
                self.complain(here, message)
                continue
            words = {}
            if isinstance(given, dict):  # one label for all axes of the point
                words = {**dict.fromkeys(axes, ""), axes[0]: self.label(here)} if axes else {}
            points.append(Point({a: self.value((*here, a), (*here, a)) for a in axes}, {}, words))
        return points

    def at(self, path: Path) -> Any:
        return self.config.at(path).value

    def value(self, path: Path, axis: Path) -> Node:
        """Return the value at `path`, with the place of the key of its axis as that of its key.

        The name of a call becomes a mapping with that name.
        """
        node = self.config.at(path)
        node = named(node) if axis[-1] in CALLS else node
        return replace(node, own_key_mark=self.config.key_mark_at(axis))

    def point(self, axis: str, label: str | None, value: Node) -> Point:
        names = {} if label is None else {axis: label}
        return Point({axis: value}, names, names)

    def label(self, path: Path) -> str:
        label = as_label(path[-1])
        if not label.strip():
            self.problems.append(
                Problem(self.config.key_mark_at(path), "a label must not be empty")
            )
        return label

    def complain(self, path: Path, message: str) -> None:
        self.problems.append(Problem(self.config.mark_at(path), message))


def _words(axes: Iterable[Any]) -> str:
    return " and ".join(f"'{axis}'" for axis in axes)
