"""Reads YAML as a tree of nodes that know their places.

The dialect is YAML 1.2's core schema, not PyYAML's default 1.1: `1e-3` is a number, `no` is text,
`010` is ten. A key given twice is an error, and so are tags and merge keys.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import yaml

from normlab.errors import UserError

Path = tuple[str | int, ...]
"""The way to a node from the top: keys of mappings and indices of lists."""


@dataclass(frozen=True)
class Mark:
    """The place where a value was given, and the override or dialect that made the value.

    Attributes:
        source: the file, or the name of a source without lines.
        line: from 1; None in a source without lines.
        column: from 1; None in a source without lines.
        override: the words on the command line, if the value comes from there.
        dialect: the library, if its defaults or meanings made the value.
        written: the text at the place, if the dialect made another value of it.

    >>> str(Mark("a.yaml", 3, 9, dialect="torch", written="0.1"))
    'a.yaml:3:9 (dialect torch: 0.1)'
    >>> str(Mark.of_override("seed=3"))
    "command line 'seed=3'"
    """

    source: str
    line: int | None = None
    column: int | None = None
    override: str | None = None
    dialect: str | None = None
    written: str | None = None

    @classmethod
    def of_override(cls, text: str) -> "Mark":
        """Return the mark of a value that an override gives."""
        return cls("command line", override=text)

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"
        if self.override is not None:
            place = f"{place} '{self.override}'"
        if self.dialect is None:
            return place
        return f"{place} (dialect {self.dialect}{f': {self.written}' if self.written else ''})"


@dataclass(frozen=True)
class Problem:
    """One mistake: its place, and a message with what was found, allowed and likely meant.

    `not_run` marks what is no mistake: code that was not run because nobody trusts its folder.
    """

    mark: Mark
    message: str
    not_run: bool = False

    def __str__(self) -> str:
        return f"{self.mark}: {self.message}"


class ConfigError(UserError):
    """A config has mistakes; the message lists all of them, each with its place.

    Attributes:
        problems: the mistakes, in their order in the files.
        untrusted: the folders that a person must trust before the config's own code is run.
    """

    def __init__(self, problems: list[Problem], untrusted: Iterable[FilePath] = ()):
        def order(problem: Problem) -> tuple[str, str, int, int]:
            mark = problem.mark
            return mark.source, mark.override or "", mark.line or 0, mark.column or 0

        self.problems = sorted(dict.fromkeys(problems), key=order)
        self.untrusted = tuple(untrusted)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, eq=False)
class Node:
    """A value of a config and everything below it, each with its place.

    A node never changes. `put` returns a new tree, which shares the other nodes with the old one.

    Attributes:
        content: nodes by key, a list of nodes, or a plain value.
        mark: the place where it was given.
        own_key_mark: the place of its key; None if that is the value's own place.

    >>> node = Node.of({"norm": {"eps": 1e-5}}, Mark("file"))
    >>> node.put(("norm", "eps"), Node(1e-3, Mark("other"))).value
    {'norm': {'eps': 0.001}}
    >>> node.mark_at(("norm", "momentum"))
    Mark(source='file', line=None, ...)
    """

    content: Any
    mark: Mark
    own_key_mark: Mark | None = None

    @classmethod
    def of(cls, value: Any, mark: Mark) -> "Node":
        """Return the tree of a plain value that was given at one place."""
        if isinstance(value, dict):
            return cls({key: cls.of(inner, mark) for key, inner in value.items()}, mark)
        if isinstance(value, list):
            return cls([cls.of(inner, mark) for inner in value], mark)
        return cls(value, mark)

    @cached_property
    def value(self) -> Any:
        """The plain value, which must not be changed."""
        if isinstance(self.content, dict):
            return {key: node.value for key, node in self.content.items()}
        if isinstance(self.content, list):
            return [node.value for node in self.content]
        return self.content

    @property
    def key_mark(self) -> Mark:
        """The place of its key."""
        return self.own_key_mark or self.mark

    def get(self, key: Any) -> "Node | None":
        """Return the node below a key of a mapping or an index of a list, or None."""
        if isinstance(self.content, dict):
            return self.content.get(key)
        inside = isinstance(self.content, list) and key in range(len(self.content))
        return self.content[key] if inside else None

    def has(self, key: Any) -> bool:
        """Return whether the node is a mapping with this key and a value that is not null."""
        below = self.get(key)
        return below is not None and below.content is not None

    def at(self, path: Path) -> "Node":
        """Return the node at a path that exists."""
        node = self
        for key in path:
            node = node.content[key]
        return node

    def find(self, path: Path) -> "Node | None":
        """Return the node at a path, or None."""
        node: Node | None = self
        for key in path:
            node = node.get(key) if node is not None else None
        return node

    def mark_at(self, path: Path) -> Mark:
        """Return the place of the value at a path, or of the nearest node above it."""
        node = self.find(path)
        return node.mark if node is not None else self.mark_at(path[:-1])

    def key_mark_at(self, path: Path) -> Mark:
        """Return the place of the key at a path, or of the value if it has no key."""
        node = self.find(path)
        return node.key_mark if node is not None else self.mark_at(path)

    def walk(self) -> Iterator[tuple[Path, "Node"]]:
        """Yield every node of the tree with its path, beginning with this one."""
        yield (), self
        below = self.content
        if isinstance(below, dict | list):
            for key, node in below.items() if isinstance(below, dict) else enumerate(below):
                yield from (((key, *path), inner) for path, inner in node.walk())

    def put(self, path: Path, other: "Node") -> "Node":
        """Return the tree with another node at a path.

        Mappings that are missing on the way are made, with the mark of the node.
        """
        if not path:
            return other
        first, *rest = path
        below = (self.get(first) or Node({}, other.mark)).put(tuple(rest), other)
        if isinstance(self.content, list):
            content: Any = [below if i == first else n for i, n in enumerate(self.content)]
        else:
            content = {**self.content, first: below}
        return replace(self, content=content)

    def without(self, *keys: Any) -> "Node":
        """Return the mapping without some of its keys."""
        return replace(self, content={k: n for k, n in self.content.items() if k not in keys})

    def marked(self, mark: Mark) -> "Node":
        """Return the tree with one mark at every node."""
        return replace(Node.of(self.value, mark), own_key_mark=mark)


class _CoreLoader(yaml.SafeLoader):
    """Resolves plain scalars by YAML 1.2's core schema, in PyYAML's parser."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (PyYAML's own attribute)
    composed = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.composed += 1
        if self.composed > 2 * MOST_VALUES:  # keys are nodes too; the rest is not even read
            raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=self.get_mark())
        return super().compose_node(parent, index)


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
"""The greatest size of a config. Only other files, or aliases of aliases, come near it."""


