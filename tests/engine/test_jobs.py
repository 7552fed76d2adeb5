"""The right number of runs is made at once where nobody says how many."""

import json

import pytest

from normlab.configs.experiment import load_experiment
from normlab.engine import jobs
from normlab.store.layout import STATUS

CLAIM = """
claims:
  - says: it is quick
    measure: {measure}
    compare: {{left: batch_norm, right: identity}}
    expect: ratio <= 2
"""


@pytest.fixture
def by_default(tiny, tmp_path, monkeypatch):
    """A function that says how many of a tiny config's runs are made at once on some cores."""
    monkeypatch.setattr(jobs, "WORTH_WORKERS", 0)

    def ask(more, cores=2, overrides=()):
        monkeypatch.setattr(jobs, "usable_cores", lambda: cores)
        return jobs.jobs_for(load_experiment(tiny(more), overrides), tmp_path)

    return ask


@pytest.mark.parametrize(("cores", "runs", "expected"), [
    (2, 20, 2), (2, 4, 2), (2, 3, 1), (2, 1, 1), (1, 20, 1), (64, 20, 4), (3, 20, 3), (None, 9, 1),
])  # fmt: skip
def test_there_are_as_many_as_cores_and_two_runs_for_each(by_default, cores, runs, expected):
    assert by_default(f"sweep: {{seed: 0..{runs - 1}}}\n", cores) == expected


def test_runs_that_are_soon_made_are_made_here(by_default, monkeypatch):
    monkeypatch.setattr(jobs, "WORTH_WORKERS", 4 * 18 * 20 + 1)  # examples of 4 runs of 18 steps
    assert by_default("sweep: {seed: 0..3}\n") == 1
    assert by_default("sweep: {seed: 0..4}\n") == 2


def test_finished_runs_are_not_counted(by_default, tiny, tmp_path):
    sweep = "sweep: {seed: 0..4}\n"
    for run in load_experiment(tiny(sweep)).runs[:2]:
        folder = tmp_path / "tiny" / run.id
        folder.mkdir(parents=True)
        (folder / STATUS).write_text(json.dumps({"state": "done"}))
    assert by_default(sweep) == 1


def test_trials_count_as_runs(by_default):
    tuned = "tune: {grid: {learning_rate: [0.1, 0.2]}, seeds: 7..8}\n"
    validated = "data.validation=20"
    assert by_default(tuned, overrides=(validated,)) == 2


@pytest.mark.parametrize("measure", ["seconds_per_step", "seconds_to(test_accuracy, 0.2)"])
def test_where_seconds_are_judged_one_run_has_the_machine(by_default, measure):
    sweep = "sweep: {norm: [batch_norm, identity], seed: 0..4}\n"
    assert by_default(sweep + CLAIM.format(measure="steps_to(test_accuracy, 0.2)")) == 2
    assert by_default(sweep + CLAIM.format(measure=measure)) == 1


def test_a_gpu_makes_one_at_a_time(by_default, monkeypatch):
    monkeypatch.setattr(jobs.jax, "default_backend", lambda: "gpu")
    assert by_default("sweep: {seed: 0..9}\n") == 1
