"""Kills a sweep at random moments, and checks that nothing is lost, doubled or different.

    python -m experiments.faults.kill --kills 40 --seed 1

A sweep of four short runs is begun, killed by SIGKILL, SIGTERM or Ctrl-C after a drawn time (the
whole group of processes, or the first alone), and begun again some times. Then the same command
finishes it. Every run must be done once, with the rows and the parameters, to the bit, of a sweep
that nobody disturbed. The moments come from the seed.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from normlab.store.loading import load_runs
from normlab.store.run import Run

CONFIG = """
data: {name: shapes, train_examples: 200, test_examples: 50, size: 8}
model: {name: mlp, widths: [32]}
optimizer: {name: adam, learning_rate: 0.01}
train: {epochs: EPOCHS, batch_size: 20}
sweep: {norm: [batch_norm, layer_norm], seed: 0..1}
"""
SECONDS = ("seconds", "train_seconds", "evaluate_seconds", "compile_seconds")
"""These values differ between two runs of the same config."""


def kill_sweeps(kills: int, seed: int, folder: Path, epochs: int = 30) -> dict[str, int]:
    """Kill sweeps so many times, and count what came of it.

    Args:
        kills: how many.
        seed: the seed of moments, signals and jobs.
        folder: an empty folder.
        epochs: the length of a run.

    Returns:
        `kills`, `sweeps`, `runs` that were finished and compared, `lost` and `different`.
    """
    chosen, counts = random.Random(seed), {"kills": 0, "sweeps": 0, "runs": 0}
    file = folder / "sweep.yaml"
    file.write_text(CONFIG.replace("EPOCHS", str(epochs)))
    took = -time.monotonic()
    finish(file, folder / "undisturbed")
    took += time.monotonic()
    expected = results(folder / "undisturbed" / "sweep")
    counts |= {"lost": 0, "different": 0}
    while counts["kills"] < kills:
        out = folder / f"sweep-{counts['sweeps']}"
        for _ in range(chosen.randint(2, 6)):
            if _is_killed(file, out, chosen, took):
                counts["kills"] += 1
        finish(file, out)
        found = results(out / "sweep")
        counts["sweeps"] += 1
        counts["runs"] += len(found)
        counts["lost"] += len(expected.keys() - found.keys()) + doubled(out / "sweep")
        counts["different"] += sum(
            not same(expected[name], found[name]) for name in expected.keys() & found.keys()
        )
    return counts


def _is_killed(file: Path, out: Path, chosen: random.Random, longest: float) -> bool:
    """Begin a sweep and kill it; return whether it was still there."""
    jobs, whole = chosen.choice(["1", "2"]), chosen.random() < 0.5
    process = subprocess.Popen(
        command(file, out, "--jobs", jobs),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    number = chosen.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    wait = chosen.uniform(0.3, 1.0) * longest
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(wait)
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number) if whole else process.send_signal(number)
    process.wait()
    return True


def command(file: Path, out: Path, *words: str) -> list[str]:
    """Return the words of a command that makes a sweep."""
    return [sys.executable, "-m", "normlab.cli", "run", str(file), "--out", str(out), *words]


def finish(file: Path, out: Path) -> None:
    """Let the command make what is left, in one process."""
    ended = subprocess.run(command(file, out, "--jobs", "1"), capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{out}: exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}")


def results(folder: Path) -> dict[str, tuple[str, list[dict], list[np.ndarray]]]:
    """Return state, rows and parameters of every run, by its name."""
    found = {}
    for run in load_runs(folder):
        assert isinstance(run, Run)
        status, rows, *_ = run.whole()
        rows = [{k: v for k, v in row.items() if k not in SECONDS} for row in rows]
        found[run.path.name] = status["state"], rows, jax.tree.leaves(run.params())
    return {name: one for name, one in found.items() if one[0] == "done"}


def same(one: tuple, other: tuple) -> bool:
    """Return whether two results are the same to the bit."""
    alike = one[:2] == other[:2] and len(one[2]) == len(other[2])
    return alike and all(map(np.array_equal, one[2], other[2]))


def doubled(folder: Path) -> int:
    """Count folders of runs that the experiment does not list."""
    listed = {one["run"] for one in json.loads((folder / "experiment.json").read_text())["runs"]}
    return sum(child.is_dir() and child.name not in listed for child in folder.iterdir())


def main(words: Sequence[str]) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_sweeps(given.kills, given.seed, Path(folder))
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["lost"] or counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
