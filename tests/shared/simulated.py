"""Experiments written by hand: run directories with known answers."""

from dataclasses import asdict

import yaml

from normlab.store.layout import CLAIMS
from normlab.store.loading import load
from normlab.store.run import Run
from normlab.store.runs import write_experiment
from normlab.store.writing import write_atomically

PROVENANCE = {
    "started": "2026-01-01T00:00:00+00:00",
    "command": ["normlab", "run", "e.yaml"],
    "versions": {"normlab": "0.1.0", "jax": "0.10.2", "python": "3.11.7"},
    "platform": "Linux-6-x86_64",
    "host": "here",
    "cpus": 2,
    "cores": 2,
    "devices": ["cpu: cpu"],
    "environment": {},
    "git": None,
    "data": {
        "name": "simulated",
        "fingerprint": "0123456789abcdef",
        "classes": 10,
        "train_examples": 1000,
        "test_examples": 10_000,
    },
}

STEPS, EVERY = 60, 10


def curve(last, steps=STEPS):
    """Rows of metrics that rise from a guess to `last`."""
    rows = []
    for step in range(EVERY, steps + 1, EVERY):
        accuracy = last - (last - 0.1) * (0.5 ** (step / EVERY) if step < steps else 0)
        rows.append(
            {
                "step": step,
                "epoch": step / 10,
                "train_loss": 2.3 * (1 - accuracy),
                "train_accuracy": min(1.0, accuracy + 0.05),
                "test_loss": 2.3 * (1 - accuracy) + 0.1,
                "test_accuracy": accuracy,
                "train_seconds": step / 100,
            }
        )
    return rows


def write_run(folder, arm, seed, last=None, state="done", axes=None, norm=None, **more):
    """One run; `last` is its final test accuracy."""
    run = Run(folder / f"{arm}-s{seed}", arm, seed, axes or {"norm": arm})
    if state == "new":
        return run
    run.path.mkdir(parents=True)
    step = more.pop("step", STEPS)
    proof = {**PROVENANCE, **more.pop("proof", {})}
    run.write_config(
        {
            "data": {"name": "simulated"},
            "model": {"name": "simulated"},
            "norm": {"name": norm or arm},
            "optimizer": {"name": "sgd", "learning_rate": 0.1},
            "train": {"epochs": 6, "batch_size": 20, "seed": seed},
        }
    )
    run.add_provenance(proof)
    status = {"arm": arm, "seed": seed, "steps": STEPS, "parameters": 1234}
    if state in ("done", "diverged"):
        status |= {"step": step, "train_seconds": step / 100, "compile_seconds": 1.0,
                   "peak_bytes": 5_000_000}  # fmt: skip
    if state == "diverged":
        status["diverged"] = {"step": step, "layer": "Dense_0/kernel", "norm": 1e9}
    run.write_status(state, **status, **more)
    if last is not None:
        for row in curve(last):
            if row["step"] <= step:
                run.append_metrics(row)
    return run


def write(folder, made, claims=(), **about):
    """The experiment of these runs, read back."""
    known = {"name": folder.name, "question": "does it?", "target": None, "config": "e.yaml",
             "overrides": [], "claims": [asdict(claim) for claim in claims]}  # fmt: skip
    write_experiment(folder, {**known, **about}, made)
    write_atomically(folder / CLAIMS, yaml.safe_dump([], default_flow_style=True))
    return load(folder)


def simulate(folder, arms, claims=(), registered=True, **about):
    """An experiment with these final accuracies: arm to one a seed."""
    hashes = [claim.hash for claim in claims] if registered else []
    made = [
        write_run(folder, arm, seed, last, proof={"claims": hashes})
        for arm, values in arms.items()
        for seed, last in enumerate(values)
    ]
    return write(folder, made, claims, **about)
