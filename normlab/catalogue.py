"""The catalogue: finds the entries of normlab by reading its folders.

A shelf is a folder of Python files in which every class or function with the shelf's decorator
is an entry. Its name in a config is its own name in snake case (`GroupNorm` is `group_norm`).
Files are parsed with `ast` and not imported, so `normlab list` is fast and needs no jax. A file
that cannot be read, or a duplicate name, is an error that names the file; nothing is skipped.
"""

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from normlab.errors import UserError, did_you_mean


def snake_case(name: str) -> str:
    """Convert the name of a class to its name in a config.

    >>> snake_case("RMSNorm"), snake_case("GroupNorm"), snake_case("Cifar10")
    ('rms_norm', 'group_norm', 'cifar10')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


T = TypeVar("T")
_MISSING = object()


def later(default: T, before: Any = _MISSING) -> T:
    """Declare a field of an entry or of settings that came after other fields.

    A run that does not use it keeps the hash that it had before the field came.

    Args:
        default: the field's default.
        before: the value that describes every run made before the field came. A run with this
            value has the hash of a run without the field. By default this is `default`, and a
            resolved config then has the field only if its value is another.

    >>> @dataclass
    ... class Sound:
    ...     level: str = later("standardised", before="raw")
    ...     balance: bool = later(False)
    >>> Sound().level, as_before(Sound, shown=True), as_before(Sound, shown=False)
    ('standardised', {'level': 'raw'}, {'balance': False})
    """
    shown = before is not _MISSING
    told = {_BEFORE: before if shown else default, _SHOWN: shown}
    return field(default=default, metadata=told)  # type: ignore[return-value]


_BEFORE, _SHOWN = "before", "shown"


def as_before(called: Any, shown: bool) -> dict[str, Any]:
    """Return the values that fields declared with `later` have for earlier runs, by field.

    Args:
        called: a dataclass; anything else has no such fields.
        shown: whether to return the fields that a resolved config always shows, or the others.
    """
    fields = dataclasses.fields(called) if dataclasses.is_dataclass(called) else ()
    marked = [field for field in fields if field.metadata.get(_SHOWN) is shown]
    return {field.name: field.metadata[_BEFORE] for field in marked}


@dataclass(frozen=True)
class Entry:
    """One entry of a shelf, not yet imported.

    Attributes:
        name: its name in a config.
        module: the module that defines it.
        attribute: its name there.
        summary: the first line of its docstring.
        file: the module's file.
        told: the arguments of its decorator that are plain values, by name.
    """

    name: str
    module: str
    attribute: str
    summary: str
    file: str
    told: dict[str, Any] = field(default_factory=dict, compare=False)

    def load(self) -> Any:
        """Import the entry's module and return the class or function."""
        try:
            return getattr(importlib.import_module(self.module), self.attribute)
        except Exception as error:
            raise ImportError(f"{self.file}: '{self.name}' cannot be imported: {error}") from error


@dataclass(frozen=True)
class Shelf:
    """A folder of entries of one kind, marked by one decorator.

    Attributes:
        kind: the name of the kind in messages.
        package: the package that is the folder.
        decorator: the name of the decorator.
        takes_unmarked: whether `package.module:Class` may name a thing without the decorator.
    """

    kind: str
    package: str
    decorator: str
    takes_unmarked: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the entries' files."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"the package {self.package} is not installed")
        return Path(next(iter(spec.submodule_search_locations)))

    def entries(self) -> dict[str, Entry]:
        """Return every entry by name, sorted."""
        return _read(self.folder, self.package, self.decorator)

    def find(self, name: str) -> Entry:
        """Find the entry called `name`, or the one that `package.module:Class` names.

        Raises:
            UserError: there is no such entry; the message suggests the nearest name, or the shelf
                that has one of this name.
        """
        if ":" in name:
            module, _, attribute = name.partition(":")
            return Entry(name, module, attribute, "", module)
        entries = self.entries()
        if name not in entries:
            kind = next((shelf.kind for shelf in SHELVES if name in shelf.entries()), None)
            other = "" if kind is None else f", which is a {kind}"
            hint = did_you_mean(name, entries)
            raise UserError(f"no {self.kind} is called '{name}'{other}; {hint}")
        return entries[name]

    def load(self, name: str) -> Any:
        """Import the class or function called `name`.

        Raises:
            UserError: there is no such entry, or it lacks this shelf's decorator.
        """
        entry = self.find(name)
        loaded = load_own(name) if ":" in name else entry.load()
        marked = getattr(loaded, "catalogue_kind", None)
        allowed = (self.decorator, None) if self.takes_unmarked else (self.decorator,)
        if ":" in name and marked not in allowed:
            raise UserError(f"{name} is not a {self.kind}: put @{self.decorator} above the class")
        return loaded


