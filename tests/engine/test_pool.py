"""Several processes make the runs of one sweep, and none of them is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine, GaveUp, RunEnded
from normlab.engine.plan import Planned
from normlab.errors import UserError
from normlab.store.loading import load
from normlab.store.runs import Runs
from tests.shared.thorough import mostly_thorough
from tests.shared.waiting import GENEROUS, wait_until

COMMAND = [sys.executable, "-m", "normlab.cli", "run"]
ENDLESS = "train.epochs=1000000"

GATED = """
import time
from normlab.engine import maker, worker
from normlab.training.fit import Compiled

original, taken = Compiled.step, 0
def step(self, *arguments):
    global taken
    taken += 1
    while taken > 20 and not worker.stopping.is_set():
        time.sleep(0.01)
    return original(self, *arguments)
Compiled.step = step

def attempt(order):
    return maker.attempt_in_worker(order)
"""
"""No run gets past step 20 before its worker is told to stop."""

RUN_GATED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import gated
from normlab.engine import pool
pool.attempt_in_worker = gated.attempt
from normlab.cli import main
main()
"""


@pytest.fixture
def broken(own_files):
    return "{name: 'failing_norm:FailsWhenCompiled', eps: %s}"


def runs_in(out) -> Runs:
    (folder,) = out.glob("tiny*")  # an override is part of the name
    found = load(folder)
    assert isinstance(found, Runs)
    return found


def begin(file, out, *arguments, command=COMMAND):
    """`normlab run --jobs 2` in a process of its own, when both its workers are training."""
    command = [*command, str(file), "--jobs", "2", "--out", str(out), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def training():
        found = [file.parent for file in out.glob("tiny*/*/metrics.jsonl") if file.stat().st_size]
        return found if len(found) == 2 else []

    both = wait_until(training, process)
    return process, [run.status["pid"] for run in runs_in(out) if run.path in both]


def assert_all_gone(pids):
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))  # noqa: PTH110


def pipes_of(process):
    """Count the pipes that a process holds open: two for each of its workers."""
    return sum(
        str(fd.readlink()).startswith("pipe:") for fd in Path(f"/proc/{process.pid}/fd").iterdir()
    )


def test_runs_are_bitwise_those_of_one_process(tiny, make, tmp_path):
    file = tiny("sweep: {norm: [batch_norm, layer_norm], seed: 0..1}\n")
    told = []
    several = make(file, out=tmp_path / "several", jobs=2, tell=told.append)
    one = make(file, out=tmp_path / "one")
    assert several.states == one.states == ["done"] * 4
    for left, right in zip(several.runs, one.runs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, left.params(), right.params())
    pids = {run.status["pid"] for run in several.runs}
    assert len(pids) == 2 and os.getpid() not in pids
    # XLA has as many threads in each as here, so that numbers do not depend on `jobs`.
    (theirs,), (ours,) = several.runs.runs[0].provenance, one.runs.runs[0].provenance
    assert theirs["cores"] == ours["cores"] and (theirs["at_once"], ours["at_once"]) == (2, 1)
    assert_all_gone(pids)
    # Each worker kept to its arm, but that the faster one may have taken the other's last run.
    assert len({(run.status["pid"], run.status["arm"]) for run in several.runs}) <= 3
    assert sorted(e.index for e in told if isinstance(e, RunEnded)) == [0, 1, 2, 3]
    assert make(file, out=tmp_path / "several", jobs=2).states == ["skipped"] * 4


