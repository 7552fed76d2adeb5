"""Published results: the numbers of finished runs in two files that are small enough to commit.

`metrics.json` holds the experiment, its claims and the results of every run; `provenance.json`
holds the code, data and hardware that made the runs. Neither names a computer or its folders.
`load` reads such a folder as it reads an experiment's own, so reports, verdicts and pictures have
one way for both.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from normlab.store import formats
from normlab.store.files import DamagedError, read_json
from normlab.store.flags import without_folders
from normlab.store.layout import FINISHED, PUBLISHED, PUBLISHED_PROVENANCE
from normlab.store.outcomes import packed, read_outcomes, unpacked
from normlab.store.reading import JsonRows, check_last_step
from normlab.store.record import Record
from normlab.store.run import Run
from normlab.store.runs import Runs
from normlab.store.seeds import setting_of
from normlab.store.shapes import fault
from normlab.store.writing import write_atomically

DIGITS = 6
"""Every number is kept with this many significant digits."""

MEND = "restore it as it was committed, or publish the runs again"

KEPT_OF_STATUS = (
    "state", "steps", "step", "parameters", "peak_bytes", "compile_seconds", "train_seconds",
    "evaluate_seconds", "probe_seconds", "diverged",
)  # fmt: skip
KEPT_OF_PROVENANCE = (
    "versions", "platform", "processor", "cpus", "cores", "machine_kind", "devices", "environment",
    "flags", "set_by_normlab", "claims", "at_once", "git", "own_code", "data",
)  # fmt: skip
"""These keys of a run's status and of its provenance are published."""


PACKAGE = Path(__file__).parents[1]


def shipped_results() -> list[Path]:
    """List the folders of the published results that come with normlab.

    They lie in the installed package, or at the top of a copy of the repository.

    >>> "catalogue" in [folder.name for folder in shipped_results()]
    True
    """
    folders = (PACKAGE / "published", PACKAGE.parent / "experiments" / "results")
    folder = next((one for one in folders if one.is_dir()), folders[0])
    return sorted(file.parent for file in folder.glob(f"*/{PUBLISHED}"))


