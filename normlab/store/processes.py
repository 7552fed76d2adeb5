"""Tells processes and machines apart, and whether a process is still there."""

import os
import platform
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Name this host, this run of its system, and the space in which its process numbers count.

    Two processes whose machines have one name see each other by their process numbers.
    """
    parts = [platform.node() or "unknown"]
    for place in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            file = Path(place)
            parts.append(str(file.readlink()) if file.is_symlink() else file.read_text().strip())
        except OSError:
            parts.append("-")
    return " ".join(parts)


def began(pid: int) -> str:
    """Return when a process began, as the system counts it; empty where that cannot be told.

    A number is given again to another process after a while.
    """
    return _told(pid)[1]


def _told(pid: int) -> tuple[str, str]:
    """Return a process's state, a letter, and when it began."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    told = text.rpartition(")")[2].split()  # the name before it may hold spaces
    return told[0], told[19]


def is_alive(pid: int, since: str = "") -> bool:
    """Return whether a process of this machine is there; where that cannot be told, it is.

    Args:
        pid: its number.
        since: when it began, as `began` tells it, or empty if that is not known.
    """
    if os.name != "posix":  # on Windows `os.kill` would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state, now = _told(pid)
    ended = state in ("Z", "X")  # its parent has not asked for its status yet
    return not ended and (not (since and now) or since == now)


def is_left(process: tuple[str | None, int] | None) -> bool:
    """Return whether the process that made a run on this host has ended.

    Args:
        process: host and pid, as in the run's status. A process of another host counts as running,
            because that cannot be checked from here.
    """
    if process is None or process[0] != platform.node():
        return False
    return not is_alive(process[1])
