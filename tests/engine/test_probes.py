"""Runs with probes: they train as without, and what was seen is on disk once, whatever happens."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from normlab.configs.experiment import load_experiment
from normlab.data import Shapes
from normlab.engine import probe_rows
from normlab.engine.engine import Engine
from normlab.reports.shown_comparison import compare
from normlab.store.loading import load
from normlab.training.events import Lookable
from tests.shared import small_runs
from tests.shared.small_runs import TINY, child

from .test_interruption import WORKER

PROBES = "probes: {{at: [{}], every: 4, examples: 50, measure: ['my_probes:Sizes']}}\n"
ALL = [0, 2, 4, 8, 12, 16, 18]  # of 18 steps

pytestmark = pytest.mark.usefixtures("own_files")


def steps_of(run, quantity="loss"):
    return [row["step"] for row in run.probes if row.get("quantity") == quantity]


def without_seconds(rows):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run with probes, made once; nobody writes to it."""
    folder = tmp_path_factory.mktemp("unbroken")
    file = folder / "tiny.yaml"
    file.write_text(TINY + PROBES.format("2, end"))
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.syspath_prepend(str(Path(small_runs.__file__).parent))
        outcome = Engine(load_experiment(file), folder / "runs").run_all()
    return outcome.runs.runs[0]


@pytest.fixture
def probed(tiny):
    return tiny(PROBES.format("2, end"))


def test_parameters_and_metrics_are_bitwise_those_of_a_run_without(tiny, unbroken, make):
    looked = unbroken
    plain = make(tiny(name="plain.yaml")).runs.runs[0]
    jax.tree.map(np.testing.assert_array_equal, looked.params(), plain.params())
    assert without_seconds(looked.metrics) == without_seconds(plain.metrics)
    assert plain.probes == [] and not (plain.path / "probes.jsonl").exists()
    assert "probe_seconds" not in plain.status


def test_what_they_saw_is_kept_as_strict_json_with_what_is_not_finite_as_null(unbroken):
    run = unbroken
    assert steps_of(run) == ALL
    lines = (run.path / "probes.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert rows == run.probes and len(rows) == 5 * len(ALL)
    by_name = {row["quantity"]: row for row in rows[:5]}
    assert by_name["size"]["layers"] == [f"array_{i}" for i in range(5)]
    assert by_name["odd"]["values"][:2] == [None, None]
    assert by_name["odd"]["values"][2] == by_name["loss"]["values"]
    assert by_name["line"]["values"] == by_name["size"]["values"][:3]
    final = [np.sum(np.abs(leaf) ** 2) for leaf in jax.tree.leaves(run.params())]
    last = [row["values"] for row in rows if row["quantity"] == "size"][-1]
    np.testing.assert_allclose(last, final, rtol=1e-6)


def test_they_look_at_the_first_training_images_standardised(unbroken):
    data = Shapes(train_examples=120, test_examples=50, size=8).load()
    mean, std = data.channel_statistics()
    images = (data.train.images[:50] - mean) / std
    (found, *_) = [row["values"] for row in unbroken.probes if row["quantity"] == "sum"]
    assert found == pytest.approx(float(images.sum()), rel=1e-3, abs=1e-2)


def test_their_seconds_are_told_and_are_no_training(probed, make, monkeypatch, pass_time):
    look = probe_rows.Prober.look

    def slow(self, state):
        rows, seconds = look(self, state)
        pass_time(1000)
        return rows, seconds + 1000

    monkeypatch.setattr(probe_rows.Prober, "look", slow)
    status = make(probed).runs.runs[0].status
    assert status["probe_seconds"] > 1000 * len(ALL)
    assert status["train_seconds"] + status["evaluate_seconds"] < 1000 * len(ALL)


def test_seeds_share_what_is_compiled(tiny, make, monkeypatch):
    made = []
    begin = probe_rows.Prober.__init__
    monkeypatch.setattr(probe_rows.Prober, "__init__",
                        lambda self, *a: (made.append(1), begin(self, *a))[1])  # fmt: skip
    outcome = make(tiny(PROBES.format("0") + "sweep: {seed: 0..2}\n"), "epochs=1")
    assert outcome.states == ["done"] * 3 and len(made) == 1


def test_kill_9_leaves_every_row_once_in_the_end(unbroken, probed, tmp_path, make):
    process = child(WORKER, probed, tmp_path / "killed")
    steps = 0
    assert process.stdout is not None
    for line in process.stdout:
        steps += line == "step\n"
        checkpoints = list((tmp_path / "killed").glob("tiny/*/checkpoints/[0-9]*"))
        if checkpoints and steps >= 10:
            break
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (broken,) = load(tmp_path / "killed" / "tiny").runs
    assert broken.state == "running" and 0 < len(broken.probes) < len(unbroken.probes)
    with (broken.path / "probes.jsonl").open("a") as file:
        file.write('{"step": 12, "probe"')  # torn
    make(probed, out=tmp_path / "killed")
    assert broken.state == "done" and broken.probes == unbroken.probes
    jax.tree.map(np.testing.assert_array_equal, broken.params(), unbroken.params())


@pytest.mark.parametrize("at", [4, 18])  # in the middle, and after the last step
def test_an_interrupted_run_looks_at_each_step_once(unbroken, probed, make, at):
    def interrupt(event):
        if isinstance(event, Lookable) and int(event.state.step) == at:
            signal.raise_signal(signal.SIGINT)

    make(probed, tell=interrupt)
    outcome = make(probed)
    assert outcome.runs.runs[0].state == "done"
    assert outcome.runs.runs[0].probes == unbroken.probes


def test_a_diverged_run_keeps_what_was_seen_before(probed, make):
    outcome = make(probed, "schedule={name: constant_schedule, value: 1e30}")
    (run,) = outcome.runs.runs
    assert run.state == "diverged"
    last = run.status["diverged"]["step"]
    assert steps_of(run) == [step for step in ALL if step <= last] and last < 18


def test_several_processes_at_once(tiny, make):
    made = make(tiny(PROBES.format("end") + "sweep: {seed: 0..1}\n"), jobs=2)
    assert made.states == ["done"] * 2
    assert [len(steps_of(run)) for run in made.runs] == [6, 6]


def test_a_probe_that_fails_while_training_is_noted_and_the_run_goes_on(probed, make, monkeypatch):
    begin = probe_rows.Prober.__init__

    class Broken:
        def measure(self, subject, moment):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")

    def with_a_broken_one(self, *arguments):
        begin(self, *arguments)
        self._probes = {"greedy": Broken(), **self._probes}

    monkeypatch.setattr(probe_rows.Prober, "__init__", with_a_broken_one)
    outcome = make(probed)
    (run,) = outcome.runs.runs
    assert run.state == "done" and steps_of(run) == ALL
    told = "RESOURCE_EXHAUSTED: out of memory"
    assert run.probes[0] == {"step": 0, "probe": "greedy", "error": told}
    warnings = compare(outcome.runs).warnings
    assert f"batch_norm: seed 0, probe greedy failed at step 0: {told}." in warnings


def test_the_rows_as_a_frame(unbroken):
    pytest.importorskip("pandas")
    frame = load(unbroken.path.parent).probes()
    assert list(frame.columns[:2]) == ["arm", "seed"]
    chosen = frame[(frame.quantity == "size") & (frame.step == 0)]
    assert list(chosen.layer) == [f"array_{i}" for i in range(5)]
    assert len(frame[frame.quantity == "odd"]) == 3 * len(set(frame.step))
