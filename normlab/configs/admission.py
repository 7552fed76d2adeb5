"""Decides which code of a config may run, and reads the rest without running it.

A config names code as `package.module:Class`. It is allowed if a person trusts the folder of the
config, that of the file in which the name stands, and that in which the module lies. The module of
a name that is not allowed is parsed, which tells whether it has such a class with such arguments.
"""

import ast
import importlib.machinery
import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normlab.catalogue import allow
from normlab.configs.document import Mark, Node, Problem
from normlab.configs.own_code import HOW_TO_TRUST, find_code_in, is_installed
from normlab.configs.sections import COMMON, SECTIONS
from normlab.errors import UserError, did_you_mean
from normlab.store.trusted import is_trusted

NAME = re.compile(r"[^\s:/\\]+:[^\s:/\\]+")
"""A name of code: a module and what is in it."""

MOST_BYTES = 1_000_000
"""The largest file that is parsed."""


@dataclass(frozen=True)
class Admission:
    """Holds what is not allowed to run in a config.

    Attributes:
        read: what is wrong with each name that is not allowed, as far as it can be read.
        untrusted: the folders that must be trusted, by name.
    """

    read: dict[Mark, list[Problem]] = field(default_factory=dict)
    untrusted: dict[str, set[Path]] = field(default_factory=dict)

    def folders(self) -> list[Path]:
        """Return every folder that must be trusted."""
        return sorted(set[Path]().union(*self.untrusted.values()))

    def told(self, problems: list[Problem]) -> list[Problem]:
        """Put what was read in the place of the mere word that some code was not run."""
        found: list[Problem] = []
        for one in problems:
            found += (one.not_run and self.read.get(one.mark)) or [one]
        return found


def admit(config: Node, file: Path) -> Admission:
    """Allow the code that a config names, as far as its folders are trusted.

    Args:
        config: the config, its parents and overrides merged in.
        file: the config's own file.
    """
    beside, found = file.resolve().parent, Admission()
    for path, node in config.walk():
        if not _may_name_code(path) or not _is_name(node.content):
            continue
        needed = {beside, _folder_of(node.mark)}
        if not _admit(node.content, needed, [beside, Path.cwd()], found):
            call = config.find(path[:-1]) if path[-1] == "name" else None
            found.read[node.mark] = _read(node.content, node.mark, call, [beside, Path.cwd()])
    return found


def admit_typed(name: str) -> None:
    """Allow the code of a name on the command line, if the current folder is trusted.

    Raises:
        UserError: it is not.
    """
    found = Admission()
    if ":" in name and not _admit(name, {Path.cwd()}, [Path.cwd()], found):
        raise NotTrustedError(name, found.folders())


def admit_resolved(sections: Any, folder: Path) -> None:
    """Allow the code of a run's resolved config, if the run's folder is trusted.

    Raises:
        UserError: it is not.
    """
    found = Admission()
    for name in names_in(sections):
        if not _admit(name, {folder}, [Path.cwd()], found):
            raise NotTrustedError(name, found.folders())


def names_in(value: Any) -> Iterator[str]:
    """Yield every name of code in plain values, at every depth."""
    if _is_name(value):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from names_in(inner)


class NotTrustedError(UserError):
    """Code outside a config was asked for, and the folders in `untrusted` are not trusted."""

    def __init__(self, name: str, untrusted: Iterable[Path]):
        self.untrusted = tuple(untrusted)
        folders = ", ".join(map(str, self.untrusted))
        super().__init__(
            f"{name} is code, which was not run: {folders} is not trusted ({HOW_TO_TRUST})"
        )


def _admit(name: str, needed: set[Path], places: list[Path], found: Admission) -> bool:
    """Allow one name, or note which folders it lacks."""
    home = _home(name, places)
    lacking = {one for one in {*needed, *([home] if home else [])} if not is_trusted(one)}
    if lacking:
        found.untrusted.setdefault(name, set()).update(lacking)
        return False
    find_code_in(*filter(is_trusted, places))
    allow([name])
    return True


def _is_name(content: Any) -> bool:
    return isinstance(content, str) and NAME.fullmatch(content) is not None


