"""Finds a run's folder by its hash, for any label and any experiment.

A run's name ends in the hash of its resolved config. Experiments that lie beside each other share
runs of one hash: such a run is made once, and each of the experiments lists it.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from normlab.store.layout import CONFIG, EXPERIMENT, FINISHED, LOCK
from normlab.store.leases import leased
from normlab.store.names import hash_in
from normlab.store.run import Run


class RunFinder:
    """Finds the runs of an experiment in its folder and in those of the experiments beside it.

    Args:
        folder: the experiment's folder, whether it exists or not.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def place(self, name: str) -> Path:
        """Return the folder of the run of this name, or the one that it is to have.

        Among several folders with its hash, a finished run's comes first, and the experiment's own
        before those of others.
        """
        own, digits = self._folder / name, hash_in(name)
        if digits is None:
            return own
        named = [path for listing in self._listings for path in listing.find(digits)]
        found = [path for path in named if (path / CONFIG).is_file()]
        if len(found) > 1:
            finished = [path for path in found if Run(path).state in FINISHED]
            found = finished or found
        if not found or own in found:
            return own
        return found[0]

    @cached_property
    def _listings(self) -> list["_Listing"]:
        return [_list(folder) for folder in (self._folder, *experiments_beside(self._folder))]


class _Listing:
    """Remembers the folders in a folder by the hashes in their names; an experiment may have many.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path):
        self._folder, self._names = folder, set[str]()
        self._by_hash: dict[str, list[str]] = {}

    def look_again(self) -> None:
        """Take up new names, and forget those that are gone."""
        try:
            with os.scandir(self._folder) as entries:
                # It tells folders from files without a look at each.
                now = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        except OSError:  # there is no such folder, or it belongs to somebody else
            now = set()
        for name in now - self._names:
            if digits := hash_in(name):
                self._by_hash.setdefault(digits, []).append(name)
        for name in self._names - now:
            if digits := hash_in(name):
                self._by_hash[digits].remove(name)
        self._names = now

    def find(self, digits: str) -> list[Path]:
        """Return the folders with this hash."""
        return [self._folder / name for name in sorted(self._by_hash.get(digits, ()))]


_remembered: dict[Path, _Listing] = {}
_guard = threading.Lock()


def _list(folder: Path) -> _Listing:
    with _guard:
        found = _remembered.setdefault(folder.absolute(), _Listing(folder))
        found.look_again()
        return found


@contextlib.contextmanager
def held(run: Run, sections: dict[str, Any]) -> Iterator[Run]:
    """Hold a run for this process, in the folder in which a run of its hash has been begun by now.

    Commands of different experiments plan before they begin, so each may have chosen its own
    folder for a run that they share. The one that begins the run first keeps the folder.

    Args:
        run: the run, as it was planned.
        sections: its resolved config, which is written if the run is new.

    Raises:
        RunBusyError: another process holds it.
    """
    with contextlib.ExitStack() as stack:
        with _alone_among_experiments(run.path.parent):
            path = run.path if run.begun else RunFinder(run.path.parent).place(run.path.name)
            found = replace(run, path=path)
            stack.enter_context(found.locked())
            if not found.begun:
                found.write_config(sections)
        yield found


@contextlib.contextmanager
def _alone_among_experiments(folder: Path) -> Iterator[None]:
    """Let no other process settle where a run lies, in this experiment or one beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with leased(folder.parent / f".{LOCK}", wait=True):
        yield


def runs_below(folder: Path) -> list[Path]:
    """List the folders of runs in an experiment's folder, by their names and configs."""
    return [
        path
        for path in _folders_in(folder)
        if hash_in(path.name) is not None and (path / CONFIG).is_file()
    ]


def experiments_beside(folder: Path) -> list[Path]:
    """List the other experiments in the folder in which an experiment's folder lies."""
    whole = folder.resolve()
    parent = whole.parent if folder.name in ("", "..") else folder.parent
    return [
        other
        for other in _folders_in(parent)
        if other.name != whole.name and (other / EXPERIMENT).is_file()
    ]


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:  # it tells folders from files without a look at each
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # there is no such folder, or it belongs to somebody else
        return []
    return [folder / name for name in sorted(names) if not name.startswith(".")]
