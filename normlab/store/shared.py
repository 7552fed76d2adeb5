"""What several starts of one experiment write to: read, changed and written back under a lock."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from normlab.store import written
from normlab.store.files import read_json
from normlab.store.jsonl import write_atomically
from normlab.store.layout import CLAIMS, LOCK


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold an experiment's folder: what is read within it is still so when it is written back.

    Whoever comes later waits. The lock goes with the process, even by kill -9.
    """
    path.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path / LOCK):
        yield


def note_claims(path: Path, claims: list[dict[str, Any]]) -> None:
    """Keep every claim that ever stood, so that one taken out of the config is not forgotten."""
    with alone(path):
        known = known_claims(path)
        new = [claim for claim in claims if claim not in known]
        if new:
            write_atomically(path / CLAIMS, json.dumps([*known, *new], indent=1))


def known_claims(path: Path) -> list[dict[str, Any]]:
    """Every claim that ever stood.

    Raises:
        DamagedError: the record of them is not as it was written.
    """
    mend = "restore it from a copy; without it, claims taken out of the config are forgotten"
    return read_json(path / CLAIMS, written.CLAIMS, mend) or []
