"""Finished runs made small enough to commit: their numbers as two files, read back as runs.

`metrics.json` holds the experiment, its claims and what became of every run; `provenance.json` what
they were made with. Neither names a computer or a folder of it. `load` reads such a folder like
that of the runs themselves, so reports, verdicts and pictures need no checkpoint and no second way.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normlab.errors import UserError
from normlab.store import written
from normlab.store.files import DamagedError, read_json
from normlab.store.flags import without_folders
from normlab.store.jsonl import write_atomically
from normlab.store.layout import FINISHED, PUBLISHED, PUBLISHED_PROVENANCE
from normlab.store.reading import Whole, check_last_step
from normlab.store.run import Entry, Run
from normlab.store.runs import Runs
from normlab.store.shapes import fault

DIGITS = 6
"""Significant ones, of every number."""

MEND = "restore it as it was committed, or publish the runs again"

STATUS = ("state", "steps", "step", "parameters", "peak_bytes", "compile_seconds", "train_seconds",
          "evaluate_seconds", "probe_seconds", "diverged")  # fmt: skip
PROOF = (
    "versions", "platform", "processor", "cpus", "cores", "machine_kind", "devices", "environment",
    "flags", "set_by_normlab", "claims", "at_once", "git", "own_code", "data",
)  # fmt: skip
"""What is kept of a run's status, and of its provenance."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class PublishedRun(Run):
    """A run of which only its numbers are there."""

    kept: dict[str, Any] = field(compare=False, repr=False)

    @property
    def begun(self) -> bool:
        """Always."""
        return True

    @property
    def config(self) -> dict[str, Any]:
        """As of any run."""
        return self.kept["config"]

    @property
    def status(self) -> dict[str, Any]:
        """As of any run, less what names the process that made it."""
        return self.kept["status"]

    @property
    def metrics(self) -> Rows:
        """As of any run; of long curves not every row."""
        columns = self.kept["metrics"]
        lines = zip(*columns.values(), strict=True)
        return [
            {key: math.nan if v is None else v for key, v in zip(columns, line, strict=True)}
            for line in lines
        ]

    @property
    def probes(self) -> Rows:
        """As of any run; of what the claims name and the pictures show."""
        return self.kept["probes"]

    @property
    def provenance(self) -> Rows:
        """As of any run, less what names the computer."""
        return self.kept.get("provenance", [])  # of a trial there is none

    def whole(self) -> Whole:
        """As of any run."""
        return Whole(self.status, self.metrics, self.provenance, self.probes)

    def params(self) -> Any:
        """Those are not published.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.path.name} is published without its parameters: make the run anew")


def write_published(
    runs: Runs,
    folder: Path,
    more: dict[str, Any],
    rows: Callable[[Rows], Rows] = list,
    probes: Callable[[Rows], Rows] = list,
) -> None:
    """Write the two files.

    Args:
        runs: an experiment whose runs are finished.
        folder: where to; it is made.
        more: to be known of the experiment besides what its own folder says.
        rows: which rows of a run's metrics to keep.
        probes: which rows of what its probes saw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = _within(runs.about.get("config") or "")
    known = {"config": config, "ever_claimed": runs.ever_claimed, "minutes": minutes(runs)}
    about = {**runs.about, **known, **more}
    if "tuning" in about:
        about["tuning"] = rounded(about["tuning"])
    base = runs.entries[0].run.config
    proofs: list[dict[str, Any]] = []
    lines = [_run(entry, base, proofs, rows, probes) for entry in runs.entries]
    trials = [_place(entry) | {"status": _status(entry.run)} for entry in runs.trials]
    parts = {"about": about, "config": base, "runs": lines, "trials": trials}
    write_atomically(folder / PUBLISHED, _text(parts))
    whole = {"config": config, "overrides": runs.about.get("overrides") or [], **_summary(runs)}
    whole["made_with"] = proofs
    write_atomically(folder / PUBLISHED_PROVENANCE, json.dumps(whole, indent=1) + "\n")


def read_published(folder: Path) -> Runs:
    """An experiment from the two files."""
    parts, provenance = (
        read_json(folder / name, shape, MEND)
        for name, shape in (
            (PUBLISHED, written.PUBLISHED),
            (PUBLISHED_PROVENANCE, written.PUBLISHED_PROVENANCE),
        )
    )
    if provenance is None:
        raise DamagedError(folder / PUBLISHED_PROVENANCE, "it is missing", MEND)
    entries = []
    for line in parts["runs"]:
        _check(folder / PUBLISHED, line, len(provenance["made_with"]))
        config = {s: v for s, v in {**parts["config"], **line["config"]}.items() if v is not None}
        config["train"] = {**config["train"], "seed": line["seed"]}
        kept = {
            "config": config,
            "status": line["status"] | {key: line[key] for key in ("arm", "seed")},
            "metrics": line["metrics"],
            "probes": line["probes"],
            "provenance": [provenance["made_with"][index] for index in line["made_with"]],
        }
        entries.append(_entry(folder, line, kept))
    trials = [
        _entry(folder, line, {"status": line["status"], "metrics": {}, "probes": []})
        for line in parts["trials"]
    ]
    return Runs(folder, parts["about"], entries, trials)


