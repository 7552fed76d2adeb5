"""From a file and its overrides to one document: `extends:`, and `a.b=c` from the command line."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from normlab.configs.document import (
    ConfigError,
    Document,
    Mark,
    Path,
    Problem,
    parse,
)
from normlab.configs.learning_rate import RATE, rate_place
from normlab.configs.sections import CALLS, SETTINGS, TOP_LEVEL
from normlab.configs.signatures import show
from normlab.errors import UserError
from normlab.training.recipe import Recipe

COMMAND_LINE = "command line"

FORMS = ("zip", "list", "exclude")
"""The keys of the sweep that are not axes."""


@dataclass(frozen=True)
class Fixed:
    """In place of an axis's values in the sweep: an override has taken the axis out of it.

    What the sweep excludes may still speak of the axis, so it is not forgotten.

    Attributes:
        value: what it is fixed to.
        values: what it was to be.
    """

    value: Any
    values: Any


def read(file: FilePath, overrides: tuple[str, ...] = ()) -> Document:
    """The document of a config, its parent's keys and the overrides merged in.

    Args:
        file: a YAML file.
        overrides: `key=value` each; the value is YAML, the key dotted (`norm.groups=4`). A bare
            key of the `train` section may leave `train.` out (`seed=3`), and `learning_rate` is
            that of the optimiser or the schedule. An override of an axis of the sweep takes that
            axis out of the sweep.

    Raises:
        UserError: there is no such file, or it cannot be read.
        ConfigError: what it says cannot be parsed or merged. What can be read in spite of a
            mistake is returned, with the mistake among the document's `problems`.
    """
    document = _read_with_parents(file, ())
    given: dict[Path, Mark] = {}
    for override in overrides:
        document.problems += _override(document, override, given)
    # All are laid before any meets the sweep, so that their order does not matter.
    for path, mark in given.items():
        document.problems += _meet_sweep(document, path, mark)
    place = rate_place(document) if RATE in given else None
    if place in given:
        message = f"'learning_rate' sets '{'.'.join(map(str, place))}' too; keep one"
        document.problems.append(Problem(given[place], message))
    return document


def full_path(dotted: str) -> Path:
    """The path that a dotted key means; a bare key of `train` needs no `train.`.

    A bare `learning_rate` stays so until `settle_rate` knows the schedule.

    >>> full_path("norm.groups"), full_path("seed"), full_path("learning_rate")
    (('norm', 'groups'), ('train', 'seed'), ('learning_rate',))
    """
    path = tuple(dotted.split("."))
    if len(path) == 1 and path[0] not in TOP_LEVEL and path[0] in Recipe.__dataclass_fields__:
        return ("train", *path)
    return path


def spell_out_names(document: Document) -> None:
    """Write `norm: batch_norm` as `norm: {name: batch_norm}`, and so for every named call."""
    for section in CALLS:
        value = document.value.get(section)
        if isinstance(value, str):
            mark = document.mark((section,))
            named = Document(document.source, {"name": value}, {(): mark, ("name",): mark})
            named.key_marks[()] = document.key_mark((section,))
            document.replace((section,), named)


def _read_with_parents(file: FilePath, children: tuple[FilePath, ...]) -> Document:
    document = _read_file(file)
    if "extends" not in document.value:
        return document
    mark = document.mark(("extends",))
    given = document.value["extends"]
    if not isinstance(given, str) or not given:
        message = f"'extends' must be the name of one file, found {show(given)}"
        raise ConfigError([Problem(mark, message)])
    parent_file = file.parent / given
    if not _is_file(parent_file):
        message = f"there is no file {parent_file} to extend{_neighbours(parent_file)}"
        raise ConfigError([Problem(mark, message)])
    family = (*children, file.resolve())
    if parent_file.resolve() in family:
        chain = " -> ".join(member.name for member in (*family, parent_file))
        raise ConfigError([Problem(mark, f"'extends' goes round in a circle: {chain}")])
    parent = _read_with_parents(parent_file, family)
    parent.problems += [*document.problems, *_merge(parent, document)]
    return parent


def _read_file(file: FilePath) -> Document:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file{_neighbours(file)}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        message = f"this is not UTF-8 text ({error.reason}): save it as UTF-8"
        raise ConfigError([Problem(Mark(str(file), line, 1), message)]) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    document = parse(text, str(file))
    if not isinstance(document.value, dict):
        message = "an experiment is a mapping with keys such as data, model, norm, optimizer, train"
        raise ConfigError([Problem(document.mark(()), message)])
    if RATE[0] in document.value:
        message = (
            "an experiment has no key 'learning_rate'; write it in 'optimizer', or in 'schedule' "
            "as the argument that holds it"
        )
        document.problems.append(Problem(document.key_mark(RATE), message))
        del document.value[RATE[0]]
    spell_out_names(document)
    return document


def _is_file(file: FilePath) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is too long
        return False


def _neighbours(file: FilePath) -> str:
    beside = sorted(path.name for path in file.parent.glob("*.y*ml"))
    return f"; in {file.parent} there are {', '.join(beside)}" if beside else ""


def _merge(parent: Document, child: Document) -> list[Problem]:
    """Lay the child's keys over the parent's; a section that names another call replaces it.

    As on the command line, what the child gives is taken out of the parent's sweep.
    """
    given: dict[Path, Mark] = {}
    for key, value in child.value.items():
        old = parent.value.get(key)
        mergeable = key in (*CALLS, *SETTINGS, "probes", "sweep")
        both = mergeable and isinstance(old, dict) and isinstance(value, dict)
        merged = both and value.get("name", old.get("name")) == old.get("name")
        for path in [(key, inner) for inner in value] if merged else [(key,)]:
            given[path] = child.key_mark(path)
            parent.replace(path, child.part(path))
    parent.source = child.source
    own = child.value.get("sweep")  # stays whole
    own = own if isinstance(own, dict) else {}
    return [
        problem for path, mark in given.items() for problem in _meet_sweep(parent, path, mark, own)
    ]


def obstacle(document: Document, path: Path) -> str | None:
    """What to say if a value on the way to `path` is no mapping."""
    value = document.value
    for depth, key in enumerate(path):
        if not isinstance(value, dict):
            return f"'{'.'.join(map(str, path[:depth]))}' has no keys below it"
        if key not in value:
            return None
        value = value[key]
    return None


def _override(document: Document, text: str, given: dict[Path, Mark]) -> list[Problem]:
    mark = Mark(f"{COMMAND_LINE} '{text}'")
    dotted, equals, value = text.partition("=")
    path = full_path(dotted.strip())
    if not equals or not all(path):
        return [Problem(mark, "an override is key=value, as in train.epochs=5")]
    if path[0] == "extends":
        return [Problem(mark, "'extends' holds in a file only")]
    try:
        parsed = parse(value, str(mark))
    except ConfigError as error:
        return [Problem(mark, problem.message) for problem in error.problems]
    if parsed.problems:
        return [Problem(mark, problem.message) for problem in parsed.problems]
    parsed.marks = dict.fromkeys(parsed.marks or {(): mark}, mark)
    parsed.key_marks = dict.fromkeys([*parsed.key_marks, ()], mark)

    message = obstacle(document, path)
    if message is not None:
        return [Problem(mark, message)]
    document.replace(path, parsed)
    for depth in range(1, len(path)):  # keys on the way that the file does not have
        document.marks.setdefault(path[:depth], mark)
        document.key_marks.setdefault(path[:depth], mark)
    spell_out_names(document)
    given[path] = mark
    return []


def _meet_sweep(
    document: Document, path: Path, mark: Mark, own: Collection[str] = ()
) -> list[Problem]:
    """Take an overridden axis out of the sweep; refuse an override that the sweep would undo.

    Args:
        document: the override is laid into it.
        path: what was overridden.
        mark: the place of the override.
        own: keys of the sweep that are not older than the override.
    """
    sweep = document.value.get("sweep")
    if not isinstance(sweep, dict):
        return []
    for form, axis in _axes_of(sweep):
        swept = full_path(str(axis))
        same = swept == path or _settled(document, swept) == _settled(document, path)
        below = path[: len(swept)] == swept
        if (form or axis) in own or not (same or below):
            continue
        if form is not None:
            fix = f"take it out too (sweep.{form}=null), or all of the sweep (sweep=null)"
            message = f"the sweep's '{form}' sets '{axis}' together with others; {fix}"
            return [Problem(mark, message)]
        values = sweep[axis]
        if same:
            before = values.values if isinstance(values, Fixed) else values
            sweep[axis] = Fixed(document.part(path).value, before)
        elif not isinstance(values, Fixed):
            fix = f"give all of '{axis}', or another axis '{axis}' under 'sweep'"
            message = f"the sweep replaces all of '{axis}', so this would be lost; {fix}"
            return [Problem(mark, message)]
    return []


def _axes_of(sweep: dict[Any, Any]) -> Iterator[tuple[str | None, Any]]:
    """Every axis, with the form that ties it to others (None for an axis of the grid)."""
    for key, given in sweep.items():
        if key not in FORMS:
            yield None, key
        elif key != "exclude":
            labelled = key == "list" and isinstance(given, dict)
            groups = list(given.values()) if labelled else given
            for group in groups if isinstance(groups, list) else [groups]:
                yield from ((key, axis) for axis in (group if isinstance(group, dict) else ()))


def _settled(document: Document, path: Path) -> Path | None:
    return rate_place(document) if path == RATE else path
