"""Measures what a sweep of many runs costs beside the training: nothing is trained.

    python -m experiments.speed.many_runs --runs 2500 5000 10000

The runs are made by normlab's engine, and only the training of each is replaced: ten rows of
metrics and a result are written at once, through the same files, leases and digests. Then each
command is given in a process of its own. Seconds and memory are printed for each number of runs.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normlab.configs.experiment import load_experiment
from normlab.engine import provenance
from normlab.engine.engine import Engine
from normlab.engine.maker import Maker
from normlab.engine.task import Task

CONFIG = """
question: does a sweep of many runs stay quick?
data: {name: shapes, train_examples: 100, test_examples: 50, size: 8}
model: {name: mlp, widths: [8]}
optimizer: {name: sgd, momentum: 0.9}
schedule: {name: cosine_decay_schedule, init_value: 0.1}
train: {epochs: 10, batch_size: 50}
sweep:
  norm: {NORMS}
  seed: 0..LAST
claims:
  - says: batch normalisation is more accurate than layer normalisation
    measure: final(test_accuracy)
    compare: {left: batch_norm 1, right: layer_norm 1}
    expect: difference > 0
"""
ARMS = 20


def config(runs: int) -> str:
    """Write the config of a sweep of so many runs."""
    norms = [
        f"{name} {k}: {{name: {name}, eps: {k}.0e-5}}"
        for name in ("batch_norm", "layer_norm")
        for k in range(1, ARMS // 2 + 1)
    ]
    text = CONFIG.replace("{NORMS}", "{" + ", ".join(norms) + "}")
    return text.replace("LAST", str(runs // ARMS - 1))


def write_at_once(maker: Maker, task: Task) -> tuple[str, str]:
    """Write a run as if it had been trained."""
    run, config = task.run, task.config
    about = {"arm": config.arm, "seed": config.seed, "steps": 20, "parameters": 1000}
    run.write_config(config.sections)
    run.write_status("running", **about)
    run.add_provenance(_collected(maker, task))
    level = 0.5 + 0.1 * (config.sections["norm"]["name"] == "batch_norm")
    for epoch in range(1, 11):
        noise = (config.seed * 7919 + epoch * 104729 + len(config.arm) * 31) % 1000 / 20000
        accuracy = level * (1 - 0.5**epoch) + noise
        run.append_metrics({
            "step": 2 * epoch, "epoch": float(epoch), "train_loss": 1 - accuracy,
            "train_accuracy": accuracy, "test_loss": 1 - accuracy, "test_accuracy": accuracy,
            "train_seconds": 0.1 * epoch,
        })  # fmt: skip
    times = {"compile_seconds": 1.0, "train_seconds": 1.0, "evaluate_seconds": 0.1}
    run.write_status("done", sealed=True, **about, **times, step=20, peak_bytes=1_000_000)
    return "done", ""


_records: list[dict[str, Any]] = []


def _collected(maker: Maker, task: Task) -> dict[str, Any]:
    """Collect a record of provenance once, because git is asked for it, which takes long."""
    if not _records:
        data = maker.dataset(task.config)
        _records.append(provenance.collect(data, task.claims, 1, made_by=task.made_by))
    return _records[0]


def make(file: Path, out: Path) -> float:
    """Make a sweep without training; return the seconds that it took."""
    Maker._make = write_at_once  # type: ignore[method-assign]
    began = time.monotonic()
    states = Engine(load_experiment(file), out).run_all().states
    assert set(states) == {"done"}, states
    return time.monotonic() - began


def timed(words: Sequence[str]) -> tuple[float, float]:
    """Give a command; return its seconds, and the most memory that it had, in MB."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "normlab.cli", *words], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{words}: exit status {process.returncode}")
    return time.monotonic() - began, used.ru_maxrss / 1024


def measure(runs: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Measure a sweep of so many runs, in an empty folder."""
    file, out = folder / "many.yaml", folder / "runs"
    file.write_text(config(runs))
    seconds = make(file, out)
    home = str(out / "many")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "make all": (seconds, memory),
        "run, nothing to do": timed(["run", str(file), "--out", str(out)]),
        "runs list": timed(["runs", "list", str(out)]),
        "watch --once": timed(["watch", home, "--once"]),
        "verdict": timed(["verdict", home]),
        "report": timed(["report", home]),
    }


def main(words: Sequence[str]) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[2500, 5000, 10_000])
    given = parser.parse_args(words)
    for runs in given.runs:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{runs} runs")
            for name, (seconds, memory) in measure(runs, Path(folder)).items():
                print(f"  {name:20} {seconds:8.2f} s {memory:8.0f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