def write_published(
    runs: Runs,
    folder: Path,
    more: dict[str, Any],
    rows: Callable[[JsonRows], JsonRows] = list,
    probes: Callable[[JsonRows], JsonRows] = list,
) -> None:
    """Write an experiment's two files.

    Args:
        runs: an experiment whose runs are finished.
        folder: where the files go; it is made.
        more: facts about the experiment that its own folder lacks.
        rows: a function that chooses the rows of a run's metrics to keep.
        probes: a function that chooses the rows of its probes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = _within(runs.about.get("config") or "")
    known = {"config": config, "ever_claimed": runs.ever_claimed, "minutes": minutes(runs)}
    about = {**runs.about, **known, **more}
    if "tuning" in about:
        about["tuning"] = rounded(about["tuning"])
    base = runs.runs[0].config
    proofs: JsonRows = []
    claims = [*about.get("claims", []), *about["ever_claimed"]]
    answers = any("images" in (claim.get("generalise") or ()) for claim in claims)
    lines = [_line(run, base, proofs, rows, probes, answers) for run in runs.runs]
    trials = [_place(run) | {"status": _status(run)} for run in runs.trials]
    parts = {"about": about, "config": base, "runs": lines, "trials": trials}
    write_atomically(folder / PUBLISHED, _text(parts))
    whole = {"config": config, "overrides": runs.about.get("overrides") or [], **_summary(runs)}
    whole["made_with"] = proofs
    write_atomically(folder / PUBLISHED_PROVENANCE, json.dumps(whole, indent=1) + "\n")


def read_published(folder: Path) -> Runs:
    """Read an experiment from its two files."""
    parts, provenance = (
        read_json(folder / name, shape, MEND)
        for name, shape in (
            (PUBLISHED, formats.PUBLISHED),
            (PUBLISHED_PROVENANCE, formats.PUBLISHED_PROVENANCE),
        )
    )
    if provenance is None:
        raise DamagedError(folder / PUBLISHED_PROVENANCE, "it is missing", MEND)
    records = []
    for line in parts["runs"]:
        _check(folder / PUBLISHED, line, len(provenance["made_with"]))
        config = {s: v for s, v in {**parts["config"], **line["config"]}.items() if v is not None}
        config["train"] = {**config["train"], "seed": setting_of(line["seed"])}
        made_with = [provenance["made_with"][index] for index in line["made_with"]]
        records.append(_record(folder, line, config, made_with))
    trials = [
        _record(folder, line | {"metrics": {}, "probes": []}, {}, []) for line in parts["trials"]
    ]
    return Runs(folder, parts["about"], records, trials)


def _check(file: Path, line: dict[str, Any], proofs: int) -> None:
    """Check the parts of a published run against each other.

    Raises:
        DamagedError: they do not belong to one run.
    """
    status, steps = line["status"], line["metrics"].get("step", [])
    if status["state"] not in FINISHED:
        found = f"it is {status['state']}, and only finished runs are published"
    elif (wrong := fault(status, formats.RESULT[status["state"]])) is not None:
        found = wrong
    elif len({len(column) for column in line["metrics"].values()}) > 1:
        found = "its columns of metrics are not of one length"
    elif any(not formats.COUNT.fits(step) for step in steps):
        found = "'step' must be whole numbers"
    elif not line["made_with"] or max(line["made_with"]) >= proofs:
        found = f"'made_with' must name records of {PUBLISHED_PROVENANCE}"
    elif not all(map(formats.fits_layers, line["probes"])):
        found = "a row of its probes does not have a value for each layer"
    else:
        found = None
    if found is not None:
        raise DamagedError(file, f"{line['run']}: {found}", MEND)
    check_last_step(file, [{"step": step} for step in steps[-1:]], status, MEND)


def _record(
    folder: Path, line: dict[str, Any], config: dict[str, Any], made_with: JsonRows
) -> Record:
    place = {key: line[key] for key in ("arm", "seed")}
    return Record(
        path=folder / line["run"],
        **place,
        axes=line["axes"],
        status=line["status"] | place,
        metrics=_rows(line["metrics"]),
        provenance=made_with,
        probes=line["probes"],
        read_config=lambda: config,
        published=True,
        right=_unpacked(folder, line, made_with),
    )


def _unpacked(folder: Path, line: dict[str, Any], made_with: JsonRows) -> np.ndarray | None:
    if "right" not in line or not made_with:
        return None
    found = unpacked(line["right"], made_with[-1]["data"].get("test_examples", 0))
    if found is None:
        raise DamagedError(folder / PUBLISHED, f"{line['run']}: 'right' is broken", MEND)
    return found


def _rows(columns: dict[str, list[Any]]) -> JsonRows:
    return [
        {key: math.nan if v is None else v for key, v in zip(columns, line, strict=True)}
        for line in zip(*columns.values(), strict=True)
    ]


def _place(run: Run | Record) -> dict[str, Any]:
    return {"run": run.path.name, "arm": run.arm, "seed": run.seed, "axes": run.axes}


def _line(
    run: Run | Record,
    base: dict[str, Any],
    proofs: JsonRows,
    rows: Callable,
    probes: Callable,
    answers: bool,
) -> dict[str, Any]:
    config = run.config
    config = {**config, "train": {**config["train"], "seed": base["train"]["seed"]}}
    made_with = [_proof(record) for record in run.provenance]
    for proof in made_with:
        if proof not in proofs:
            proofs.append(proof)
    return _place(run) | {
        "status": _status(run),
        "config": {
            section: config.get(section)
            for section in {**base, **config}
            if config.get(section) != base.get(section)
        },
        "metrics": _columns(rows(run.metrics)),
        "probes": rounded(probes(run.probes)),
        "made_with": [proofs.index(proof) for proof in made_with],
        **(_right(run) if answers else {}),
    }


def _right(run: Run | Record) -> dict[str, str]:
    """Keep which test examples a run answers rightly, where its answers are known."""
    if isinstance(run, Record) and run.published:
        return {} if run.right is None else {"right": packed(run.right)}
    found = read_outcomes(run.path)
    return {} if found is None else {"right": packed(found.predicted == found.labels)}


def _columns(rows: JsonRows) -> dict[str, list[Any]]:
    names = dict.fromkeys(key for row in rows for key in row)
    return rounded({name: [row.get(name) for row in rows] for name in names})


def _status(run: Run | Record) -> dict[str, Any]:
    status = run.status
    return rounded({key: status[key] for key in KEPT_OF_STATUS if key in status})


def _proof(record: dict[str, Any]) -> dict[str, Any]:
    proof = {key: record[key] for key in KEPT_OF_PROVENANCE if key in record}
    system, *rest = str(proof["platform"]).split("-")
    known = ("x86_64", "aarch64", "arm64", "AMD64")
    proof["platform"] = " ".join([system, *(word for word in rest if word in known)])
    for key in ("environment", "flags"):
        if key in proof:
            kept = {name: without_folders(name, value) for name, value in proof[key].items()}
            proof[key] = {name: value for name, value in kept.items() if value}
    return proof


def _within(config: str) -> str:
    """Give a config's path from the folder in which experiments are run."""
    parts = Path(config).parts
    return "/".join(parts[parts.index("configs") :] if "configs" in parts else parts[-1:])


def _summary(runs: Runs) -> dict[str, Any]:
    started = sorted(p["started"] for run in runs for p in run.provenance if "started" in p)
    names = sorted(run.path.name for run in (*runs.runs, *runs.trials))
    return {
        # It changes with any setting of any run: their names end in the hashes of their configs.
        "hash": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16],
        "runs": len(runs),
        "trials": len(runs.trials),
        "seeds": sorted({run.seed for run in runs}),
        "first_started": started[0] if started else None,
        "last_started": started[-1] if started else None,
        "minutes": minutes(runs),
    }


def minutes(runs: Runs) -> float:
    """Add up how long runs and trials took; runs made at once have a share of the time each."""
    total, compiled = 0.0, {}
    for run in (*runs.runs, *runs.trials):
        status = run.status
        at_once = max([proof.get("at_once", 1) for proof in run.provenance], default=1)
        keys = ("train_seconds", "evaluate_seconds", "probe_seconds")
        total += sum(status.get(key, 0.0) for key in keys) / at_once
        # Runs that differ in their seed share one program, and its time.
        compiled[status.get("compile_seconds", 0.0)] = at_once
    return rounded((total + sum(seconds / n for seconds, n in compiled.items())) / 60)


def rounded(value: Any) -> Any:
    """Round every number to `DIGITS` significant digits; a number that is not finite becomes null.

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
    """Write JSON with a line for each run, so that a diff shows which run has changed."""

    def lines(found: Iterable[Any]) -> str:
        dumped = (json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in found)
        return "[" + ",".join(f"\n{line}" for line in dumped) + "]"

    about = json.dumps({key: parts[key] for key in ("about", "config")}, indent=1)
    runs, trials = lines(parts["runs"]), lines(parts["trials"])
    return f'{about[:-2]},\n "runs": {runs},\n "trials": {trials}\n}}\n'
