"""Finds the files and folders that a config names."""

import inspect
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from normlab.configs.document import Mark, Node
from normlab.places import data_root


def paths_beside_config(
    called: Callable[..., Any], fields: dict[str, Any], given: Node
) -> dict[str, str | None]:
    """Return those arguments that are paths, as absolute paths.

    An argument is a path if its annotation is `Path`. A relative one is looked for beside the file
    in which it stands, or in the current folder if it is from the command line; and then in
    `$NORMLAB_DATA`.

    Args:
        called: the class whose arguments these are.
        fields: its arguments.
        given: the node of the arguments, with their places.
    """
    hints = typing.get_type_hints(called) if inspect.isclass(called) else {}
    return {
        key: None if value is None else _absolute(Path(value), given.mark_at((key,)))
        for key, value in fields.items()
        if hints.get(key) in (Path, Path | None)
    }


def _absolute(path: Path, mark: Mark) -> str:
    path = path.expanduser()
    folder = Path() if mark.line is None else Path(mark.source).parent
    beside, among_data = folder / path, data_root() / path
    # An absolute path stays as it is, whatever it is joined to.
    found = among_data if among_data.exists() and not beside.exists() else beside
    return os.path.abspath(found)  # noqa: PTH100 (which keeps links, unlike Path.resolve)
