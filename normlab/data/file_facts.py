"""Identifies files by their contents, and reads a file again only if it has changed.

A data set of a person's own is part of a run's identity. The contents of its files are hashed, so
that the identity stays the same when the files are copied or their dates change. To read all files
for each command would take long. Therefore the digests are remembered in the cache folder, with the
size and the date that each file had (as git does in its index). A file is read again unless its
date is at least two seconds older than the note, because it may have changed since.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from normlab.data.progress import in_pictures
from normlab.places import cache_root
from normlab.store.writing import write_atomically

DATE_IS_SURE = 2_000_000_000
"""Nanoseconds after which a change of a file certainly changes its date."""


class FileFacts(NamedTuple):
    """A file's contents in short.

    Attributes:
        digest: the SHA-256 of its contents, in hex.
        seen: other facts about the file, in a form that JSON can hold.
    """

    digest: str
    seen: Any


def facts_of(
    place: Path,
    files: Mapping[str, Path],
    look: Callable[[Path], Any] = lambda file: None,
    kind: str = "",
) -> dict[str, FileFacts]:
    """Read every file that has changed since it was read last.

    Args:
        place: the folder or file that all of them belong to.
        files: by the name under which each is remembered. The digest of one that cannot be opened
            is empty.
        look: a function that returns other facts about a file, in a form that JSON can hold.
        kind: a name for `look` and its version; facts that another one returned are not used.

    Returns:
        The facts about each file, under the names and in the order of `files`.
    """
    known = hashlib.sha256(f"{kind}\n{place.absolute()}".encode()).hexdigest()[:32]
    memory = cache_root() / "files" / f"{known}.json"
    remembered = _remembered(memory)
    stamps = {name: _stamp(file) for name, file in files.items()}
    found: dict[str, FileFacts] = {}
    for name, stamp in stamps.items():
        size, date, noted, digest, seen = remembered.get(name, (None, 0, 0, "", None))
        if [size, date] == stamp and date < noted - DATE_IS_SURE:
            found[name] = FileFacts(digest, seen)
    missing = [name for name in files if name not in found]
    if missing:
        now = time.time_ns()

        def read(name: str) -> FileFacts:
            try:
                with files[name].open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                digest = ""
            return FileFacts(digest, look(files[name]))

        found |= dict(zip(missing, in_threads(read, missing, "looking at the files"), strict=True))
        notes = {name: remembered[name] for name in files if name in remembered}
        # A file that cannot be opened is not remembered, because its permission may change.
        read_now = [name for name in missing if found[name].digest]
        notes |= {name: [*stamps[name], now, *found[name]] for name in read_now}
        _remember(memory, notes)
    return {name: found[name] for name in files}


def in_threads(function: Callable[[Any], Any], items: list[Any], name: str) -> list[Any]:
    """Call a function for every item in several threads, with a bar for a terminal.

    Pillow and hashlib let other threads work meanwhile, so that all cores are used.
    """
    with (
        in_pictures(name, len(items)) as advance,
        ThreadPoolExecutor(threads()) as pool,
        quietly(),
    ):
        results = []
        try:
            for result in pool.map(function, items):
                results.append(result)
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def threads() -> int:
    """Return the number of threads that decode pictures: one a core, at most sixteen."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 16)


@contextmanager
def quietly() -> Iterator[None]:
    """Ignore Pillow's warnings about odd files; files that cannot be read are errors anyway."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _stamp(file: Path) -> list[int]:
    try:
        found = file.stat()
    except OSError:  # a link to nothing
        return [-1, 0]
    return [found.st_size, found.st_mtime_ns]


def _remembered(memory: Path) -> dict[str, list[Any]]:
    # A note that is missing, damaged or of another form only means that the files are read again.
    with suppress(Exception):
        notes = json.loads(memory.read_text("utf-8"))
        return {name: note for name, note in notes.items() if len(note) == 5}
    return {}


def _remember(memory: Path, notes: dict[str, list[Any]]) -> None:
    with suppress(OSError):  # a full or write-protected disk: the files are read again next time
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps(notes))
