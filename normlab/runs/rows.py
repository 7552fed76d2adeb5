"""Lines of JSON, as a run's metrics and probes are kept: added one by one, safe from a crash."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows in order; a last line torn by a crash is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def append_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows, on disk before this returns."""
    with file.open("a", encoding="utf-8") as handle:
        handle.write("".join(map(as_line, rows)))
        handle.flush()
        os.fsync(handle.fileno())


def keep_rows(file: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the rows that are not to be kept, all at once."""
    write_atomically(file, "".join(map(as_line, filter(keep, read_rows(file)))))


def as_line(row: dict[str, Any]) -> str:
    """A row as a line."""
    return json.dumps(row) + "\n"


def write_atomically(file: Path, text: str) -> None:
    """Write a whole file or nothing: a reader or a crash never sees half of it."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(file)
