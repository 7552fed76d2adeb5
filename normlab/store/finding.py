"""Finds a run's folder by its hash, for any label and any experiment.

A run's name ends in the hash of its resolved config. Experiments that lie beside each other share
runs of one hash: such a run is made once, and each of the experiments lists it.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import has_fcntl

from normlab.store.layout import CONFIG, EXPERIMENT, FINISHED
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
        found = [path for path in self._by_hash.get(digits, []) if (path / CONFIG).is_file()]
        if len(found) > 1:
            finished = [path for path in found if Run(path).state in FINISHED]
            found = finished or found
        if not found or own in found:
            return own
        return found[0]

    @cached_property
    def _by_hash(self) -> dict[str | None, list[Path]]:
        found: dict[str | None, list[Path]] = {}
        for experiment in (self._folder, *experiments_beside(self._folder)):
            for path in _folders_in(experiment):
                found.setdefault(hash_in(path.name), []).append(path)
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
    """Let no other process settle where a run lies, in this experiment or one beside it.

    The folder that holds the experiments is locked itself, so that no file is added to it. Some
    file systems cannot do that; there two commands may begin one run in the same instant.
    """
    if not has_fcntl:
        yield
        return
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    above = os.open(folder.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(above, fcntl.LOCK_EX)
        yield
    finally:
        os.close(above)


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