def _may_name_code(path: tuple[str | int, ...]) -> bool:
    return bool(path) and path[0] in (*SECTIONS, "sweep", "tune", "engine")


def _folder_of(mark: Mark) -> Path:
    """Return the folder of the file in which a value stands; the current one for an override."""
    return Path.cwd() if mark.line is None else Path(mark.source).resolve().parent


def _spec(name: str, places: list[Path]) -> importlib.machinery.ModuleSpec | None:
    """Find the first part of a module's name, which imports nothing."""
    top = name.partition(":")[0].partition(".")[0]
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        found = None
    return found or importlib.machinery.PathFinder.find_spec(top, [str(one) for one in places])


def _home(name: str, places: list[Path]) -> Path | None:
    """Return the folder in which a module or package lies, or None for an installed one."""
    spec = _spec(name, places)
    if spec is None:
        return None
    inside = list(spec.submodule_search_locations or ())
    file = Path(spec.origin) if spec.origin and spec.has_location else None
    if inside:
        file = Path(inside[0]) / "__init__.py"
    if file is None or is_installed(file):
        return None
    return (file.parent.parent if inside else file.parent).resolve()


def _read(name: str, mark: Mark, call: Node | None, places: list[Path]) -> list[Problem]:
    """Say what is wrong with a name and its arguments, as far as its file tells."""
    spec, (module, _, attribute) = _spec(name, places), name.partition(":")
    if spec is None:
        return [
            Problem(
                mark,
                f"{name}: there is no module '{module}' beside the config, in the current folder, "
                "or installed",
            )
        ]
    tree = _parsed(_file_of(module, spec))
    if tree is None:
        return []
    defined = {one.name: one for one in tree.body if isinstance(one, _DEFINITIONS)}
    if attribute not in defined:
        if _may_have_more(tree, attribute):
            return []
        return [Problem(mark, f"{name}: {module} has none; {did_you_mean(attribute, defined)}")]
    known = _arguments(defined[attribute])
    if known is None or call is None or not isinstance(call.content, dict):
        return []
    of_sections = {"name"}.union(*COMMON.values())
    given = {key: node for key, node in call.content.items() if key not in of_sections}
    return [
        Problem(node.key_mark, f"{name} has no key '{key}'; {did_you_mean(str(key), known)}")
        for key, node in given.items()
        if key not in known
    ]


_DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def _file_of(module: str, spec: importlib.machinery.ModuleSpec) -> Path | None:
    """Return the file of a dotted module, from the spec of its first part."""
    rest = module.split(".")[1:]
    if not rest:
        return Path(spec.origin) if spec.origin and spec.has_location else None
    for place in spec.submodule_search_locations or ():
        stem = Path(place).joinpath(*rest)
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return file
    return None


def _parsed(file: Path | None) -> ast.Module | None:
    try:
        if file is None or file.suffix != ".py" or file.stat().st_size > MOST_BYTES:
            return None
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # an import tells more, once it is allowed


def _may_have_more(tree: ast.Module, name: str) -> bool:
    """Return whether a module may define a name in a way that is not a plain definition."""
    plain = (*_DEFINITIONS, ast.Expr, ast.Import)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            if any(
                alias.name == "*" or (alias.asname or alias.name) == name for alias in node.names
            ):
                return True
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(not isinstance(one, ast.Name) or one.id == name for one in targets):
                return True
        elif not isinstance(node, plain):
            return True
    return any(isinstance(one, ast.FunctionDef) and one.name == "__getattr__" for one in tree.body)


def _arguments(node: ast.ClassDef | ast.FunctionDef) -> set[str] | None:
    """Return the names of the arguments that a definition takes, or None if it cannot be told."""
    if isinstance(node, ast.ClassDef):
        init = [one for one in node.body if isinstance(one, ast.FunctionDef)
                and one.name == "__init__"]  # fmt: skip
        if not init:
            if any(_last_name(base) not in ("Module", "object") for base in node.bases):
                return None  # a parent may have more
            fields = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
            return {one.id for one in fields if isinstance(one, ast.Name)}
        node = init[0]
    if node.decorator_list or node.args.kwarg is not None:
        return None
    return {one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