def assert_saved_by(process, pids, number):
    """After this signal the command says how to go on, and leaves nobody behind."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=GENEROUS)
    assert process.returncode == 130, output
    assert "the same command goes on from here" in output and "Traceback" not in output
    assert_all_gone(pids)


def test_a_signal_lets_every_worker_save_and_begins_no_other_run(tiny, tmp_path):
    process, pids = begin(tiny("sweep: {seed: 0..2}\n"), tmp_path / "out", ENDLESS)
    assert_saved_by(process, pids, signal.SIGTERM)
    runs = runs_in(tmp_path / "out")
    assert [run.state for run in runs] == ["interrupted", "interrupted", "new"]
    for run in runs.runs[:2]:
        (saved,) = (run.path / "checkpoints").glob("[0-9]*")
        assert int(saved.name) == run.status["step"] > 0


@pytest.mark.thorough
def test_a_sweep_interrupted_by_ctrl_c_goes_on_to_the_same_end(tiny, tmp_path, make):
    file = tiny("sweep: {seed: 0..1}\n")
    epochs = "train.epochs=10"
    (tmp_path / "gated.py").write_text(GATED)
    gated = [sys.executable, "-c", RUN_GATED, str(tmp_path), "run"]
    process, pids = begin(file, tmp_path / "out", epochs, command=gated)
    assert_saved_by(process, pids, signal.SIGINT)
    interrupted = runs_in(tmp_path / "out").runs
    assert [run.state for run in interrupted] == ["interrupted"] * 2
    for run in interrupted:
        (saved,) = (run.path / "checkpoints").glob("[0-9]*")
        assert int(saved.name) == run.status["step"] > 0
    broken = make(file, epochs, out=tmp_path / "out", jobs=2).runs
    unbroken = make(file, epochs, out=tmp_path / "unbroken").runs
    for left, right in zip(broken, unbroken, strict=True):
        assert left.state == right.state == "done"
        jax.tree.map(np.testing.assert_array_equal, left.params(), right.params())


def test_a_killed_worker_takes_only_its_own_run_with_it(tiny, tmp_path):
    file = tiny("sweep: {seed: 0..2}\n")
    process, pids = begin(file, tmp_path / "out", ENDLESS)
    os.kill(pids[0], signal.SIGKILL)
    runs = runs_in(tmp_path / "out")
    wait_until(lambda: runs.runs[2].metrics, process)
    assert [run.state for run in runs] == ["failed", "running", "running"]
    assert "killed by SIGKILL" in runs.runs[0].status["error"]
    pids = [run.status["pid"] for run in runs]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=GENEROUS)
    assert process.returncode == 130
    assert "seed 0: failed the process that made it" in output and "seed=0" in output
    assert_all_gone(pids)


def test_a_killed_parent_leaves_no_worker_behind(tiny, tmp_path):
    process, pids = begin(tiny("sweep: {seed: 0..1}\n"), tmp_path / "out", ENDLESS)
    process.kill()
    process.communicate()
    assert_all_gone(pids)
    assert [run.state for run in runs_in(tmp_path / "out")] == ["interrupted"] * 2


@pytest.mark.thorough
def test_a_second_ctrl_c_ends_everything_at_once(tiny, tmp_path):
    process, pids = begin(tiny("sweep: {seed: 0..1}\n"), tmp_path / "out", ENDLESS)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # as if a step took for ever
    before = pipes_of(process)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: pipes_of(process) < before, process)  # it has told its workers to stop
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=GENEROUS)
    assert process.returncode == 130
    assert_all_gone(pids)


@pytest.mark.parametrize("jobs", mostly_thorough([1, 2], [1]))
def test_no_run_is_begun_after_so_many_failures(tiny, make, broken, jobs):
    norms = ", ".join([*(broken % eps for eps in ("1e-5", "1e-4", "1e-3", "1e-2")), "layer_norm"])
    told = []
    outcome = make(
        tiny(f"sweep: {{norm: [{norms}]}}\n"), jobs=jobs, max_failures=2, tell=told.append
    )
    # With two workers, one more may be under way when the second fails.
    failures = outcome.states.count("failed")
    assert 2 <= failures <= 1 + jobs and outcome.states.count("new") == 5 - failures
    assert not outcome.interrupted and GaveUp(failures) in told
    assert "the kernel is broken" in (outcome.runs.runs[0].path / "error.txt").read_text()


def test_a_divergence_is_no_failure(tiny, make):
    file = tiny("sweep: {seed: 0..1}\nname: tiny\n")
    outcome = make(file, "norm=identity", "schedule.init_value=1e30", max_failures=1)
    assert outcome.states == ["diverged", "diverged"]


@pytest.mark.parametrize("jobs", mostly_thorough(["1", "2"], ["1"]))
def test_giving_up_is_said_and_the_status_is_1(tiny, tmp_path, jobs, broken):
    config = tiny(f"sweep: {{norm: [{', '.join(broken % eps for eps in (1, 2, 3))}]}}\n")
    command = [*COMMAND, str(config), "--jobs", jobs, "--max-failures", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / jobs)],
        capture_output=True,
        text=True,
        timeout=GENEROUS,
    )
    assert done.returncode == 1, done.stderr
    assert "failed (--max-failures); no other is begun" in done.stdout
    assert "the kernel is broken" in done.stdout and "Traceback" not in done.stderr


def test_a_script_needs_no_guard_around_its_call(tiny, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import normlab\n"
        f"runs = normlab.run({str(tiny())!r}, out={str(tmp_path / 'out')!r}, jobs=2, epochs=1)\n"
        f"print([run.state for run in runs], runs.runs[0].provenance[0]['command'])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=GENEROUS
    )
    assert f"['done'] ['{script}']" in done.stdout, done.stderr


def test_lists_of_runs_are_made_one_after_the_other(tiny, tmp_path):
    experiment = load_experiment(tiny("sweep: {norm: [batch_norm, layer_norm]}\n"))
    told = []
    engine = Engine(experiment, tmp_path / "runs", told.append)
    with engine.session():
        assert engine.make(experiment.runs[:1]) == ["done"]
        assert engine.make(experiment.runs) == ["skipped", "done"]
    first, *_, last = [event for event in told if isinstance(event, Planned)]
    assert len(first.runs) == 1 and first.finished == 0 and first.epochs == (3, 3)
    assert len(last.runs) == 2 and last.finished == 1
    assert last.seconds is not None and last.seconds > 0


def test_impossible_numbers_are_refused(tiny, make):
    with pytest.raises(UserError, match="jobs must be a positive whole number, got 0"):
        make(tiny(), jobs=0)
    with pytest.raises(UserError, match="max_failures must be"):
        make(tiny(), max_failures=0)
