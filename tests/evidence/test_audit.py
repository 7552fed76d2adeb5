"""What an audit finds: plans and results against the journal."""

import json

import pytest

from normlab.evidence.audit import audit
from normlab.store.journal import note, read_journal
from normlab.store.layout import JOURNAL, METRICS, STATUS
from normlab.store.loading import load_runs
from normlab.store.reading import digest, sealed
from tests.shared.simulated import simulate

PLAN = {"seeds": [0, 1, 2], "looks": [3]}


@pytest.fixture
def folder(tmp_path):
    runs = simulate(tmp_path / "e", {"a": [0.7, 0.71, 0.69], "b": [0.5, 0.51, 0.49]}, plan=PLAN)
    note(runs.path, "registered", **PLAN, arms=["a", "b"], claims={"1": "a beats b"})
    for run in runs.runs:
        (run.path / STATUS).write_text(json.dumps(sealed(run.path, run.status)))
        note(runs.path, "finished", run=run.path.name, digest=digest(run.status))
    return runs.path


def found(folder):
    return " ".join(audit(load_runs(folder)))


def rewrite(folder, change):
    lines = (folder / JOURNAL).read_text().splitlines(keepends=True)
    (folder / JOURNAL).write_text("".join(change(lines)))


def test_an_untouched_experiment_has_no_findings(folder):
    assert audit(load_runs(folder)) == [] and len(read_journal(folder).lines) == 7


def test_an_experiment_without_a_journal_has_none(folder):
    (folder / JOURNAL).unlink()
    assert audit(load_runs(folder)) == []


CHANGES = {
    "a line taken out": lambda lines: lines[:2] + lines[3:],
    "two lines exchanged": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "a line changed": lambda lines: [lines[0].replace("[3]", "[2]"), *lines[1:]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_journal_is_found(folder, change):
    rewrite(folder, CHANGES[change])
    assert "The journal was changed: its line" in found(folder)


def test_a_torn_last_line_is_cut_off_and_the_chain_goes_on(folder):
    with (folder / JOURNAL).open("a") as handle:
        handle.write('{"at": "2026')
    assert audit(load_runs(folder)) == []
    note(folder, "deleted", run="x")
    assert read_journal(folder).broken is None and len(read_journal(folder).lines) == 8


def test_a_removed_run_is_found(folder):
    for file in (folder / "a-s1").iterdir():
        file.unlink()
    assert "a-s1 had a result, which is gone without a command that deleted it." in found(folder)
    note(folder, "deleted", run="a-s1")
    assert "a-s1 had a result, which was deleted." in found(folder)


def test_an_edited_metric_is_found_though_the_digests_were_made_anew(folder):
    run = load_runs(folder).runs[0]
    metrics = run.path / METRICS
    metrics.write_text(metrics.read_text().replace("0.7,", "0.8,"))
    status = {key: value for key, value in run.status.items() if key != "digests"}
    (run.path / STATUS).write_text(json.dumps(sealed(run.path, status)))
    assert "a-s0 is not as it was when it ended" in found(folder)


def test_a_run_that_was_made_again_is_found(folder):
    note(folder, "finished", run="a-s0", digest="another")
    assert "Runs were made again after they had a result: a-s0." in found(folder)


def edit(folder, **changes):
    file = folder / "experiment.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {k: change(about[k]) for k, change in changes.items()}))


def test_dropped_seeds_and_arms_and_added_seeds_are_found(folder):
    edit(folder, runs=lambda runs: [one for one in runs if one["seed"] != 1])
    assert "Seeds of the registered plan are missing from the experiment: 1." in found(folder)
    edit(folder, runs=lambda runs: [one for one in runs if one["arm"] != "b"])
    assert "Arms of the registered plan are missing from the experiment: b." in found(folder)
    edit(folder, runs=lambda runs: [{**one, "seed": one["seed"] + 1} for one in runs])
    assert "Seeds were added after the plan, and decide no claim: 3." in found(folder)


def test_an_edited_plan_is_found(folder):
    edit(folder, plan=lambda plan: {**plan, "looks": [2, 3]})
    assert "The experiment's plan is not the one that was registered." in found(folder)


def test_claims_that_came_or_went_after_the_first_result_are_found(folder):
    note(folder, "registered", **PLAN, arms=["a", "b"], claims={"2": "b beats a"})
    assert "a claim was written or changed: b beats a." in found(folder)
    assert "a claim was taken out: a beats b." in found(folder)


def test_other_claims_before_the_first_result_are_no_finding(tmp_path):
    runs = simulate(tmp_path / "e", {"a": [0.7, 0.71, 0.69]}, plan=PLAN)
    for claims in ({"1": "a"}, {"2": "b"}):
        note(runs.path, "registered", **PLAN, arms=["a"], claims=claims)
    assert audit(runs) == []
