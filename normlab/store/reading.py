"""Reads a run's folder with care: checks each file by itself and against the others.

A finished run's status holds digests of its files and of itself. A run that was finished before
there were digests is checked by the step of its last row. Only an unfinished run may have a torn
last line, left by a crash.
"""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from normlab.errors import visible
from normlab.store import formats
from normlab.store.files import DamagedError, as_json, as_yaml, read_bytes, read_json, read_lines
from normlab.store.layout import CONFIG, FINISHED, METRICS, PROBES, PROVENANCE, STATUS
from normlab.store.shapes import Shape, fault

DIGESTED = (CONFIG, METRICS, PROBES, PROVENANCE)
"""These files do not change any more once a run is finished."""

JsonRows = list[dict[str, Any]]


class Whole(NamedTuple):
    """The contents of a run's files, all read at once."""

    status: dict[str, Any]
    metrics: JsonRows
    provenance: JsonRows
    probes: JsonRows


def read_whole(path: Path) -> Whole:
    """Read a run's files except the config, of which only the digest is checked.

    Raises:
        DamagedError: a file has changed since it was written, or does not match the others.
    """
    status = read_status(path)
    state = status["state"]
    wrong = fault(status, formats.RESULT[state]) if state in FINISHED else None
    if wrong is not None:
        raise DamagedError(path / STATUS, wrong, mend_of(path))
    metrics, provenance = read_metrics(path, status), read_provenance(path, status)
    for record in provenance:
        wrong = fault(record, formats.PROOF)
        if wrong is not None:
            raise DamagedError(path / PROVENANCE, wrong, mend_of(path))
    if state in FINISHED:
        for name, found in ((CONFIG, _content(path, CONFIG, status)), (PROVENANCE, provenance)):
            if not found:
                raise DamagedError(path / name, "it is missing or empty", mend_of(path))
    return Whole(status, metrics, provenance, read_probes(path, status))


def read_status(path: Path) -> dict[str, Any]:
    """Read the status; a folder without one is a new run."""
    status = read_json(path / STATUS, formats.STATUS, mend_of(path))
    if status is None:
        return {"state": "new"}
    if _has_digests(status) and _digest_of(status) != status["digests"].get(STATUS):
        raise DamagedError(path / STATUS, "its digest of itself is another", mend_of(path))
    if "error" in status:  # the words of some library, which may be in colours
        status["error"] = visible(status["error"])
    return status


def read_config(path: Path, status: dict[str, Any]) -> dict[str, Any]:
    """Read the resolved config."""
    content = _content(path, CONFIG, status)
    if content is None:
        raise DamagedError(path / CONFIG, "it is missing", mend_of(path))
    return as_yaml(path / CONFIG, content, formats.RESOLVED, mend_of(path))


def read_metrics(path: Path, status: dict[str, Any]) -> JsonRows:
    """Read the rows of metrics, in order."""
    rows = _rows(path, METRICS, formats.METRICS_ROW, status)
    for number, (before, row) in enumerate(pairwise(rows), start=2):
        found = None
        if row.keys() != before.keys():
            found = f"line {number} has other keys than the line before it"
        elif row["step"] <= before["step"]:
            found = f"line {number} is of step {row['step']}, after one of step {before['step']}"
        if found is not None:
            raise DamagedError(path / METRICS, found, mend_of(path))
    if status["state"] in FINISHED and not _has_digests(status):
        check_last_step(path / METRICS, rows, status, mend_of(path))
    return rows


def check_last_step(file: Path, rows: JsonRows, status: dict[str, Any], mend: str) -> None:
    """Check a finished run's last row against its status.

    Raises:
        DamagedError: they are of different steps.
    """
    found, said = rows[-1]["step"] if rows else -1, status.get("step", 0)
    # Every run ends with an evaluation, except one that diverged after its last evaluation.
    if found != said if status["state"] == "done" else found > said:
        have = f"rows up to step {found}" if rows else "no rows"
        ended = f"its run is {status['state']} at step {said}"
        raise DamagedError(file, f"it has {have}, and {ended}", mend)


def read_probes(path: Path, status: dict[str, Any]) -> JsonRows:
    """Read the rows of the probes, in order."""
    rows = _rows(path, PROBES, formats.PROBES_ROW, status)
    for number, row in enumerate(rows, start=1):
        if not formats.fits_layers(row):
            found = f"line {number} does not have a value for each layer"
            raise DamagedError(path / PROBES, found, mend_of(path))
    return rows


def read_provenance(path: Path, status: dict[str, Any]) -> JsonRows:
    """Read the records of provenance, in order."""
    content = _content(path, PROVENANCE, status)
    if content is None:
        return []
    return as_json(path / PROVENANCE, content, formats.PROVENANCE, mend_of(path))


def sealed(path: Path, status: dict[str, Any]) -> dict[str, Any]:
    """Add to a finished run's status the digests of its files and of the status itself."""
    digests = {name: _digest(read_bytes(path / name, mend_of(path)) or b"") for name in DIGESTED}
    status = {**status, "digests": digests}
    return {**status, "digests": {**digests, STATUS: _digest_of(status)}}


def _rows(path: Path, name: str, shape: Shape, status: dict[str, Any]) -> JsonRows:
    torn = status["state"] not in FINISHED
    content = _content(path, name, status) or b""
    return read_lines(path / name, content, shape, mend_of(path), torn)


def _content(path: Path, name: str, status: dict[str, Any]) -> bytes | None:
    """Read a file and check its digest; None if there is no such file."""
    content = read_bytes(path / name, mend_of(path))
    if _has_digests(status) and _digest(content or b"") != status["digests"].get(name):
        found = f"it is not as the run left it: its digest is not that in {STATUS}"
        raise DamagedError(path / name, found, mend_of(path))
    return content


def digest(status: dict[str, Any]) -> str:
    """Return a finished run's digest, which changes with any of its files."""
    return _digest_of(status) if "digests" in status else ""


def _has_digests(status: dict[str, Any]) -> bool:
    return status["state"] in FINISHED and "digests" in status


def _digest_of(status: dict[str, Any]) -> str:
    """Digest a status itself, whatever the order of its keys."""
    digests = {name: digest for name, digest in status["digests"].items() if name != STATUS}
    return _digest(json.dumps({**status, "digests": digests}, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def mend_of(path: Path) -> str:
    """Say what can be done about a damaged file of a run's folder."""
    return (
        f"restore it from a copy, or delete the folder {path}, and `normlab run` with the same "
        "config makes the run anew"
    )
