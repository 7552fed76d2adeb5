"""Loads a run's folder, an experiment's, a published one, or a bundle of one."""

from pathlib import Path
from typing import Any

from normlab.errors import UserError
from normlab.store import formats, layout
from normlab.store.bundles import is_bundle, unpacked
from normlab.store.files import DamagedError, read_json
from normlab.store.finding import RunFinder
from normlab.store.published import read_published
from normlab.store.run import Run
from normlab.store.runs import Runs


def load(path: str | Path) -> Run | Runs:
    """Load a run or an experiment from its folder; a published experiment and a bundle too.

    Raises:
        UserError: the folder holds neither, or the bundle cannot be read.
    """
    folder = Path(path)
    if is_bundle(folder):
        folder = unpacked(folder)
    if (folder / layout.CONFIG).is_file():
        return _by_itself(folder)
    if (folder / layout.EXPERIMENT).is_file():
        about = _read_list(folder)
        finder = RunFinder(folder)
        runs, trials, former = (
            [Run(finder.place(one["run"]), one["arm"], one["seed"], one["axes"]) for one in listed]
            for listed in (about.pop(key, []) for key in ("runs", "trials", "former"))
        )
        return Runs(folder, about, runs, trials, former)
    if (folder / layout.PUBLISHED).is_file():
        return read_published(folder)
    near = sorted(str(file.parent) for file in folder.glob(f"*/{layout.EXPERIMENT}"))
    hint = f"; experiments below it: {', '.join(near)}" if near else ""
    raise UserError(f"{folder} is neither a run nor an experiment of normlab{hint}")


def listed_names(folder: Path) -> set[str]:
    """Read the names of the runs and trials that an experiment lists.

    Raises:
        DamagedError: the list is not as it was written.
    """
    about = _read_list(folder)
    return {one["run"] for key in ("runs", "trials") for one in about.get(key, [])}


def _read_list(folder: Path) -> dict[str, Any]:
    mend = "`normlab run` with its config writes it anew"
    return read_json(folder / layout.EXPERIMENT, formats.EXPERIMENT, mend)


def _by_itself(folder: Path) -> Run:
    """Load a run without its experiment; its status says arm and seed."""
    try:
        status = Run(folder).status
    except DamagedError:
        status = {}
    return Run(folder, status.get("arm", folder.name), status.get("seed", 0))


def load_runs(path: str | Path) -> Runs:
    """Load an experiment from its folder.

    Raises:
        UserError: the folder is not an experiment's.
    """
    found = load(path)
    if not isinstance(found, Runs):
        raise UserError(
            f"{path} is a single run; give the experiment's folder, {found.path.parent}"
        )
    return found
