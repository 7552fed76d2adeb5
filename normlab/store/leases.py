"""Holds a run or a folder for one process among many, on one host or on several.

A lease is a small file that says who holds it, and whose time of change is a sign of life that the
holder renews. A process that is killed on this host loses its lease at once. One on another host
loses it after `SECONDS` without a sign.

The protocol needs a file system on which creating a new file (`O_EXCL`) and renaming one are
atomic, as on a local disk, NFS 3 and 4, Lustre or GPFS. It needs no file locks, and no clock of two
hosts that agree: ages are told by the file server's clock, and by how long a waiting process itself
has seen no sign. Whoever succeeds a lease first creates a file that is named after it, which only
one process can do. The lease itself is then replaced, and what it says is the truth: a holder
looks whether it still holds it before it writes (`confirm`), because it may have been stopped for
so long that another process has taken over.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normlab.errors import UserError
from normlab.store.processes import began, is_alive, machine

SECONDS = 60.0
"""How long a lease on another host holds without a sign of life. `NORMLAB_LEASE` names another."""

SIGNS = 6
"""How many signs of life a holder gives in that time."""

BETWEEN_TRIES = 0.02
"""Seconds between two looks at a lease that is waited for."""


class LeaseHeldError(UserError):
    """Another process holds it; `holder` says which."""

    def __init__(self, message: str, holder: "Holder | None" = None):
        super().__init__(message)
        self.holder = holder


class LeaseLostError(LeaseHeldError):
    """This process held it, and another one has taken it over meanwhile."""


@dataclass(frozen=True)
class Holder:
    """Says who holds a lease.

    Attributes:
        token: a name of this lease, which no other has.
        machine: the host and its run of the system, or "" if that is not known.
        pid: the process.
        began: when the process began, as the system tells it.
        seconds: how long the lease holds without a sign of life.
    """

    token: str
    machine: str = ""
    pid: int = 0
    began: str = ""
    seconds: float = SECONDS

    def __str__(self) -> str:
        if not self.machine:
            return "another process"
        where = "" if self.machine == machine() else f" on {self.machine.partition(' ')[0]}"
        return f"another process (pid {self.pid}{where})"


@contextlib.contextmanager
def leased(file: Path, wait: bool = False) -> Iterator[None]:
    """Hold a lease in the block.

    Args:
        file: the lease, in a folder that exists.
        wait: whether to wait until it is free.

    Raises:
        LeaseHeldError: another process holds it.
    """
    while True:
        try:
            mine = _take(file)
            break
        except LeaseHeldError:
            if not wait:
                raise
            time.sleep(BETWEEN_TRIES)
    with _guard:
        _held[file] = mine
    _begin_to_give_signs()
    try:
        yield
    finally:
        with _guard:
            del _held[file]
        if _read(file) == mine:
            file.unlink(missing_ok=True)


def holder_of(file: Path) -> Holder | None:
    """Return who holds a lease now, or None; nothing is written into the lease."""
    found = _read(file)
    return None if found is None or _is_over(file, found) else found


def remove_lost(folder: Path, pattern: str) -> None:
    """Remove the leases in a folder, each taken once by one process, whose processes are gone."""
    for file in folder.glob(pattern):
        if holder_of(file) is None:
            file.unlink(missing_ok=True)


def confirm(file: Path) -> None:
    """Check that a lease which this process has taken is still its own.

    Raises:
        LeaseLostError: another process has taken it over.
    """
    mine = _held.get(file)
    if mine is not None and (found := _read(file)) != mine:
        by = "nobody" if found is None else str(found)
        raise LeaseLostError(
            f"{file.parent}: {by} has taken this over, because this process gave no sign of life "
            f"for {mine.seconds:.0f} s",
            found,
        )


def seconds() -> float:
    """Return how long the leases of this process hold without a sign of life."""
    given = os.environ.get("NORMLAB_LEASE", "")
    try:
        return max(1.0, float(given)) if given else SECONDS
    except ValueError:
        raise UserError(f"NORMLAB_LEASE must be a number of seconds, found '{given}'") from None


_held: dict[Path, Holder] = {}
"""The leases of this process."""

_guard = threading.Lock()

_signs: list[threading.Thread] = []


def _begin_to_give_signs() -> None:
    if not _signs:
        thread = threading.Thread(target=_give_signs, name="leases", daemon=True)
        _signs.append(thread)
        thread.start()


def _give_signs() -> None:
    while True:
        time.sleep(seconds() / SIGNS)
        with _guard:
            held = dict(_held)
        for file, mine in held.items():
            with contextlib.suppress(OSError):  # the next sign may come through
                if _read(file) == mine:
                    os.utime(file)  # the server's own time


def _take(file: Path) -> Holder:
    mine = Holder(uuid.uuid4().hex, machine(), os.getpid(), began(os.getpid()), seconds())
    while True:
        before = _read(file)
        if before is not None and not _is_over(file, before):
            raise LeaseHeldError(f"{file.parent}: {before} holds it", before)
        markers = _become_successor(file, before, mine)
        if not markers:
            continue
        try:
            if _read(file) == before:  # else another successor is through already
                _replace(file, mine)
                return mine
        finally:
            for marker in reversed(markers):
                marker.unlink(missing_ok=True)


def _become_successor(file: Path, before: Holder | None, mine: Holder) -> list[Path]:
    """Create the file that only the successor of a lease can create.

    A successor that was killed before it had replaced the lease has a successor of its own.

    Returns:
        That file, and those of killed successors before it; none if a successor has just gone.

    Raises:
        LeaseHeldError: another process succeeds it now.
    """
    markers: list[Path] = []
    while True:
        marker = file.with_name(f"{file.name}.{'first' if before is None else before.token}")
        markers.append(marker)
        if _create(marker, mine):
            return markers
        before = _read(marker, is_new=True)
        if before is None:
            return []
        if not _is_over(marker, before):
            raise LeaseHeldError(f"{file.parent}: {before} takes it", before)


def _read(file: Path, is_new: bool = False) -> Holder | None:
    """Read a lease; None if there is none. What cannot be read is held by somebody unknown.

    Args:
        file: the lease.
        is_new: whether its first writer may not have filled it yet.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    if not content and not is_new:
        return None  # earlier versions left an empty file behind
    try:
        told: dict[str, Any] = json.loads(content)
        return Holder(**told) if told["token"].isalnum() else _unknown()
    except (ValueError, TypeError, KeyError, AttributeError):
        return _unknown()


