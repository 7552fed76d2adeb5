"""One run's trouble is its own; what is finished is kept; everything is written down."""

import json
import subprocess
import sys

import pytest

from normlab.engine import maker
from normlab.engine.engine import RunEnded
from normlab.errors import UserError
from normlab.store.loading import load
from normlab.store.runs import Runs


@pytest.fixture
def failing(own_files):
    return "'failing_norm:FailsWhenCompiled'"


def test_a_failure_stops_only_its_own_run_and_names_the_command_to_try_again(tiny, make, failing):
    file = tiny(f"sweep: {{norm: [{failing}, layer_norm]}}\n")
    told = []
    outcome = make(file, tell=told.append)
    assert outcome.states == ["failed", "done"]
    failed = outcome.runs.runs[0]
    assert failed.status["error"] == "RuntimeError: the kernel is broken"
    assert "the kernel is broken" in (failed.path / "error.txt").read_text()
    message = next(e.message for e in told if isinstance(e, RunEnded) and e.state == "failed")
    assert f"again: normlab run {file} norm=failing_norm:FailsWhenCompiled" in message


def test_a_failed_run_is_made_again_and_leaves_no_trace_of_the_failure(tiny, make, monkeypatch):
    from normlab.engine import maker

    file = tiny()
    with monkeypatch.context() as patch:
        patch.setattr(maker, "Compiled", lambda *arguments: 1 / 0)
        assert make(file).states == ["failed"]
    outcome = make(file)
    assert outcome.states == ["done"]
    assert not (outcome.runs.runs[0].path / "error.txt").exists()


def test_a_divergence_is_a_result_with_its_step_and_layer(tiny, make):
    file = tiny("sweep: {norm: [identity, batch_norm]}\n")
    outcome = make(file, "schedule.init_value=1e30")
    diverged = outcome.runs.runs[0]
    assert outcome.states[0] == "diverged" and not outcome.interrupted
    where = diverged.status["diverged"]
    assert 0 < where["step"] <= 3 and where["norm"] > 1e10 and "kernel" in where["layer"]
    assert make(file, "schedule.init_value=1e30").states[0] == "skipped"


def test_finished_runs_are_kept_and_new_ones_added(tiny, make):
    first = make(tiny("sweep: {seed: 0..1}\n"))
    before = [(run.path / "metrics.jsonl").stat().st_mtime_ns for run in first.runs]
    second = make(tiny("sweep: {seed: 0..2}\n"))
    assert second.states == ["skipped", "skipped", "done"]
    assert before == [(r.path / "metrics.jsonl").stat().st_mtime_ns for r in second.runs.runs[:2]]


def test_seeds_share_one_compiled_program(tiny, make, monkeypatch):
    made = []
    original = maker.Compiled
    monkeypatch.setattr(maker, "Compiled", lambda *a: made.append(a) or original(*a))
    make(tiny("sweep: {norm: [batch_norm, layer_norm], seed: 0..2}\n"))
    assert len(made) == 2


def test_a_process_keeps_a_few_programs_and_compiles_the_oldest_again(tiny, make, monkeypatch):
    monkeypatch.setattr(maker, "MOST_PROGRAMS", 1)
    compiled = []
    original = maker.Compiled

    def noted(program, data):
        compiled.append(program.model.norm)
        return original(program, data)

    monkeypatch.setattr(maker, "Compiled", noted)
    outcome = make(tiny("sweep: {seed: 0..1, norm: [identity, batch_norm]}\n"))
    assert [run.state for run in outcome.runs.runs] == ["done"] * 4
    assert len(compiled) == 4  # seed by seed, each arm pushes the other out


def test_a_run_directory_says_how_it_was_made(tiny, make):
    import jax

    outcome = make(tiny(), "epochs=1")
    run = outcome.runs.runs[0]
    (record,) = run.provenance
    assert record["versions"]["jax"] == jax.__version__ and record["versions"]["normlab"]
    assert record["devices"] and record["cpus"] and record["platform"] and record["command"]
    assert len(record["data"]["fingerprint"]) == 16 and "XLA_FLAGS" in record["environment"]
    assert len(record["git"]["commit"]) == 40
    status = run.status
    assert status["arm"] == "batch_norm" and status["seed"] == 0 and status["step"] == 6
    assert status["compile_seconds"] > 0 and status["train_seconds"] > 0
    (row,) = run.metrics
    assert set(row) == {"step", "epoch", "train_loss", "train_accuracy", "test_loss",
                        "test_accuracy", "train_seconds"}  # fmt: skip
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_runs_are_read_back_from_disk(tiny, make, tmp_path):
    made = make(tiny("sweep: {seed: 0..1}\n")).runs
    found = load(tmp_path / "runs" / "tiny")
    assert isinstance(found, Runs) and [run.path for run in found] == [run.path for run in made]
    assert "2 done" in repr(found)
    run = load(made.runs[0].path)
    assert "done" in repr(run) and run.config["norm"]["name"] == "batch_norm"
    params = run.params()
    assert params["Dense_0"]["kernel"].shape == (192, 8)
    with pytest.raises(UserError, match=r"neither a run nor an experiment.*tiny"):
        load(tmp_path / "runs")


def test_a_folder_that_cannot_be_written_is_an_error_without_a_traceback(tiny, tmp_path):
    (tmp_path / "a_file").write_text("in the way")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "normlab.cli",
            "run",
            str(tiny()),
            "--out",
            str(tmp_path / "a_file"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "a_file" in done.stderr


def test_an_experiment_file_is_whole_json(tiny, make):
    outcome = make(tiny("question: why\ntarget: {test_accuracy: 0.3}\n"), "epochs=1")
    about = json.loads((outcome.runs.path / "experiment.json").read_text())
    assert about["question"] == "why" and about["target"] == {"test_accuracy": 0.3}
    assert about["overrides"] == ["epochs=1"] and [run["arm"] for run in about["runs"]] == [
        "batch_norm"
    ]
