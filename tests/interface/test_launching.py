"""Several processes make a run together: real ones, which meet on the loopback device."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from normlab.store.loading import load
from tests.shared.command_line import normlab
from tests.shared.small_runs import TINY
from tests.shared.waiting import GENEROUS, wait_until

MANY = TINY.replace("train: {epochs: 3,", "train: {epochs: 200, eval_every: 200,")
MANY = MANY.replace("init_value: 0.1", "init_value: 0.0001")
"""A config of 1,200 steps, so that there is time to break them off, and so small ones that rounding
does not grow in them."""

CHILDREN = "/proc/{0}/task/{0}/children"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "many.yaml").write_text(MANY)
    return tmp_path


def begin(folder, count):
    """Begin `normlab launch`, with one device a process."""
    words = ["launch", "-n", str(count), "run", "many.yaml"]
    return subprocess.Popen(
        [sys.executable, "-m", "normlab.cli", *words],
        cwd=folder,
        env={**os.environ, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def the_run(folder):
    (run,) = load(folder / "runs" / "many").runs
    return run


def wait_for_step(folder, process, step):
    def has_come():
        found = list(folder.glob("runs/many/*/status.json"))
        return found and the_run(folder).status.get("step", 0) > step

    wait_until(has_come, process)


def losses(folder):
    run = the_run(folder)
    assert run.state == "done"
    return np.array([[row[k] for k in ("train_loss", "test_loss")] for row in run.metrics])


@pytest.fixture
def alone(tmp_path_factory):
    """The losses of a run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "many.yaml").write_text(MANY)
    assert normlab("run", "many.yaml", cwd=folder, XLA_FLAGS="").returncode == 0
    return losses(folder)


@pytest.mark.skipif(not Path(CHILDREN.format(os.getpid())).exists(), reason="Linux tells children")
def test_a_killed_process_ends_the_other_and_the_same_command_has_the_losses_of_one(folder, alone):
    process = begin(folder, 2)
    wait_for_step(folder, process, 0)
    (_, other) = Path(CHILDREN.format(process.pid)).read_text().split()
    os.kill(int(other), signal.SIGKILL)
    said, _ = process.communicate(timeout=GENEROUS)
    assert process.returncode == 1
    assert "process 1 of 0 to 1 was killed by SIGKILL, and the others were ended" in said
    assert "Traceback" not in said
    assert the_run(folder).state != "done"

    process = begin(folder, 2)
    said, _ = process.communicate(timeout=GENEROUS)
    assert process.returncode == 0, said
    began, ended = (record["spread_over"] for record in the_run(folder).provenance)
    assert began == ended == {"devices": 2, "processes": 2}
    np.testing.assert_allclose(losses(folder), alone, rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("count", [1, 4])
def test_a_run_begun_by_two_is_gone_on_with_by_another_number(folder, alone, count):
    process = begin(folder, 2)
    wait_for_step(folder, process, 0)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=GENEROUS)
    assert the_run(folder).state == "interrupted", said
    stopped = the_run(folder).status["step"]
    assert 0 < stopped < 1200
    process = begin(folder, count)
    said, _ = process.communicate(timeout=GENEROUS)
    assert process.returncode == 0, said
    assert f"going on from step {stopped}" in said
    np.testing.assert_allclose(losses(folder), alone, rtol=1e-5)


def test_a_mistake_is_told_once_and_ends_all(folder):
    (folder / "many.yaml").write_text(MANY.replace("batch_norm", "btch_norm"))
    process = begin(folder, 2)
    said, _ = process.communicate(timeout=GENEROUS)
    assert process.returncode == 2
    assert said.count("did you mean 'batch_norm'?") == 1