def _unknown() -> Holder:
    return Holder("unknown", seconds=seconds())


def _create(file: Path, mine: Holder) -> bool:
    """Create a file that is not there; return whether it was not."""
    try:
        with file.open("x", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(mine)))
    except FileExistsError:
        return False
    return True


def _replace(file: Path, holder: Holder) -> None:
    draft = file.with_name(f".{file.name.lstrip('.')}.{uuid.uuid4().hex}")
    try:
        draft.write_text(json.dumps(asdict(holder)), "utf-8")
        draft.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


_seen: dict[Path, tuple[tuple[str, int], float, float]] = {}
"""For leases of other hosts: the last sign of life, when this process saw it first (by its own
clock), and after how many seconds without another the lease is over."""


def _is_over(file: Path, holder: Holder) -> bool:
    """Return whether the holder of a lease is no more."""
    if holder.machine == machine():
        return not is_alive(holder.pid, holder.began)
    try:
        sign = holder.token, file.stat().st_mtime_ns
    except FileNotFoundError:
        return False  # it has just been replaced
    now = time.monotonic()
    known = _seen.get(file)
    if known is None or known[0] != sign:
        age = _age(file, sign[1])
        # One that looks old is watched for a little longer than the time between two signs, because
        # the server's clock may have jumped.
        patience = 1.5 / SIGNS if age is not None and age > holder.seconds else 1.0
        known = _seen[file] = sign, now, holder.seconds * patience
    return now - known[1] > known[2]


def _age(file: Path, changed: int) -> float | None:
    """Return how many seconds ago a file was changed by its server's clock, if that can be told."""
    probe = file.with_name(f".{file.name.lstrip('.')}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        now = probe.stat().st_mtime_ns
        probe.unlink(missing_ok=True)
    except OSError:
        return None
    return (now - changed) / 1e9
