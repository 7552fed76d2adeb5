"""Writes what `normlab runs list` and `normlab runs show` print."""

import shlex
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from normlab.engine.progress import Observer, Snapshot
from normlab.errors import UserError
from normlab.reports.text_columns import columns
from normlab.store.disk import (
    experiments_below,
    in_words,
    orphans,
    usage,
)
from normlab.store.files import DamagedError
from normlab.store.flags import unusual
from normlab.store.layout import CHECKPOINTS, ERROR
from normlab.store.loading import load, load_runs
from normlab.store.record import Record
from normlab.store.run import Run
from normlab.store.runs import Runs
from normlab.store.seeds import seed_text

QUESTION_WIDTH = 48
STOPPED = "stopped: the process is no more, and the same command goes on from the last checkpoint"


def list_experiments(folder: Path) -> str:
    """Write a line for every experiment below a folder, and one for every damaged run.

    Raises:
        UserError: there is no such folder.
    """
    found = experiments_below(folder)
    if not found:
        return f"there are no experiments in {folder}"
    headings = ["experiment", "question", "runs", "orphans", "size", "last change", "folder"]
    damage: list[str] = []
    lines = columns([headings, *(_line(path, damage) for path in found)])
    return "\n".join([*lines, *damage])


def _line(path: Path, damage: list[str]) -> list[str]:
    used = usage(path)
    changed = datetime.fromtimestamp(used.changed).isoformat(" ", "minutes")
    end = [in_words(used.size), changed, str(path)]
    try:
        runs = load_runs(path)
        snapshots = Observer().look([*runs.trials, *runs.runs])
        damage += [snapshot.damage for snapshot in snapshots if snapshot.damage]
        about = [runs.about["name"], _cut(runs.about.get("question") or "")]
    except UserError as error:  # the others are shown all the same
        which = f": {error.file.name}" if isinstance(error, DamagedError) else ""
        return [path.name, "", f"cannot be read{which}", "", *end]
    return [*about, _counts(snapshots), str(len(orphans(runs))), *end]


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= QUESTION_WIDTH else line[: QUESTION_WIDTH - 1].rstrip() + "…"


def _counts(snapshots: list[Snapshot]) -> str:
    counts = Counter(snapshot.state for snapshot in snapshots)
    return ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))


def show(path: Path) -> str:
    """Write everything that a run's folder tells; of an experiment, a line a run.

    Raises:
        UserError: the folder is neither, or its files were changed.
    """
    found = load(path)
    return "\n".join(_show_run(found) if isinstance(found, Run) else _show_experiment(found))


def _show_experiment(runs: Runs) -> list[str]:
    lines = [str(runs.path)]
    if runs.about.get("question"):
        lines += [" ".join(runs.about["question"].split())]
    lines += [f"last run by: {runs.command}"]
    for heading, listed in (("tuned by", runs.trials), ("runs", runs.runs)):
        if listed:
            snapshots = Observer().look(listed)
            lines += ["", f"{heading}: {_counts(snapshots)}"]
            headings = ["arm", "seed", "state", "step", "test accuracy", "folder"]
            rows = [_run_line(runs, e, s) for e, s in zip(listed, snapshots, strict=True)]
            lines += columns([headings, *rows], indent="  ")
            if any(snapshot.state == "stopped" for snapshot in snapshots):
                lines += [f"  ({STOPPED})"]
            lines += [f"  {snapshot.damage}" for snapshot in snapshots if snapshot.damage]
    others = orphans(runs)
    if others:
        size = in_words(sum(usage(run.path).size for run in others))
        lines += [
            "",
            f"orphans: {len(others)} more in this folder, {size}, that this command does not make; "
            f"see normlab runs clean {runs.path}",
        ]
    return [*lines, "", f"size: {in_words(usage(runs.path).size)}"]