def parse(text: str, source: str, problems: list[Problem] | None = None) -> Node:
    """Read one YAML document.

    Args:
        text: the document.
        source: the name of the source in its marks.
        problems: a list that gets mistakes such as a repeated key or a tag, after which the rest
            can still be read; None to raise them too.

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
    if node is None:
        return Node(None, Mark(source))
    builder = _Builder(source)
    tree = builder.build(node, ())
    if problems is None and builder.problems:
        raise ConfigError(builder.problems)
    if problems is not None:
        problems += builder.problems
    return tree


_TOO_MANY = f"there are more than {MOST_VALUES} values, aliases written out"
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


class _Builder:
    """Makes nodes of this file from PyYAML's, and notes the mistakes on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.count = 0

    def build(self, node: yaml.Node, parents: tuple[yaml.Node, ...]) -> Node:
        mark = self.mark_of(node)
        if any(node is parent for parent in parents):
            return self.refuse(mark, "this alias contains itself", None)
        if len(parents) > DEEPEST:
            raise ConfigError([Problem(mark, _TOO_DEEP)])
        self.count += 1
        if self.count > MOST_VALUES:
            raise ConfigError([Problem(mark, _TOO_MANY)])
        if isinstance(node, yaml.CollectionNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            self.refuse(mark, _unsupported(node.tag), None)
        below = (*parents, node)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.build(item, below) for item in node.value], mark)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, mark)
        mapping: dict[Any, Node] = {}
        for key_node, value_node in node.value:
            key_mark = self.mark_of(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse(key_mark, "a key must be a single word, not a list or mapping", None)
                continue
            key = self.scalar(key_node, key_mark).content
            if key in mapping:
                first = mapping[key].key_mark.line
                message = f"'{key}' is given twice, first in line {first}; keep one"
                self.refuse(key_mark, message, None)
                continue
            mapping[key] = replace(self.build(value_node, below), own_key_mark=key_mark)
        return Node(mapping, mark)

    def mark_of(self, node: yaml.Node) -> Mark:
        return Mark(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def refuse(self, mark: Mark, message: str, stand_in: Any) -> Node:
        self.problems.append(Problem(mark, message))
        return Node(stand_in, mark)

    def scalar(self, node: yaml.ScalarNode, mark: Mark) -> Node:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        if kind == "str":
            return Node(text, mark)
        if kind not in _KINDS or not re.fullmatch(_KINDS[kind][0], text):  # `!mine 3`, `!!int abc`
            return self.refuse(mark, _unsupported(node.tag), text)
        if kind == "null":
            return Node(None, mark)
        if kind == "bool":
            return Node(text.lower() == "true", mark)
        if kind == "int" and len(text) <= MOST_DIGITS:
            return Node(int(text, 16) if text.startswith("0x") else int(text), mark)
        if kind == "float":
            number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            if math.isfinite(number) or text[-1] not in "0123456789.":
                return Node(number, mark)
        shown = text if len(text) < 20 else f"{text[:20]}..."
        return self.refuse(mark, f"the number {shown} is too large", 0)


def flow(value: Any) -> str:
    """Return a value as YAML in one line.

    >>> flow({"name": "crop", "padding": 4}), flow("no"), flow("3")
    ('{name: crop, padding: 4}', "'no'", "'3'")
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def named(call: Node) -> Node:
    """Write a call that is only a name as the mapping it stands for.

    >>> named(Node("identity", Mark("a.yaml"))).value
    {'name': 'identity'}
    """
    if not isinstance(call.content, str):
        return call
    return replace(call, content={"name": Node(call.content, call.mark)})


def show(value: Any) -> str:
    """Return a value as the user wrote it, with its type if that may be the mistake.

    >>> show("8"), show(None), show([1])
    ("the text '8'", 'null', 'the list [1]')
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {str: "the text ", list: "the list ", dict: "the mapping "}
    return f"{names.get(type(value), '')}{value!r}"


def _unsupported(tag: str) -> str:
    return f"the tag {tag.replace(_TAG, '!!')} is not supported; write a plain value"
