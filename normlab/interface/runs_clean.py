"""Finds what `normlab runs clean` would delete, and deletes it.

Only folders that normlab made for runs are ever touched, and no link is followed. A run is looked
at again with its lock held before anything of it goes, so that one that has been begun, or has come
to belong to the experiment, since it was listed is kept.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from normlab.errors import UserError
from normlab.store.disk import (
    experiments_below,
    in_words,
    is_elsewhere,
    is_orphan,
    is_run,
    orphans_of,
    runs_in,
    usage,
)
from normlab.store.finding import experiments_beside
from normlab.store.journal import note
from normlab.store.layout import CHECKPOINTS, CONFIG, FINISHED, JOURNAL, LOCK, STATUS
from normlab.store.loading import listed_names, load_runs
from normlab.store.run import Run
from normlab.store.runs import Runs, alone


@dataclass(frozen=True)
class Candidate:
    """Something that may go.

    Attributes:
        run: whose it is.
        path: the folder that would go: the run's, or its checkpoints.
        why: the reason.
        is_result: whether the result of a finished run would go.
    """

    run: Run
    path: Path
    why: str
    is_result: bool = False


def clean(path: Path, checkpoints: bool = False, yes: bool = False) -> Iterator[str]:
    """Delete orphans and failed runs, or say what would be; yields lines as it goes.

    Args:
        path: an experiment's folder, or one that holds experiments. Links in the path itself are
            followed, for that is what a person named; none below it is.
        checkpoints: whether those of finished runs go as well.
        yes: whether to delete; otherwise nothing is changed.

    Raises:
        UserError: the folder is neither, a file was changed, or something cannot be deleted.
    """
    if (path / CONFIG).is_file():
        raise UserError(f"{path} is a single run; give its experiment's folder, {path.parent}")
    folders = experiments_below(path)
    if not folders:
        raise UserError(f"{path} neither is an experiment of normlab nor holds any")
    count = size = results = 0
    experiments = [load_runs(folder) for folder in folders]  # all, before anything goes
    for other in {other for folder in folders for other in experiments_beside(folder)}:
        listed_names(other)  # it may share runs of these folders
    for runs in experiments:
        found = candidates(runs, checkpoints)
        yield from _heading(runs, found)
        for one in found:
            bytes_, name = usage(one.path).size, one.path.relative_to(runs.path)
            kept = _delete(runs, one, checkpoints) if yes else _held(one.run)
            if kept:
                yield f"  kept: {name}: {kept}"
                continue
            yield f"  {'deleted' if yes else 'would go'}: {name}, {in_words(bytes_)}: {one.why}"
            count, size = count + 1, size + bytes_
            results += one.is_result
    if count:
        sum_ = f"{count} folder{'' if count == 1 else 's'}, {in_words(size)}"
        if results:
            sum_ += f", {results} of them with the result of a finished run,"
        yield f"deleted {sum_}" if yes else f"nothing was deleted; with --yes, {sum_} would be"


def _heading(runs: Runs, found: list[Candidate]) -> Iterator[str]:
    yield f"{runs.path}, last run by: {runs.command}"
    if not found:
        yield "  nothing to delete"
    if runs.about.get("overrides") and orphans_of(runs, [one.run for one in found]):
        yield (
            f"  (the runs of {runs.about.get('config')} itself are not made by that command "
            "either; give the command that makes the runs you need, and they belong here again)"
        )


def candidates(runs: Runs, checkpoints: bool) -> list[Candidate]:
    """Find what may go of the runs in an experiment's folder."""
    there = runs_in(runs.path)
    alone = {run.path for run in orphans_of(runs, there)}
    found = (_candidate(runs, run, checkpoints, run.path in alone) for run in there)
    return [one for one in found if one is not None]


def _candidate(runs: Runs, run: Run, checkpoints: bool, orphan: bool) -> Candidate | None:
    status = run.status
    state = status["state"]
    saved = run.path / CHECKPOINTS
    has_saved = saved.is_dir() and not saved.is_symlink()
    if orphan:
        return Candidate(run, run.path, _why_orphan(runs, run, state), state in FINISHED)
    if state == "failed":
        lost = "; its checkpoint, from which the same command would go on, too" if has_saved else ""
        return Candidate(run, run.path, f"failed: {status.get('error')}{lost}")
    if checkpoints and state in FINISHED and has_saved:
        return Candidate(run, saved, f"the run is {state}; run.params() needs them")
    return None


def _why_orphan(runs: Runs, run: Run, state: str) -> str:
    why = f"{state}, and not made by that command"
    if state not in FINISHED:
        return why
    had = run.path.name in {former.path.name for former in runs.former}
    had_it = "; its experiment had it before the config changed" if had else ""
    return f"{why}: a finished run whose result is in no report{had_it}"


def _held(run: Run) -> str:
    """Say why a run must be left alone, or nothing; change nothing."""
    if is_elsewhere(run):
        return f"it is being made on {run.status['host']}, or was; that cannot be seen from here"
    if not (run.path / LOCK).exists():  # to try the lock would make it
        return ""
    try:
        with run.locked():
            return ""
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"its lock cannot be tried ({error})"


def _delete(runs: Runs, one: Candidate, checkpoints: bool) -> str:
    """Delete it, or say why not."""
    run = one.run
    if is_elsewhere(run):
        return _held(run)
    try:
        with run.locked():
            now = load_runs(runs.path)
            if (
                not is_run(run.path)
                or _candidate(now, run, checkpoints, is_orphan(now, run)) != one
            ):
                return "it has changed since it was listed"
            if one.path == run.path:
                had_result = run.state in FINISHED
                _delete_run(run.path)
                if had_result and (runs.path / JOURNAL).exists():
                    with alone(runs.path):
                        note(runs.path, "deleted", run=run.path.name)
            else:
                shutil.rmtree(one.path)
    except OSError as error:
        raise UserError(f"{one.path}: cannot be deleted ({error})") from error
    except UserError as error:
        return str(error)
    return ""


def _delete_run(folder: Path) -> None:
    """Delete last the files that make it a run, so that a broken deletion can be done again.

    The lock is the very last: until then no other process begins the run anew.
    """
    last = (CONFIG, STATUS, LOCK)
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name not in last:
            child.unlink()
    for name in last:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it may have been begun anew
        folder.rmdir()