def _run_line(runs: Runs, run: Run | Record, now: Snapshot) -> list[str]:
    accuracy = f"{now.accuracies[-1]:.3f}" if now.accuracies else ""
    step = "" if now.steps is None else f"{now.step}/{now.steps}"
    shared = run.path.parent.name != runs.path.resolve().name
    folder = f"{run.path.parent.name}/{run.path.name}" if shared else run.path.name
    return [run.arm, seed_text(run.seed), now.state, step, accuracy, folder]


def _show_run(run: Run) -> list[str]:
    rows, proofs = run.metrics, run.provenance
    config = yaml.safe_dump(run.config, sort_keys=False).splitlines()
    lines = [str(run.path), f"arm: {run.arm}, seed {seed_text(run.seed)}", *_state(run)]
    lines += ["", "config:", *(f"  {line}" for line in config)]
    lines += ["", f"last metrics, of {len(rows)} evaluations:"]
    if rows:
        lines += columns([[key, number(value)] for key, value in rows[-1].items()], indent="  ")
    lines += ["", f"worked on {len(proofs)} time{'' if len(proofs) == 1 else 's'}:"]
    for proof in proofs:
        lines += [f"  {proof.get('started')}", *(f"    {k}: {v}" for k, v in _facts(proof))]
    size, saved = usage(run.path).size, usage(run.path / CHECKPOINTS).size
    return [*lines, "", f"size: {in_words(size)}, {in_words(saved)} of it checkpoints"]


def _state(run: Run) -> list[str]:
    status, now = run.status, Observer().look([run])[0]
    at = f"step {now.step}" + ("" if now.steps is None else f" of {now.steps}")
    who = f"pid {status.get('pid')} on {status.get('host')}"
    if now.state == "stopped":
        return [f"state: running, it says, at {at}, but its process ({who}) is no more; "
                "the same command goes on from the last checkpoint"]  # fmt: skip
    if now.state == "running":
        return [f"state: running, {at}, {who}"]
    if now.state == "failed":
        return [f"state: failed: {status.get('error')}", f"all of it: {run.path / ERROR}"]
    if now.state == "diverged":
        where = status["diverged"]
        return [
            f"state: diverged at step {where['step']}: loss, gradient or new parameters not "
            f"finite; largest parameter just before: {where['layer']}, norm {where['norm']:.3g}"
        ]
    return [f"state: {now.state}, {at}"]


def number(value: Any) -> str:
    """Write a metric for people.

    >>> number(0.123456789), number(100000), number(None)
    ('0.123457', '100000', 'None')
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _facts(proof: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """List a record of provenance; an older normlab may have written less."""
    yield "command", shlex.join(proof.get("command", []))
    git = proof.get("git")
    if git:
        changes = f", with changes ({git['dirty']})" if "dirty" in git else ""
        yield "commit", git["commit"] + changes
    versions = proof.get("versions", {})
    yield "versions", ", ".join(f"{name} {v}" for name, v in versions.items() if v)
    devices = Counter(proof.get("devices", []))
    yield "devices", ", ".join(f"{n} x {device}" for device, n in devices.items())
    cores = f"{proof.get('cores')} of {proof.get('cpus')} cores"
    if proof.get("at_once", 1) > 1:
        cores += f", {proof['at_once']} runs at once"
    yield "host", f"{proof.get('host')}, {proof.get('platform')}, {cores}"
    if made_by := proof.get("made_by"):
        yield "made by", ", ".join(f"{what} {which}" for what, which in made_by.items())
    for name, value in proof.get("own_code", {}).items():
        yield "own code", f"{name} {value}"
    for name, value in unusual(proof).items():
        yield "flags", f"{name}={value}"
    for name, value in proof.get("environment", {}).items():
        yield "environment", f"{name}={value}"
    for name, value in proof.get("set_by_normlab", {}).items():
        yield "set by normlab", f"{name}: {value}"
    data = proof["data"]
    yield "data", ", ".join(f"{key} {value}" for key, value in data.items())
