"""Finds the Parquet tables of a data set in the layouts of the Hugging Face hub, and reads columns.

A table's part is in its file's name (`train-00000-of-00002-0a1b2c.parquet`, `test.parquet`) or in
its folder's (`plain_text/train/0000.parquet`). The metadata of a table describe its columns.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from normlab.data.parts import TRAIN, part_called
from normlab.data.reading import LIKELY, require_possible, whole
from normlab.errors import UserError, first_few

SHARD = re.compile(r"(.*?)-?([0-9]+)-of-([0-9]+)(?:-[0-9A-Za-z]+)?")
NUMBER = re.compile(r"[0-9]+")
COPY = re.compile(r".*( ?\([0-9]+\)|[ _-][Cc]opy( [0-9]+)?)")
"""Patterns of file names. Browsers and file managers give copies names of the third pattern."""

COMMON_FOLDERS = {"data", "default"}
"""Folders whose names do not tell the configuration of a set."""


def find_tables(path: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Return the tables of each part, and those that belong to none.

    If no name says a part, all tables are of the part "".

    Args:
        path: a table, or a folder of tables at any depth.

    Raises:
        UserError: there is none, one is missing or a copy, or they are of several configurations.
    """
    if path.is_file():
        return {"": [path]}, []
    files = [
        file
        for file in sorted(path.rglob("*.parquet"))
        if not any(name.startswith(".") for name in file.relative_to(path).parts)
    ]
    if not files:
        raise UserError(f"{path}: there are no .parquet files in it")
    placed: dict[tuple[str, str], list[Path]] = {}
    others = []
    for file in files:
        part, configuration = _place(file, path)
        if part is None:
            others.append(file)
        else:
            placed.setdefault((configuration, part), []).append(file)
    if not placed:
        placed, others = {("", ""): others}, []
    configurations = sorted({configuration for configuration, _ in placed})
    if len(configurations) > 1:
        raise UserError(
            f"{path}: there are several sets in it, {', '.join(c or '.' for c in configurations)}; "
            f"give the folder of one, such as path: {path / configurations[-1]}"
        )
    parts = {part: tables for (_, part), tables in placed.items()}
    if TRAIN not in parts and "" not in parts:
        raise UserError(f"{path}: there is no table of the training split; found {_names(files)}")
    for part, tables in parts.items():
        _require_complete(path, part, tables)
    return parts, others


def _place(file: Path, top: Path) -> tuple[str | None, str]:
    """Return the part of a file, and the folders that tell its configuration."""
    folders = [f for f in file.relative_to(top).parent.parts if f.lower() not in COMMON_FOLDERS]
    words = re.split(r"[-_.]", file.stem)
    found = [part for word in words if (part := part_called(word))]
    in_folders = [part for folder in folders if (part := part_called(folder))]
    folders = [folder for folder in folders if part_called(folder) is None]
    parts = dict.fromkeys([*found[:1], *in_folders])
    return next(iter(parts), None), "/".join(folders)


def _require_complete(path: Path, part: str, tables: list[Path]) -> None:
    """Raise `UserError` unless the names of a part's tables are whole and without copies."""
    word = f"the {part} tables" if part else "the tables"
    if copies := [file.name for file in tables if COPY.fullmatch(file.stem)]:
        raise UserError(
            f"{path}: {', '.join(copies)} looks like a copy of another of {word}; its pictures "
            "would be there twice. Move it elsewhere, or give it another name if it is none: found "
            f"{_names(tables)}"
        )
    shards = [match for file in tables if (match := SHARD.fullmatch(file.stem))]
    numbers = [int(file.stem) for file in tables if NUMBER.fullmatch(file.stem)]
    if shards:
        total = int(shards[0][3])
        found = sorted((int(match[2]), int(match[3])) for match in shards)
        complete = found == [(n, total) for n in range(total)] and len(shards) == len(tables)
        expected = f"{total} numbered 0..{total - 1} of {total}, once each"
    elif numbers:
        complete = sorted(numbers) == list(range(len(tables)))
        expected = f"numbers 0..{max(numbers)}, once each"
    else:
        return
    if not complete:
        raise UserError(
            f"{path}: {word} are not complete: expected {expected}, found {_names(tables)}. Put "
            "the missing ones there; a part of a set would be taken for the whole"
        )


def _names(files: list[Path]) -> str:
    return first_few([file.name for file in files], most=10)


def damaged(path: Path, expected: str, found: str) -> UserError:
    """Make the error for a table that cannot be read."""
    return UserError(
        f"{path}: expected {expected}, found {found}. Copy it again from where it came"
    )


@contextlib.contextmanager
def opened(file: Path, refuse: Callable[[Path, str, str], UserError] = damaged) -> Iterator[Any]:
    """Open a table as a `pyarrow.parquet.ParquetFile`; exceptions become reports of damage.

    Args:
        file: the table.
        refuse: makes the error from the file, what was expected and what was found.
    """
    # Slow to import, and only this layout needs it.
    from pyarrow.parquet import ParquetFile

    with whole(refuse, file, "a whole Parquet file"), ParquetFile(file) as table:
        _require_possible(table.metadata, file.stat().st_size)
        yield table


def _require_possible(metadata: Any, size: int) -> None:
    """Raise `ValueError` if a table claims sizes that no pictures have."""
    if metadata.num_rows > LIKELY * size:
        raise ValueError(f"it claims {metadata.num_rows:,} rows in {size:,} bytes")
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        for number in range(columns.num_columns):
            column = columns.column(number)
            require_possible(column.total_uncompressed_size, column.total_compressed_size)


def features(schema: Any) -> dict[str, Any]:
    """Return what the hub's metadata say about the columns; empty if there are none."""
    with contextlib.suppress(Exception):  # other programs may write anything there
        metadata = json.loads(schema.metadata[b"huggingface"])
        found = metadata["info"]["features"]
        return found if isinstance(found, dict) else {}
    return {}


def class_names(feature: Any) -> tuple[str, ...] | None:
    """Return the names of the classes if the metadata of a column have them.

    >>> class_names({"_type": "ClassLabel", "names": ["cat", "dog"]})
    ('cat', 'dog')
    >>> class_names({"_type": "ClassLabel", "names": {"0": "cat", "1": "dog"}})
    ('cat', 'dog')
    """
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    fits = isinstance(names, list) and len(set(map(str, names))) == len(names)
    return tuple(map(str, names)) if fits and names else None
