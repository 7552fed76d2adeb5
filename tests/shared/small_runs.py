"""A tiny experiment for tests: its config, its runs, and a person's own code beside it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import yaml

from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine
from normlab.engine.maker import Maker
from tests.shared.simulated import PROVENANCE, STEPS, curve

TINY = """
data: {name: shapes, train_examples: 120, test_examples: 50, size: 8, augment: [flip]}
model: {name: mlp, widths: [8], activation: relu}
norm: batch_norm
optimizer: {name: sgd, momentum: 0.9}
schedule: {name: cosine_decay_schedule, init_value: 0.1}
train: {epochs: 3, batch_size: 20}
"""


@pytest.fixture(autouse=True)
def promotion_as_users_have_it():
    """Optax's schedules and Adam mix dtypes, so whole runs cannot be made under "strict"."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def swept(sweep):
    """The first value, as YAML, of every section that a sweep has on an axis without batch norm.

    A base that no run of a sweep has is a mistake, so tests take one of the sweep's values for it.
    """
    found = {}
    for axis, values in sweep.items() if isinstance(sweep, dict) else ():
        every = list(values.values()) if isinstance(values, dict) else values
        if isinstance(every, list) and every and "batch_norm" not in every:
            found[axis] = yaml.safe_dump(every[0], default_flow_style=True).partition("\n")[0]
    return found


@pytest.fixture
def tiny(tmp_path):
    """A function that writes the tiny config, with lines added, and returns its file."""

    def write(more="", name="tiny.yaml"):
        file = tmp_path / name
        base = swept(yaml.safe_load(more).get("sweep") if "sweep" in more else None).get("norm")
        text = TINY if base is None else TINY.replace("norm: batch_norm", f"norm: {base}")
        file.write_text(text + more)
        return file

    return write


@pytest.fixture
def config(tmp_path):
    """A function that writes any text or bytes as a config, and returns its file."""

    def write(content, name="experiment.yaml"):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


@pytest.fixture
def make(tmp_path):
    """A function that makes the runs of a config in this process."""

    def run(file, *overrides, tell=lambda event: None, out=tmp_path / "runs", **settings):
        return Engine(load_experiment(file, overrides), out, tell, **settings).run_all()

    return run


@pytest.fixture
def own_files(monkeypatch):
    """Python finds the files of this folder, here and in processes begun from here."""
    folder = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))


def child(code, *arguments):
    """A Python process of its own that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def by_hand(monkeypatch):
    """Runs are written down as if they had been trained, at once; the list says which."""
    made = []

    def write(maker, task):
        run, config = task.run, task.config
        made.append((config.arm, config.seed))
        run.write_config(config.sections)
        run.write_status("running", arm=config.arm, seed=config.seed)
        run.add_provenance({**PROVENANCE, "claims": list(task.claims)})
        for row in curve(0.5 + config.seed / 100):
            run.append_metrics(row)
        about = {"arm": config.arm, "seed": config.seed, "steps": STEPS, "step": STEPS}
        run.write_status("done", sealed=True, **about, train_seconds=1.0)
        return "done", ""

    monkeypatch.setattr(Maker, "_make", write)
    return made
