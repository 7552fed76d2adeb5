"""The table, recomputed by hand from run directories written by hand."""

import json

import pytest

from normlab.evidence.summary import summarise
from normlab.runs.directory import Entry, Run, load, write_experiment


def row(step, accuracy):
    return {"step": step, "test_accuracy": accuracy, "train_seconds": step / 100}


RUNS = {
    ("a", 0): ({"state": "done", "step": 30}, [row(10, 0.2), row(20, 0.6), row(30, 0.5)]),
    ("a", 1): ({"state": "done", "step": 30}, [row(10, 0.6), row(20, 0.6), row(30, 0.7)]),
    ("a", 2): ({"state": "done", "step": 30}, [row(10, 0.1), row(20, 0.2), row(30, 0.3)]),
    ("b", 0): ({"state": "diverged", "step": 4, "diverged": {"step": 4}}, [row(3, 0.9)]),
    ("b", 1): ({"state": "failed", "error": "x"}, []),
    ("c", 0): (None, []),
}


@pytest.fixture
def experiment(tmp_path):
    runs = []
    for (arm, seed), (status, rows) in RUNS.items():
        run = Run(tmp_path / "e" / f"{arm}{seed}")
        runs.append(Entry(run, arm, seed, {"norm": arm}))
        if status is not None:
            run.path.mkdir(parents=True)
            run.write_status(**status, seed=seed, train_seconds=status.get("step", 0) / 100)
            for one in rows:
                run.append_metrics(one)
    about = {"target": {"test_accuracy": 0.5}}
    write_experiment(tmp_path / "e", about, runs)
    return load(tmp_path / "e")


def test_each_arm_is_counted_as_it_ended(experiment):
    a, b, c = summarise(experiment).arms
    assert (a.planned, a.done, a.accuracies) == (3, 3, [0.5, 0.7, 0.3])
    assert a.steps_to_target == [20, 10] and a.seconds_to_target == [0.2, 0.1]
    assert a.seconds_per_step == pytest.approx([0.01] * 3)
    # A diverged run has no accuracy, whatever it had reached before.
    assert (b.planned, b.done, b.accuracies, b.steps_to_target) == (2, 0, [], [])
    assert b.troubles == ["seed 0 diverged at step 4", "seed 1 failed"]
    assert (c.planned, c.done, c.troubles) == (1, 0, ["not begun"])


def test_the_table_says_so(experiment):
    headings, rows = summarise(experiment).table()
    assert headings == ["arm", "runs", "test accuracy", "steps to 0.5", "seconds to 0.5", "s/step",
                        "failed or diverged"]  # fmt: skip
    assert rows[0] == ["a", "3/3", "0.500 ± 0.200 (sd)", "15, 2/3 reached", "0.15", "0.0100", "-"]
    assert rows[1][1:4] == ["0/2", "-", "0/2 reached"]


def test_without_a_target_its_columns_are_left_out(experiment):
    file = experiment.path / "experiment.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "target": None}))
    headings, rows = summarise(load(experiment.path)).table()
    assert not any("to" in heading.split() for heading in headings)
    assert all(len(row) == len(headings) for row in rows)
