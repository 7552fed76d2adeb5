"""Hashes the source of a person's own code, because it is a part of a run's identity.

`norm: my_file:MyNorm` names a module. The bytes of its file are hashed, and those of the files that
it imports from the same folder or package, so a comment counts too. A run can be read without these
files, because its provenance holds the hash. An installed package is identified by its version, and
normlab's own modules by the commit. Other files that a module reads, such as tables of numbers, are
not covered.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from normlab.configs.document import Mark, Problem
from normlab.errors import UserError, in_one_line

_seen: dict[str, tuple[Any, str]] = {}
"""The spec of each module when it was first seen, and the hash of its source at that time."""


def find_code_in(*folders: Path) -> None:
    """Let names find modules in some trusted folders, the first of them first.

    Python's own modules and installed packages are found first, so no file can hide one of them.
    """
    found = [str(folder.resolve()) for folder in folders]
    sys.path += [folder for folder in dict.fromkeys(found) if folder not in sys.path]


HOW_TO_TRUST = "--trust says that it is, once; in a job or notebook set NORMLAB_TRUST=1"


def not_run(name: str, mark: Mark) -> Problem:
    """Say that the code of a name was not run, because its folder is not trusted."""
    message = f"{name} is code, which was not run: its folder is not trusted ({HOW_TO_TRUST})"
    return Problem(mark, message, not_run=True)


def own_code(sections: dict[str, Any]) -> dict[str, str]:
    """Return the imported modules that a config names, each with the hash of its source.

    Args:
        sections: a resolved config.

    Raises:
        UserError: a file was edited after this process imported it, so the process would run the
            old source.

    >>> own_code({"norm": {"name": "batch_norm"}})
    {}
    """
    found = loaded_code(sections)
    for module, digest in found.items():
        if source_of(sys.modules[module]) != digest:
            raise UserError(
                f"{sys.modules[module].__file__}: it, or a file that it imports, was edited after "
                "this process had imported it, so the old source would run; start the "
                "process again (a notebook: restart the kernel)"
            )
    return found


def loaded_code(sections: dict[str, Any]) -> dict[str, str]:
    """Return the same as `own_code`, with the hashes from when this process imported them."""
    modules = sorted(set(_named(sections)) & sys.modules.keys())
    return {module: _as_loaded(sys.modules[module], module) for module in modules}


def check_same(expected: dict[str, str]) -> None:
    """Check that this process has the source that a run was planned with.

    A worker imports the source later than the process that planned the run.

    Raises:
        UserError: the source has changed, or cannot be imported any more.
    """
    for name, digest in expected.items():
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"{name}: cannot be imported any more: {error}") from error
        if _as_loaded(module, name) != digest:
            raise UserError(
                f"{module.__file__}: it, or a file that it imports, was edited after this command "
                "began; give the command again, which makes the runs of the new source"
            )


def is_installed(file: Path) -> bool:
    """Return whether a file is of Python itself or of an installed package."""
    named = {"site-packages", "dist-packages"} & set(file.parts)
    return bool(named) or any(folder in file.parents for folder in _installed_folders())


def failure_outside(name: str, error: BaseException) -> str:
    """Return the message for an error in `package.module:Class`: its last line and the place."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file_of(name)]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{name} fails: {in_one_line(error)}{place}"


def file_of(name: str) -> str | None:
    """Return the file of `package.module:Class`, if it has been imported from one."""
    return getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)


def source_of(module: ModuleType) -> str:
    """Return ten hex digits of a module's source, or an installed package's name and version."""
    file = getattr(module, "__file__", None)
    if file is None:
        return "no file"
    path = Path(file)
    if is_installed(path):
        return _version(module.__name__.partition(".")[0])
    name = module.__name__
    depth = name.count(".") + (path.name == "__init__.py")
    digest = hashlib.sha256()
    for place, content in sorted(_files(path, path.parents[depth]).items()):
        digest.update(f"{place}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:10]


def _named(value: Any) -> Iterator[str]:
    """Yield the modules of all names `package.module:Class`, at every depth."""
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(name, str) and ":" in name and not name.startswith("normlab."):
            yield name.partition(":")[0]
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _named(inner)


def _as_loaded(module: ModuleType, name: str) -> str:
    loading = module.__spec__ or module  # a reload makes another
    if name not in _seen or _seen[name][0] is not loading:
        _seen[name] = loading, source_of(module)
    return _seen[name][1]


def _files(first: Path, root: Path) -> dict[str, bytes]:
    """Return the contents of a file and of its imports below `root`, by the path from there."""
    found: dict[str, bytes] = {}
    inits = [folder / "__init__.py" for folder in first.parents if root in folder.parents]
    waiting = [first, *(file for file in inits if file.is_file())]
    while waiting:
        file = waiting.pop()
        place = file.relative_to(root)
        if place.as_posix() in found:
            continue
        content = found[place.as_posix()] = file.read_bytes()
        for name in _imports(content, place.parent.parts):
            waiting += _modules(root, name)
    return found


@lru_cache(maxsize=256)
def _imports(content: bytes, package: tuple[str, ...]) -> tuple[str, ...]:
    """Return the dotted names that a source imports anywhere; some may be no modules.

    >>> _imports(b"import a.b\\nfrom . import c\\nfrom .d import e", ("p",))
    ('a.b', 'p', 'p.c', 'p.d', 'p.d.e')
    """
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return ()  # a compiled module has no source to parse
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names += [base, *(f"{base}.{a.name}" if base else a.name for a in node.names)]
    return tuple(filter(None, names))


def _modules(root: Path, name: str) -> list[Path]:
    """Return the files below `root` that run when a dotted name is imported."""
    parts = name.split(".")
    if parts[0] == "normlab":
        return []
    stems = [root.joinpath(*parts[: count + 1]) for count in range(len(parts))]
    files = [file for stem in stems for file in (stem / "__init__.py", stem.with_suffix(".py"))]
    return [file for file in files if file.is_file()]


@cache
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib"))


@cache
def _version(package: str) -> str:
    distributions = importlib.metadata.packages_distributions().get(package, [])
    versions = (f"{name} {importlib.metadata.version(name)}" for name in sorted(distributions))
    return ", ".join(versions) or f"python {sys.version.split()[0]}"
