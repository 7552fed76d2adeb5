"""Keeps a journal of an experiment: what was planned, what ended and what was deleted, in order.

Every line holds the digest of the line before it, so that no line can be changed, taken out or put
in between without breaking the chain. Whoever rewrites every line leaves no trace: only a copy
elsewhere, such as a published bundle, tells then.
"""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from normlab.store import formats
from normlab.store.files import read_bytes, read_lines
from normlab.store.layout import JOURNAL
from normlab.store.writing import append_rows

TAIL = 1 << 16
"""The bytes that are read first from the end of a journal, which may be long."""

MEND = "restore it from a copy; without it, nobody can tell what was planned before the first step"


class Journal(NamedTuple):
    """The lines of a journal, and the number of the first line that breaks the chain, or None."""

    lines: list[dict[str, Any]]
    broken: int | None = None

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one kind of event."""
        return [line for line in self.lines if line["event"] == event]


def note(folder: Path, event: str, **facts: Any) -> None:
    """Add a line to an experiment's journal; call it while the folder is held (`alone`).

    Args:
        folder: the experiment's folder.
        event: "registered", "finished" or "deleted".
        facts: what happened, as JSON.
    """
    before = _last(folder / JOURNAL)
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **facts}
    append_rows(folder / JOURNAL, [{**line, "before": before}])


def read_journal(folder: Path) -> Journal:
    """Read an experiment's journal; it is empty for experiments that are older than journals.

    Raises:
        DamagedError: a line is no line of a journal. A torn last line is left out.
    """
    content = read_bytes(folder / JOURNAL, MEND) or b""
    lines = read_lines(folder / JOURNAL, content, formats.JOURNAL_LINE, MEND, torn=True)
    before, broken = "", None
    for number, (text, line) in enumerate(zip(content.split(b"\n"), lines, strict=False), start=1):
        if broken is None and line["before"] != before:
            broken = number
        before = _digest(text)
    return Journal(lines, broken)


def _last(file: Path) -> str:
    """Return the digest of the last line; one that a crash has torn is cut off first."""
    if not file.exists():
        return ""
    with file.open("r+b") as handle:
        size = handle.seek(0, os.SEEK_END)
        length = TAIL
        while True:  # a line may be longer than one piece
            start = max(0, size - length)
            handle.seek(start)
            whole, end, torn = handle.read().rpartition(b"\n")
            if start == 0 or b"\n" in whole:
                break
            length *= 2
        if torn:
            handle.truncate(size - len(torn))
    return _digest(whole.rpartition(b"\n")[2]) if end else ""


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:32]
