"""Makes runs that were never trained, with results that a program draws, in memory or on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from normlab.measures.claims import Claim
from normlab.store.record import Record
from normlab.store.run import Run
from normlab.store.runs import Runs, note_claims, write_experiment

STEPS = 60

PROVENANCE = {
    "started": "2026-01-01T00:00:00+00:00",
    "command": ["normlab", "run", "imagined.yaml"],
    "versions": {"normlab": "0.1.0", "jax": "0.10.2", "python": "3.11.7"},
    "platform": "Linux-6-x86_64",
    "host": "here",
    "cpus": 2,
    "cores": 2,
    "devices": ["cpu: cpu"],
    "environment": {},
    "git": None,
    "data": {
        "name": "imagined",
        "fingerprint": "0123456789abcdef",
        "classes": 10,
        "train_examples": 1000,
        "test_examples": 10_000,
    },
}


def config_of(arm: str, seed: int, model: str = "imagined") -> dict[str, Any]:
    """Return the resolved config of a run."""
    return {
        "data": {"name": "imagined"},
        "model": {"name": model},
        "norm": {"name": arm},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "train": {"epochs": 6, "batch_size": 20, "seed": seed},
    }


def imagine(
    arms: Mapping[str, Sequence[float] | np.ndarray],
    claims: Sequence[Claim] = (),
    axes: Mapping[str, dict[str, Any]] | None = None,
    models: Mapping[str, str] | None = None,
    **about: Any,
) -> Runs:
    """Return an experiment that lies nowhere, so that thousands of them take little time.

    Args:
        arms: for each arm the final test accuracies, one a seed from 0.
        claims: its claims, registered before the runs.
        axes: for each arm its value on every axis; by default it is a normaliser of its name.
        models: for each arm the name of its model; arms with other models are not paired.
        about: more about the experiment, such as its plan.
    """
    proof = {**PROVENANCE, "claims": [claim.hash for claim in claims]}
    axes, models = axes or {}, models or {}
    records = []
    for arm, values in arms.items():
        for seed, last in enumerate(values):
            config = config_of(arm, seed, models.get(arm, "imagined"))
            status = {"arm": arm, "seed": seed, "state": "done", "steps": STEPS, "step": STEPS}
            records.append(
                Record(
                    path=Path(f"{arm}-s{seed}"),
                    arm=arm,
                    seed=seed,
                    axes=axes.get(arm, {"norm": arm}),
                    status=status,
                    metrics=[{"step": STEPS, "epoch": 6, "test_accuracy": float(last)}],
                    provenance=[proof],
                    probes=[],
                    read_config=lambda config=config: config,
                    published=True,
                )
            )
    known = {"name": "imagined", "claims": [claim.kept() for claim in claims], "ever_claimed": []}
    return Runs(Path("imagined"), {**known, **about}, records)


def write_run(folder: Path, arm: str, seed: int, last: float, claims: Sequence[Claim]) -> Run:
    """Write a finished run into an experiment's folder."""
    run = Run(folder / f"{arm}-s{seed}", arm, seed, {"norm": arm})
    run.path.mkdir(parents=True)
    run.write_config(config_of(arm, seed))
    run.add_provenance({**PROVENANCE, "claims": [claim.hash for claim in claims]})
    run.append_metrics({"step": STEPS, "epoch": 6, "test_accuracy": float(last)})
    status = {"arm": arm, "seed": seed, "steps": STEPS, "step": STEPS, "train_seconds": 0.6,
              "parameters": 1234, "compile_seconds": 1.0, "peak_bytes": 5_000_000}  # fmt: skip
    run.write_status("done", sealed=True, **status)
    return run


def write_list(folder: Path, runs: Sequence[Run], claims: Sequence[Claim], **about: Any) -> None:
    """Write an experiment's list of its runs, and its claims."""
    known = {"name": folder.name, "question": None, "target": None, "config": "imagined.yaml",
             "overrides": [], "claims": [asdict(claim) for claim in claims]}  # fmt: skip
    note_claims(folder, known["claims"])
    write_experiment(folder, {**known, **about}, runs)
