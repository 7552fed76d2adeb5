"""Runs read from disk: a run's folder, an experiment's, or a published one."""

from pathlib import Path

from normlab.errors import UserError
from normlab.store import layout, written
from normlab.store.files import read_json
from normlab.store.published import read_published
from normlab.store.run import Entry, Run
from normlab.store.runs import Runs


def load(path: str | Path) -> Run | Runs:
    """A run's folder, or an experiment's (as published, too), read from disk.

    Raises:
        UserError: the folder is neither.
    """
    folder = Path(path)
    if (folder / layout.CONFIG).is_file():
        return Run(folder)
    if (folder / layout.EXPERIMENT).is_file():
        mend = "`normlab run` with its config writes it anew"
        about = read_json(folder / layout.EXPERIMENT, written.EXPERIMENT, mend)
        runs, trials = (
            [Entry(Run(folder / e["run"]), e["arm"], e["seed"], e["axes"]) for e in listed]
            for listed in (about.pop("runs"), about.pop("trials", []))
        )
        return Runs(folder, about, runs, trials)
    if (folder / layout.PUBLISHED).is_file():
        return read_published(folder)
    near = sorted(str(file.parent) for file in folder.glob(f"*/{layout.EXPERIMENT}"))
    hint = f"; experiments below it: {', '.join(near)}" if near else ""
    raise UserError(f"{folder} is neither a run nor an experiment of normlab{hint}")


def load_runs(path: str | Path) -> Runs:
    """An experiment from its folder.

    Raises:
        UserError: it is none.
    """
    found = load(path)
    if not isinstance(found, Runs):
        raise UserError(
            f"{path} is a single run; give the experiment's folder, {found.path.parent}"
        )
    return found
