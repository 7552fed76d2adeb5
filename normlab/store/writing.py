"""Writes rows and whole files so that a crash costs a last line at most."""

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def append_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to a file; they are on disk before this returns."""
    with file.open("a", encoding="utf-8") as handle:
        handle.write("".join(map(as_line, rows)))
        handle.flush()
        os.fsync(handle.fileno())


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace all rows of a file at once."""
    write_atomically(file, "".join(map(as_line, rows)))


def as_line(row: dict[str, Any]) -> str:
    """Write a row as a line of JSON."""
    return json.dumps(row) + "\n"


def write_atomically(file: Path, text: str) -> None:
    """Write a whole file or nothing: a reader or a crash never sees half of it."""
    with replacing(file) as draft, draft.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a draft to write, which takes the file's place at the end; none is left by an error."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        yield draft
        draft.replace(file)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
