"""From a file and its overrides to one document: `extends:`, and `a.b=c` from the command line."""

from pathlib import Path as FilePath

from normlab.errors import UserError
from normlab.runs.schema import CALLS, SETTINGS, TOP_LEVEL
from normlab.runs.yaml_source import (
    ConfigError,
    Document,
    Mark,
    Path,
    Problem,
    parse,
)
from normlab.training.recipe import Recipe

COMMAND_LINE = "command line"


def read(file: FilePath, overrides: tuple[str, ...] = ()) -> Document:
    """The document of a config, its parent's keys and the overrides merged in.

    Args:
        file: a YAML file.
        overrides: `key=value` each; the value is YAML, the key dotted (`norm.groups=4`). A bare
            key of the `train` section may leave `train.` out (`seed=3`). An override of an axis
            of the sweep takes that axis out of the sweep.

    Raises:
        UserError: there is no such file, or it cannot be read.
        ConfigError: what it says cannot be parsed or merged. What can be read in spite of a
            mistake is returned, with the mistake among the document's `problems`.
    """
    document = _read_with_parents(file, ())
    for override in overrides:
        document.problems += _override(document, override)
    return document


def full_path(dotted: str) -> Path:
    """The path that a dotted key means; a bare key of `train` needs no `train.`.

    >>> full_path("norm.groups"), full_path("seed")
    (('norm', 'groups'), ('train', 'seed'))
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
    if not isinstance(given, str):
        raise ConfigError([Problem(mark, "'extends' must be the name of one file, as text")])
    parent_file = file.parent / given
    family = (*children, file.resolve())
    if parent_file.resolve() in family:
        chain = " -> ".join(member.name for member in (*family, parent_file))
        raise ConfigError([Problem(mark, f"'extends' goes round in a circle: {chain}")])
    if not parent_file.is_file():
        raise ConfigError([Problem(mark, f"there is no file {parent_file} to extend")])
    parent = _read_with_parents(parent_file, family)
    _merge(parent, document)
    parent.problems += document.problems
    return parent


def _read_file(file: FilePath) -> Document:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = sorted(path.name for path in file.parent.glob("*.y*ml"))
        there = f"; in {file.parent} there are {', '.join(beside)}" if beside else ""
        raise UserError(f"{file}: there is no such file{there}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as text: {error}") from None
    document = parse(text, str(file))
    if not isinstance(document.value, dict):
        message = "an experiment is a mapping with keys such as data, model, norm, optimizer, train"
        raise ConfigError([Problem(document.mark(()), message)])
    spell_out_names(document)
    return document


def _merge(parent: Document, child: Document) -> None:
    """Lay the child's keys over the parent's; a section that names another call replaces it."""
    for key, value in child.value.items():
        old = parent.value.get(key)
        mergeable = key in (*CALLS, *SETTINGS, "sweep")
        both = mergeable and isinstance(old, dict) and isinstance(value, dict)
        if both and value.get("name", old.get("name")) == old.get("name"):
            for inner in value:
                parent.replace((key, inner), child.part((key, inner)))
        else:
            parent.replace((key,), child.part((key,)))
    parent.source = child.source


def _override(document: Document, text: str) -> list[Problem]:
    mark = Mark(f"{COMMAND_LINE} '{text}'")
    dotted, equals, value = text.partition("=")
    path = full_path(dotted.strip())
    if not equals or not all(path):
        return [Problem(mark, "an override is key=value, as in train.epochs=5")]
    try:
        parsed = parse(value, str(mark))
    except ConfigError as error:
        return [Problem(mark, problem.message) for problem in error.problems]
    if parsed.problems:
        return [Problem(mark, problem.message) for problem in parsed.problems]
    parsed.marks = dict.fromkeys(parsed.marks or {(): mark}, mark)
    parsed.key_marks = dict.fromkeys([*parsed.key_marks, ()], mark)

    problems = _meet_sweep(document, path, mark)
    if problems:
        return problems
    for depth in range(1, len(path)):
        around = document.part(path[:depth]).value if _has(document, path[:depth]) else {}
        if not isinstance(around, dict):
            outer = ".".join(map(str, path[:depth]))
            return [Problem(mark, f"'{outer}' has no keys below it to override")]
    document.replace(path, parsed)
    for depth in range(1, len(path)):  # keys on the way that the file does not have
        document.marks.setdefault(path[:depth], mark)
        document.key_marks.setdefault(path[:depth], mark)
    spell_out_names(document)
    return []


def _meet_sweep(document: Document, path: Path, mark: Mark) -> list[Problem]:
    """Take an overridden axis out of the sweep; refuse an override that the sweep would undo."""
    sweep = document.value.get("sweep")
    if not isinstance(sweep, dict):
        return []
    for axis in list(sweep):
        swept = full_path(str(axis))
        if swept == path:
            del sweep[axis]
        elif path[: len(swept)] == swept:
            fix = f"'{axis}=...' with all its keys, or 'sweep.{axis}=[...]'"
            message = f"the sweep replaces all of '{axis}', so this would be lost; give {fix}"
            return [Problem(mark, message)]
    return []


def _has(document: Document, path: Path) -> bool:
    value = document.value
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
