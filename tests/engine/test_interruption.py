"""Whatever breaks a run off, the same command ends with bitwise what an unbroken one gives."""

import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine
from normlab.errors import UserError
from normlab.store.loading import load
from normlab.store.run import Run
from normlab.training.events import Row
from tests.shared.small_runs import child
from tests.shared.thorough import mostly_thorough
from tests.shared.waiting import GENEROUS, wait_until

WORKER = """
import sys, time
from pathlib import Path
from normlab.engine.engine import Engine
from normlab.configs.experiment import load_experiment
from normlab.training import fit

original = fit.Compiled.step
def slow_step(self, *arguments):
    print("step", flush=True)
    time.sleep(0.05)
    while wait_for and not wait_for.exists():
        time.sleep(0.05)
    return original(self, *arguments)
fit.Compiled.step = slow_step
file, out, *rest = map(Path, sys.argv[1:])
wait_for = rest[0] if rest else None
Engine(load_experiment(file), out, checkpoint_seconds=0.3).run_all()
"""

COMMAND = [sys.executable, "-m", "normlab.cli", "run"]


def only_run(out):
    (folder,) = out.glob("tiny*")  # an override is part of the name
    (run,) = load(folder).runs
    return run


def without_seconds(rows):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def assert_same_run(one: Run, other: Run):
    assert one.state == other.state == "done"
    jax.tree.map(np.testing.assert_array_equal, one.params(), other.params())
    assert without_seconds(one.metrics) == without_seconds(other.metrics)


@pytest.mark.parametrize("model", mostly_thorough(["mlp", "resnet"], ["mlp"]))
def test_kill_9_in_the_middle_of_an_epoch(tiny, tmp_path, make, model):
    file = tiny()
    if model == "resnet":
        mlp = "{name: mlp, widths: [8], activation: relu}"
        file.write_text(file.read_text().replace(mlp, "{name: resnet, depth: 8, width: 4}"))
    unbroken = make(file, out=tmp_path / "unbroken").runs.runs[0]

    process = child(WORKER, file, tmp_path / "killed")
    steps = 0
    assert process.stdout is not None
    for line in process.stdout:
        steps += line == "step\n"
        checkpoints = list((tmp_path / "killed").glob("tiny/*/checkpoints/[0-9]*"))
        # Past an evaluation and a checkpoint after it, and in the middle of an epoch of six steps.
        later = any(int(path.name) >= 6 for path in checkpoints)
        if later and steps >= 10 and steps % 6 in (3, 4):
            break
    process.kill()
    process.communicate()
    broken = only_run(tmp_path / "killed")
    assert process.returncode == -signal.SIGKILL
    assert broken.state == "running" and steps < 18

    resumed = []
    make(file, out=tmp_path / "killed", tell=lambda event: resumed.append(event))
    made_again = [event.metrics["step"] for event in resumed if isinstance(event, Row)]
    assert len(made_again) < 3, "it went on from the checkpoint and did not begin again"
    assert_same_run(only_run(tmp_path / "killed"), unbroken)
    assert len(only_run(tmp_path / "killed").provenance) == 2


@pytest.mark.parametrize(
    "number", mostly_thorough([signal.SIGINT, signal.SIGTERM], [signal.SIGINT])
)
def test_a_signal_ends_the_step_saves_and_exits_130(tiny, tmp_path, number):
    file = tiny()
    out = tmp_path / "out"
    command = [*COMMAND, str(file), "train.epochs=1000000", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: any(f.stat().st_size for f in out.glob("tiny*/*/metrics.jsonl")), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=GENEROUS)
    assert process.returncode == 130, output
    assert "the same command goes on from here" in output and "Traceback" not in output
    run = only_run(out)
    assert run.state == "interrupted" and 0 < run.status["step"] < 6_000_000
    assert [path.name for path in (run.path / "checkpoints").glob("[0-9]*")] == [
        str(run.status["step"])
    ]


def test_an_interrupted_run_goes_on_to_the_same_end(tiny, tmp_path, make):
    file = tiny()
    unbroken = make(file, out=tmp_path / "unbroken").runs.runs[0]

    def interrupt(event):
        if isinstance(event, Row) and event.metrics["step"] == 6:
            signal.raise_signal(signal.SIGINT)

    outcome = make(file, tell=interrupt)
    assert outcome.interrupted and outcome.states == ["interrupted"]
    assert make(file).states == ["done"]
    assert_same_run(only_run(tmp_path / "runs"), unbroken)


def test_a_second_process_on_a_run_waits_and_does_no_harm(tiny, tmp_path, make):
    file = tiny()
    out = tmp_path / "runs"
    process = child(WORKER, file, out, tmp_path / "go on")
    assert process.stdout is not None
    for line in process.stdout:
        if line == "step\n":
            break
    second = subprocess.Popen(
        [*COMMAND, str(file), "--out", str(out)], stdout=subprocess.PIPE, text=True
    )
    assert second.stdout is not None
    said = next(line for line in second.stdout if "waiting for another command" in line)
    assert "Ctrl-C ends this" in said
    (tmp_path / "go on").touch()
    for one in (process, second):
        one.communicate(timeout=GENEROUS)
        assert one.returncode == 0
    unbroken = make(file, out=tmp_path / "alone").runs.runs[0]
    assert_same_run(only_run(out), unbroken)


def test_a_torn_last_line_of_metrics_is_left_out_of_an_unfinished_run_alone(tiny, make):
    run = make(tiny()).runs.runs[0]
    rows = run.metrics
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "test_acc')
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        run.metrics  # noqa: B018 (reading it is the test)
    run.write_status("interrupted")
    assert run.metrics == rows and len(rows) == 3


def test_other_data_under_a_half_done_run_are_refused(tiny, tmp_path, make, monkeypatch):
    file = tiny()

    def interrupt(event):
        if isinstance(event, Row):
            signal.raise_signal(signal.SIGINT)

    make(file, tell=interrupt)
    from normlab.data.dataset import Dataset

    monkeypatch.setattr(Dataset, "fingerprint", "0" * 16)
    outcome = make(file)
    assert outcome.states == ["failed"]
    assert "began on other data" in outcome.runs.runs[0].status["error"]


def test_the_engine_needs_no_main_thread(tiny, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    engine = Engine(load_experiment(tiny()), Path(tmp_path / "runs"))
    with ThreadPoolExecutor() as pool:
        assert pool.submit(engine.run_all).result().states == ["done"]