def _check(file: Path, line: dict[str, Any], proofs: int) -> None:
    """Hold the parts of a published run to each other.

    Raises:
        DamagedError: they are not of one run.
    """
    status, steps = line["status"], line["metrics"].get("step", [])
    if status["state"] not in FINISHED:
        found = f"it is {status['state']}, and only finished runs are published"
    elif (wrong := fault(status, written.RESULT[status["state"]])) is not None:
        found = wrong
    elif len({len(column) for column in line["metrics"].values()}) > 1:
        found = "its columns of metrics are not of one length"
    elif any(not written.COUNT.fits(step) for step in steps):
        found = "'step' must be whole numbers"
    elif not line["made_with"] or max(line["made_with"]) >= proofs:
        found = f"'made_with' must name records of {PUBLISHED_PROVENANCE}"
    elif not all(map(written.fits_layers, line["probes"])):
        found = "a row of its probes does not have a value for each layer"
    else:
        found = None
    if found is not None:
        raise DamagedError(file, f"{line['run']}: {found}", MEND)
    check_last_step(file, [{"step": step} for step in steps[-1:]], status, MEND)


def _entry(folder: Path, line: dict[str, Any], kept: dict[str, Any]) -> Entry:
    run = PublishedRun(folder / line["run"], kept)
    return Entry(run, line["arm"], line["seed"], line["axes"])


def _place(entry: Entry) -> dict[str, Any]:
    return {"run": entry.run.path.name, "arm": entry.arm, "seed": entry.seed, "axes": entry.axes}


def _run(
    entry: Entry, base: dict[str, Any], proofs: Rows, rows: Callable, probes: Callable
) -> dict[str, Any]:
    config = entry.run.config
    config["train"] = {**config["train"], "seed": base["train"]["seed"]}
    made_with = [_proof(record) for record in entry.run.provenance]
    for proof in made_with:
        if proof not in proofs:
            proofs.append(proof)
    return _place(entry) | {
        "status": _status(entry.run),
        "config": {
            section: config.get(section)
            for section in {**base, **config}
            if config.get(section) != base.get(section)
        },
        "metrics": _columns(rows(entry.run.metrics)),
        "probes": rounded(probes(entry.run.probes)),
        "made_with": [proofs.index(proof) for proof in made_with],
    }


def _columns(rows: Rows) -> dict[str, list[Any]]:
    names = dict.fromkeys(key for row in rows for key in row)
    return rounded({name: [row.get(name) for row in rows] for name in names})


def _status(run: Run) -> dict[str, Any]:
    status = run.status
    return rounded({key: status[key] for key in STATUS if key in status})


def _proof(record: dict[str, Any]) -> dict[str, Any]:
    proof = {key: record[key] for key in PROOF if key in record}
    system, *rest = str(proof["platform"]).split("-")
    known = ("x86_64", "aarch64", "arm64", "AMD64")
    proof["platform"] = " ".join([system, *(word for word in rest if word in known)])
    for key in ("environment", "flags"):
        if key in proof:
            kept = {name: without_folders(name, value) for name, value in proof[key].items()}
            proof[key] = {name: value for name, value in kept.items() if value}
    return proof


def _within(config: str) -> str:
    """The config's path from the folder that experiments are run in."""
    parts = Path(config).parts
    return "/".join(parts[parts.index("configs") :] if "configs" in parts else parts[-1:])


def _summary(runs: Runs) -> dict[str, Any]:
    started = sorted(p["started"] for e in runs.entries for p in e.run.provenance if "started" in p)
    names = sorted(entry.run.path.name for entry in (*runs.entries, *runs.trials))
    return {
        # It changes with any setting of any run: their names end in the hashes of their configs.
        "hash": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16],
        "runs": len(runs.entries),
        "trials": len(runs.trials),
        "seeds": sorted({entry.seed for entry in runs.entries}),
        "first_started": started[0] if started else None,
        "last_started": started[-1] if started else None,
        "minutes": minutes(runs),
    }


def minutes(runs: Runs) -> float:
    """How long runs and trials took; of those made together each has its share."""
    total, compiled = 0.0, {}
    for entry in (*runs.entries, *runs.trials):
        status = entry.run.status
        at_once = max([proof.get("at_once", 1) for proof in entry.run.provenance], default=1)
        keys = ("train_seconds", "evaluate_seconds", "probe_seconds")
        total += sum(status.get(key, 0.0) for key in keys) / at_once
        # Runs that differ in their seed share one program, and its time.
        compiled[status.get("compile_seconds", 0.0)] = at_once
    return rounded((total + sum(seconds / n for seconds, n in compiled.items())) / 60)


def rounded(value: Any) -> Any:
    """With so many significant digits, and null for what is not finite.

    >>> rounded({"loss": [1.23456789, float("nan")], "step": 123456789})
    {'loss': [1.23457, None], 'step': 123456789}
    """
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _text(parts: dict[str, Any]) -> str:
    """JSON with a line for each run, so that a difference shows which it is."""

    def lines(found: Iterable[Any]) -> str:
        dumped = (json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in found)
        return "[" + ",".join(f"\n{line}" for line in dumped) + "]"

    about = json.dumps({key: parts[key] for key in ("about", "config")}, indent=1)
    runs, trials = lines(parts["runs"]), lines(parts["trials"])
    return f'{about[:-2]},\n "runs": {runs},\n "trials": {trials}\n}}\n'
