"""YAML as plain values, with the place in the file where each of them stands.

The dialect is YAML 1.2's core schema, not PyYAML's default 1.1: `1e-3` is a number, `no` is text,
`010` is ten. A key given twice is an error, and so are tags and merge keys.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from normlab.errors import UserError

Path = tuple[str | int, ...]
"""Where a value stands in a document: keys and list indices from the top."""


@dataclass(frozen=True)
class Mark:
    """A place in a file (line and column from 1), or a source without lines such as an argument."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.source
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, and what is found, allowed and likely meant."""

    mark: Mark
    message: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.message}"


class ConfigError(UserError):
    """Every mistake found in a config, each with its place."""

    def __init__(self, problems: list[Problem]):
        unique = dict.fromkeys(problems)
        order = sorted(unique, key=lambda p: (p.mark.source, p.mark.line or 0, p.mark.column or 0))
        self.problems = order
        super().__init__("\n".join(map(str, order)))


@dataclass
class Document:
    """A parsed file: its value, the marks of every value and every key in it, and its mistakes.

    `problems` are those that leave the rest readable, so that they can be told with the others.
    """

    source: str
    value: Any
    marks: dict[Path, Mark] = field(default_factory=dict)
    key_marks: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path) -> Mark:
        """The place of a value, or of the nearest thing around it that has one."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.marks:
                return self.marks[path[:end]]
        return Mark(self.source)

    def key_mark(self, path: Path) -> Mark:
        """The place of a key."""
        return self.key_marks.get(path, self.mark(path))

    def replace(self, path: Path, other: "Document") -> None:
        """Put the whole of `other` at `path`, with its marks; mappings on the way are made."""
        target = self.value
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = other.value
        for table, additions in ((self.marks, other.marks), (self.key_marks, other.key_marks)):
            for old in [known for known in table if known[: len(path)] == path]:
                del table[old]
            table.update({(*path, *inner): mark for inner, mark in additions.items()})

    def part(self, path: Path) -> "Document":
        """The document that stands at `path`."""
        value = self.value
        for key in path:
            value = value[key]

        def below(table: dict[Path, Mark]) -> dict[Path, Mark]:
            depth = len(path)
            return {inner[depth:]: mark for inner, mark in table.items() if inner[:depth] == path}

        return Document(self.source, value, below(self.marks), below(self.key_marks))


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's parser, resolving plain scalars by YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (PyYAML's own attribute)


_TAG = "tag:yaml.org,2002:"
_KINDS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
for _name, (_pattern, _first) in _KINDS.items():
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)

DEEPEST, MOST_VALUES, MOST_DIGITS = 20, 5_000, 40
"""No experiment comes near these, but a file that is none does, or aliases of aliases."""


def parse(text: str, source: str) -> Document:
    """Read one YAML document.

    A repeated key, a tag and the like are noted in the document's `problems`.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error, source)]) from None
    except RecursionError:
        raise ConfigError([Problem(Mark(source), _TOO_DEEP)]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Problem(Mark(source), f"this is not YAML: {error}")]) from None
    document = Document(source, None)
    if node is None:
        return document
    document.value = _construct(node, (), document, ())
    return document


_TOO_DEEP = f"lists and mappings lie in one another more than {DEEPEST} deep"
_SYNTAX_HINTS = {
    "\\t": "indent with spaces, not tabs",
    "cannot start any token": "a text that begins with it needs quotes",
    "mapping values are not allowed here": "a text with ': ' in it needs quotes",
}


def _syntax_problem(error: yaml.MarkedYAMLError, source: str) -> Problem:
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    place = Mark(source, mark.line + 1, mark.column + 1) if mark else Mark(source)
    message = f"this is not YAML: {error.problem}"
    hint = next((h for words, h in _SYNTAX_HINTS.items() if words in str(error.problem)), None)
    if hint:
        message += f"; {hint}"
    elif error.context:
        since = f" begun at {begun.line + 1}:{begun.column + 1}" if begun else ""
        message += f" ({error.context}{since})"
    return Problem(place, message)


def _construct(
    node: yaml.Node,
    path: Path,
    document: Document,
    parents: tuple[yaml.Node, ...],
) -> Any:
    mark = Mark(document.source, node.start_mark.line + 1, node.start_mark.column + 1)
    document.marks[path] = mark
    if any(node is parent for parent in parents):
        document.problems.append(Problem(mark, "this alias contains itself"))
        return None
    if len(parents) > DEEPEST:
        raise ConfigError([Problem(mark, _TOO_DEEP)])
    if len(document.marks) > MOST_VALUES:
        message = f"there are more than {MOST_VALUES} values, aliases written out"
        raise ConfigError([Problem(mark, message)])
    if isinstance(node, yaml.CollectionNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
        document.problems.append(_unsupported(node.tag, mark))
    below = (*parents, node)
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(item, (*path, index), document, below)
            for index, item in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node, mark, document)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key_mark = Mark(
            document.source, key_node.start_mark.line + 1, key_node.start_mark.column + 1
        )
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(
                Problem(key_mark, "a key must be a single word, not a list or mapping")
            )
            continue
        key = _scalar(key_node, key_mark, document)
        if key in mapping:
            first = document.key_marks[(*path, key)]
            document.problems.append(
                Problem(key_mark, f"'{key}' is given twice, first in line {first.line}; keep one")
            )
            continue
        document.key_marks[(*path, key)] = key_mark
        mapping[key] = _construct(value_node, (*path, key), document, below)
    return mapping


def _scalar(node: yaml.Node, mark: Mark, document: Document) -> Any:
    text, kind = node.value, node.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    if kind not in _KINDS or not re.fullmatch(_KINDS[kind][0], text):  # `!mine 3`, `!!int abc`
        document.problems.append(_unsupported(node.tag, mark))
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int" and len(text) <= MOST_DIGITS:
        return int(text, 16) if text.startswith("0x") else int(text)
    if kind == "float":
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if math.isfinite(number) or text[-1] not in "0123456789.":
            return number
    shown = text if len(text) < 20 else f"{text[:20]}..."
    document.problems.append(Problem(mark, f"the number {shown} is too large"))
    return 0


def flow(value: Any) -> str:
    """A value as YAML in one line.

    >>> flow({"name": "crop", "padding": 4}), flow("no"), flow("3")
    ('{name: crop, padding: 4}', "'no'", "'3'")
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _unsupported(tag: str, mark: Mark) -> Problem:
    shown = tag.replace(_TAG, "!!")
    return Problem(mark, f"the tag {shown} is not supported; write a plain value")
