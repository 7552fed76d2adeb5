"""Measures and lists the content of experiments' folders, without writing or following a link."""

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from normlab.errors import UserError
from normlab.store.files import DamagedError
from normlab.store.finding import experiments_beside
from normlab.store.layout import CONFIG, EXPERIMENT, STATUS
from normlab.store.loading import listed_names
from normlab.store.run import Run
from normlab.store.runs import Runs

WRITTEN_BY_NORMLAB = {"state", "pid", "host"}
"""Keys of every status that `Run.write_status` writes."""


@dataclass(frozen=True)
class Usage:
    """The bytes of a folder's files, and the time of the newest, in seconds since 1970."""

    size: int = 0
    changed: float = 0.0


def usage(folder: Path) -> Usage:
    """Measure everything in a folder; files that vanish meanwhile do not count."""
    size, changed = 0, 0.0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                found = os.lstat(os.path.join(place, name))  # noqa: PTH118 (thousands of files)
            except FileNotFoundError:
                continue
            size, changed = size + found.st_size, max(changed, found.st_mtime)
    return Usage(size, changed)


def in_words(size: int) -> str:
    """Write a number of bytes for people.

    >>> in_words(999), in_words(12_345), in_words(4_200_000_000)
    ('999 B', '12.3 kB', '4.2 GB')
    """
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{size} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def is_run(folder: Path) -> bool:
    """Return whether normlab made this folder for a run: it holds a config, and a status of ours.

    Nobody knows whose a damaged status is.
    """
    files = folder / CONFIG, folder / STATUS
    if folder.is_symlink() or any(file.is_symlink() or not file.is_file() for file in files):
        return False
    try:
        return Run(folder).status.keys() >= WRITTEN_BY_NORMLAB
    except DamagedError:
        return False


def runs_in(folder: Path) -> list[Run]:
    """List the runs with folders in an experiment's, whether they belong to it or not."""
    return [Run(child) for child in sorted(folder.iterdir()) if is_run(child)]


def experiments_below(folder: Path) -> list[Path]:
    """List the experiments in a folder, or the folder itself if it is one.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; runs are kept in runs/ or in --out")
    found = []
    for place, folders, files in os.walk(folder):
        if EXPERIMENT in files:
            found.append(Path(place))
        hidden = [name for name in folders if name.startswith(".")]
        # An experiment's folder holds runs alone.
        folders[:] = [] if EXPERIMENT in files else sorted({*folders} - {*hidden})
    return found


def is_orphan(runs: Runs, run: Run) -> bool:
    """Return whether a run in this folder belongs to no experiment, neither this nor one beside."""
    return run in orphans_of(runs, [run])


def orphans_of(runs: Runs, found: list[Run]) -> list[Run]:
    """Return those of some runs in this folder that belong to no experiment.

    The lists of the experiments are read once for all of them; a damaged list says nothing.
    """
    if not runs.runs:  # while arms are being tuned, their later runs are not known
        return []
    listed = {one.path.name for one in [*runs.runs, *runs.trials]}
    others = [run for run in found if run.path.name not in listed]
    if others:
        for other in experiments_beside(runs.path):
            with contextlib.suppress(DamagedError):
                listed |= listed_names(other)
    return [run for run in others if run.path.name not in listed]


def orphans(runs: Runs) -> list[Run]:
    """List the runs in an experiment's folder that do not belong to it any more."""
    return orphans_of(runs, runs_in(runs.path))


def is_elsewhere(run: Run) -> bool:
    """Return whether the status says that a process of another host is making the run."""
    status = run.status
    return status["state"] == "running" and status.get("host") != platform.node()