class UntrustedError(UserError):
    """A name stands for code that nobody has allowed to run; `name` is that name."""

    def __init__(self, name: str):
        super().__init__(
            f"{name} is code, and it was not run: nobody has said that its folder is trusted"
        )
        self.name = name

    def __reduce__(self) -> Any:
        return type(self), (self.name,)  # errors pass between processes


TRUST = "NORMLAB_TRUST"
"""With `1` in this environment variable all code may run: for jobs and notebooks."""

_allowed: set[str] = set()
"""The modules that names with a colon may import in this process."""


def allow(names: Iterable[str]) -> None:
    """Let names such as `package.module:Class` be imported in this process.

    Call it for names that a person typed, or whose folder the person trusts
    (`normlab.store.trusted`). Names in a file of a stranger would run the stranger's code.
    """
    _allowed.update(name.partition(":")[0] for name in names)


def load_own(name: str) -> Any:
    """Import what `package.module:name` names in a person's own code.

    Raises:
        UntrustedError: nobody has allowed it; nothing is imported.
        UserError: it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    if module not in _allowed and os.environ.get(TRUST) != "1":
        raise UntrustedError(name)
    try:
        return Entry(name, module, attribute, "", module).load()
    except ImportError as error:
        raise UserError(
            f"{name}: {error}. A name with a colon is read as package.module:Class; its module "
            "must be importable from the folder you run in, or lie beside the config"
        ) from error


@cache
def _read(folder: Path, package: str, decorator: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for file in sorted(folder.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            marks = [one for one in node.decorator_list if _decorator_name(one) == decorator]
            if not marks:
                continue
            name = snake_case(node.name)
            if name in found:
                raise ImportError(f"{file}: '{name}' is already defined in {found[name].file}")
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            module = f"{package}.{file.stem}" if file.stem != "__init__" else package
            found[name] = Entry(name, module, node.name, summary, str(file), _told(marks[0]))
    return dict(sorted(found.items()))


def _decorator_name(node: ast.expr) -> str | None:
    target = node.func if isinstance(node, ast.Call) else node
    return target.id if isinstance(target, ast.Name) else None


def _told(mark: ast.expr) -> dict[str, Any]:
    """Return the keyword arguments of a decorator that can be read without running anything."""
    told = {}
    for keyword in mark.keywords if isinstance(mark, ast.Call) else ():
        with contextlib.suppress(ValueError):
            told[str(keyword.arg)] = ast.literal_eval(keyword.value)
    return told


def lazily(
    module: str, *shelves: Shelf, **homes: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's `__getattr__` and `__dir__`, which import each name on first use.

    Args:
        module: the name of the package.
        shelves: shelves whose entries the package exports by the names of their classes.
        homes: the module of each further exported name.

    >>> get, names = lazily("normlab.norms", NORMS, root="math")
    >>> get("GroupNorm").__name__, "root" in names()
    ('GroupNorm', True)
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        if not name.startswith("_"):  # Python itself often looks up such names
            for shelf in shelves:
                for entry in shelf.entries().values():
                    if entry.attribute == name:
                        return entry.load()
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def names() -> list[str]:
        held = (entry.attribute for shelf in shelves for entry in shelf.entries().values())
        return sorted([*homes, *held])

    return get, names


NORMS = Shelf("normaliser", "normlab.norms", "normaliser")
KERNELS = Shelf("kernel transform", "normlab.weights", "kernel_transform")
PLACEMENTS = Shelf("placement", "normlab.placements", "placement")
PROBES = Shelf("probe", "normlab.probes", "probe")
SHARDINGS = Shelf("sharding", "normlab.data", "sharding")
POLICIES = Shelf("policy", "normlab.policies", "policy")
MODELS = Shelf("model", "normlab.models", "model", takes_unmarked=True)
DATA = Shelf("dataset", "normlab.data", "dataset")
AUGMENTATIONS = Shelf("augmentation", "normlab.data", "augmentation")
ENGINES = Shelf("engine", "normlab.engine.executors", "engine", takes_unmarked=True)
SHELVES = (NORMS, KERNELS, PLACEMENTS, PROBES, MODELS, DATA, AUGMENTATIONS)
