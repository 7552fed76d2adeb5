"""Asks git for the commit of a folder, and for the differences from that commit."""

import hashlib
import os
import subprocess
from pathlib import Path

SECONDS = 10
"""A call of git is given up after this many seconds."""
MOST_BYTES = 64 * 2**20
"""Files that git does not know are read up to this many bytes; the rest count by name and size."""

UNKNOWN = "unknown"
"""This stands for the hash of changes that git could not list in time."""


def git_state(*folders: Path) -> dict[str, str] | None:
    """Return the commit of folders, and a hash of what differs from it.

    Files that git does not know count, unless git is told to ignore them. Files elsewhere in
    the repository do not.

    Args:
        folders: folders of one repository.

    Returns:
        `commit`, and `dirty` where something differs: ten hex digits, or "unknown" where git could
        not tell; None if git keeps nothing in the first folder.
    """
    here = folders[0]
    paths = [str(folder.resolve()) for folder in folders]
    # An installed package may lie in somebody's repository without being a part of it.
    if not _git(here, "ls-files", "-z", "--", paths[0]):
        return None
    commit = _git(here, "rev-parse", "HEAD")
    if commit is None:
        return None
    state = {"commit": commit.decode().strip()}
    changes = _changes(here, paths)
    if changes is None:
        state["dirty"] = UNKNOWN
    elif changes:
        state["dirty"] = changes
    return state


def last_commit(file: Path) -> str | None:
    """Return the commit that holds a file as it is now; None if there is none."""
    folder = file.parent
    changed = _git(folder, "status", "--porcelain", "--", file.name)
    if changed is None or changed.strip():
        return None
    commit = _git(folder, "log", "-1", "--format=%H", "--", file.name)
    return (commit or b"").decode().strip() or None


def _changes(here: Path, paths: list[str]) -> str | None:
    """Hash what differs; empty if nothing does, None if git fails."""
    known = _git(here, "diff", "--binary", "--no-ext-diff", "--no-textconv", "HEAD", "--", *paths)
    listed = _git(
        here, "ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", *paths
    )
    top = _git(here, "rev-parse", "--show-toplevel")
    if known is None or listed is None or top is None:
        return None
    names = sorted(filter(None, listed.split(b"\0")))
    if not known and not names:
        return ""
    digest, left = hashlib.sha256(known), MOST_BYTES
    root = Path(os.fsdecode(top.rstrip(b"\n")))
    for name in names:
        file = root / os.fsdecode(name)
        try:
            size = file.stat().st_size
            content = file.read_bytes() if size <= left else b""
        except OSError:  # it is a link to nowhere, or was just removed
            size, content = 0, b""
        left -= len(content)
        digest.update(name + b"\0%d\0" % size + content)
    return digest.hexdigest()[:10]


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return what git prints; None if it fails, is not installed or takes too long."""
    # Within a hook git's own variables name another repository.
    others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**others, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, timeout=SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
