"""Reads a config with its parents (`extends:`) and its overrides (`a.b=c`) as one tree."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from normlab.configs.document import ConfigError, Mark, Node, Path, Problem, named, parse, show
from normlab.configs.invisible import without_invisible
from normlab.configs.learning_rate import RATE, rate_place
from normlab.configs.sections import CALLS, FORMS, SECTIONS, TOP_LEVEL
from normlab.errors import UserError
from normlab.training.recipe import Recipe

MOST_BYTES = 1_000_000
"""The greatest size of a config's file; a longer one takes minutes and gigabytes to parse."""


@dataclass(frozen=True)
class Fixed:
    """Stands in the sweep in place of an axis that an override has fixed.

    It is kept because the rules of `exclude` may still speak of the axis.

    Attributes:
        value: the value that the axis is fixed to.
        values: the values that it had in the sweep.
    """

    value: Any
    values: Any


def read(
    file: FilePath, overrides: tuple[str, ...] = (), problems: list[Problem] | None = None
) -> Node:
    """Read a config, its parent's keys and the overrides merged in.

    Args:
        file: a YAML file.
        overrides: words `key=value`. The value is YAML, and the key is dotted (`norm.groups=4`).
            Keys of the `train` section may leave out `train.` (`seed=3`). `learning_rate` is that
            of the optimiser or the schedule. An override of an axis of the sweep takes that axis
            out of the sweep.
        problems: a list that gets mistakes after which the rest can still be read; None to raise
            them too.

    Raises:
        UserError: there is no such file, or it cannot be read.
        ConfigError: the file or an override cannot be parsed or merged.
    """
    reading = _Reading([])
    config = reading.whole(file, ())
    for override in overrides:
        config = reading.override(config, override)
    # All overrides are laid into the config before the sweep is changed, so that their order does
    # not matter.
    for path, mark in reading.given.items():
        config = reading.meet_sweep(config, path, mark)
    place = rate_place(config) if RATE in reading.given else None
    if place in reading.given:
        message = f"'learning_rate' sets '{'.'.join(map(str, place))}' too; keep one"
        reading.complain(reading.given[place], message)
    if problems is None and reading.problems:
        raise ConfigError(reading.problems)
    if problems is not None:
        problems += reading.problems
    return config


def full_path(dotted: str) -> Path:
    """Return the path that a dotted key means; a key of `train` needs no `train.`.

    A bare `learning_rate` stays as it is until `settle_rate` knows the schedule.

    >>> full_path("norm.groups"), full_path("seed"), full_path("learning_rate")
    (('norm', 'groups'), ('train', 'seed'), ('learning_rate',))
    """
    path = tuple(dotted.split("."))
    of_train = path[0] not in TOP_LEVEL and path[0] in Recipe.__dataclass_fields__
    if of_train and (len(path) == 1 or path[0] == "seed"):  # a seed may have streams below it
        return ("train", *path)
    return path


def spell_out_names(config: Node) -> Node:
    """Write `norm: batch_norm` as `norm: {name: batch_norm}`, and so for every named call."""
    for section in CALLS:
        call = config.get(section)
        if call is not None and named(call) is not call:
            config = config.put((section,), named(call))
    return config


def obstacle(config: Node, path: Path) -> str | None:
    """Return a message if a value on the way to `path` is no mapping, or else None."""
    node = config
    for depth, key in enumerate(path):
        if not isinstance(node.content, dict):
            return f"'{'.'.join(map(str, path[:depth]))}' has no keys below it"
        below = node.get(key)
        if below is None:
            return None
        node = below
    return None


class _Reading:
    """Reads one config, and notes its mistakes and the paths that overrides give."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.given: dict[Path, Mark] = {}  # the paths that overrides give

    def complain(self, mark: Mark, message: str) -> None:
        self.problems.append(Problem(mark, message))

    def whole(self, file: FilePath, children: tuple[FilePath, ...]) -> Node:
        """Read a file and lay it over the file that it extends."""
        config = self.file(file)
        extends = config.get("extends")
        if extends is None:
            return config
        given = extends.content
        if not isinstance(given, str) or not given:
            message = f"'extends' must be the name of one file, found {show(extends.value)}"
            raise ConfigError([Problem(extends.mark, message)])
        parent = file.parent / given
        if not {parent.suffix, parent.resolve().suffix} <= {".yaml", ".yml"}:
            message = f"'extends' names a config, which ends in .yaml, found {show(given)}"
            raise ConfigError([Problem(extends.mark, message)])
        if not _is_file(parent):
            message = f"there is no file {parent} to extend{_neighbours(parent)}"
            raise ConfigError([Problem(extends.mark, message)])
        family = (*children, file.resolve())
        if parent.resolve() in family:
            chain = " -> ".join(member.name for member in (*family, parent))
            message = f"'extends' goes round in a circle: {chain}"
            raise ConfigError([Problem(extends.mark, message)])
        return self.merge(self.whole(parent, family), config)

    def file(self, file: FilePath) -> Node:
        config, hidden = without_invisible(parse(_text(file), str(file), self.problems))
        self.problems += hidden
        if not isinstance(config.content, dict):
            message = (
                "an experiment is a mapping with keys such as data, model, norm, optimizer, train"
            )
            raise ConfigError([Problem(config.mark, message)])
        if config.get(RATE[0]) is not None:
            message = (
                "an experiment has no key 'learning_rate'; write it in 'optimizer', or in "
                "'schedule' as the argument that holds it"
            )
            self.complain(config.key_mark_at(RATE), message)
            config = config.without(*RATE)
        return spell_out_names(config)

    def merge(self, parent: Node, child: Node) -> Node:
        """Lay the child's keys over the parent's.

        A section replaces the parent's if it names another call. The child's keys are taken out of
        the parent's sweep, as overrides on the command line are.
        """
        given: dict[Path, Mark] = {}
        merged = parent
        for key, own in child.content.items():
            old = parent.get(key)
            mergeable = key in (*SECTIONS, "target", "sweep")
            same = mergeable and old is not None and _same_call(old.value, own.value)
            for path in [(key, inner) for inner in own.content] if same else [(key,)]:
                given[path] = child.key_mark_at(path)
                merged = merged.put(path, child.at(path))
        own_axes = child.get("sweep")  # the child's own axes stay whole
        kept = own_axes.content if own_axes and isinstance(own_axes.content, dict) else ()
        for path, mark in given.items():
            merged = self.meet_sweep(merged, path, mark, kept)
        return merged

    def override(self, config: Node, text: str) -> Node:
        mark = Mark.of_override(text)
        dotted, equals, value = text.partition("=")
        named_key, hidden = without_invisible(Node(dotted, mark))
        path = full_path(named_key.content.strip())
        if not equals or not all(path):
            self.complain(mark, "an override is key=value, as in train.epochs=5")
            return config
        if path[0] == "extends":
            self.complain(mark, "'extends' holds in a file only")
            return config
        try:
            parsed, also_hidden = without_invisible(parse(value, str(mark)))
        except ConfigError as error:
            self.problems += [Problem(mark, problem.message) for problem in error.problems]
            return config
        self.problems += [Problem(mark, one.message) for one in (*hidden, *also_hidden)]
        message = obstacle(config, path)
        if message is not None:
            self.complain(mark, message)
            return config
        self.given[path] = mark
        return spell_out_names(config.put(path, parsed.marked(mark)))

    def meet_sweep(self, config: Node, path: Path, mark: Mark, own: Collection[str] = ()) -> Node:
        """Take an overridden axis out of the sweep; refuse an override that the sweep would undo.

        Args:
            config: the config, with the override already in it.
            path: the path that was overridden.
            mark: the place of the override.
            own: keys of the sweep that come from the same file as the override, and so stay.
        """
        sweep = config.get("sweep")
        if sweep is None or not isinstance(sweep.content, dict):
            return config
        for form, axis in _axes_of(sweep.value):
            swept = full_path(str(axis))
            same = swept == path or _settled(config, swept) == _settled(config, path)
            below = path[: len(swept)] == swept
            if (form or axis) in own or not (same or below):
                continue
            if form is not None:
                fix = f"take it out too (sweep.{form}=null), or all of the sweep (sweep=null)"
                message = f"the sweep's '{form}' sets '{axis}' together with others; {fix}"
                self.complain(mark, message)
                return config
            values = sweep.value[axis]
            if same:
                before = values.values if isinstance(values, Fixed) else values
                fixed = Node(Fixed(config.at(path).value, before), mark)
                config = config.put(("sweep", axis), fixed)
            elif not isinstance(values, Fixed):
                fix = f"give all of '{axis}', or another axis '{axis}' under 'sweep'"
                message = f"the sweep replaces all of '{axis}', so this would be lost; {fix}"
                self.complain(mark, message)
                return config
        return config


def _text(file: FilePath) -> str:
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise UserError(f"{file}: cannot be read: it is no file")
        if file.exists() and file.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{file}: it has {file.stat().st_size:,} bytes, and a config at most {MOST_BYTES:,}"
            )
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file{_neighbours(file)}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        message = f"this is not UTF-8 text ({error.reason}): save it as UTF-8"
        raise ConfigError([Problem(Mark(str(file), line, 1), message)]) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None


def _same_call(old: Any, own: Any) -> bool:
    """Return whether two sections are mappings, and the second does not name another call."""
    if not isinstance(old, dict) or not isinstance(own, dict):
        return False
    return own.get("name", old.get("name")) == old.get("name")


def _is_file(file: FilePath) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is too long
        return False


def _neighbours(file: FilePath) -> str:
    beside = sorted(path.name for path in file.parent.glob("*.y*ml"))
    return f"; in {file.parent} there are {', '.join(beside)}" if beside else ""


def _axes_of(sweep: dict[Any, Any]) -> Iterator[tuple[str | None, Any]]:
    """Yield every axis, with the form that ties it to others (None for an axis of the grid)."""
    for key, given in sweep.items():
        if key not in FORMS:
            yield None, key
        elif key != "exclude":
            labelled = key == "list" and isinstance(given, dict)
            groups = list(given.values()) if labelled else given
            for group in groups if isinstance(groups, list) else [groups]:
                yield from ((key, axis) for axis in (group if isinstance(group, dict) else ()))


def _settled(config: Node, path: Path) -> Path | None:
    return rate_place(config) if path == RATE else path
