"""An experiment with claims and tuning, made for real, leaves the right files."""

import json

import pytest

from normlab.engine.engine import Remark
from normlab.errors import UserError
from normlab.evidence.audit import audit
from normlab.evidence.verdicts import judge
from normlab.reports.shown_comparison import compare
from normlab.store.journal import read_journal
from normlab.store.loading import load

CLAIM = """
sweep: {norm: [identity, batch_norm], seed: 0..1}
claims:
  - says: batch normalisation helps
    measure: final(test_accuracy)
    compare: {left: batch_norm, right: identity}
    expect: difference > 0
"""

TUNED = """
data: {name: shapes, train_examples: 120, test_examples: 50, size: 8, validation: 40}
model: {name: mlp, widths: [8]}
optimizer: {name: sgd}
train: {epochs: 1, batch_size: 20}
sweep: {norm: [identity, batch_norm], seed: 0..1}
tune: {grid: {learning_rate: [0.0001, 0.1, 1.e+30]}, seeds: [7]}
"""


def test_claims_stand_in_every_run_that_began_with_them(tiny, make):
    runs = make(tiny(CLAIM)).runs
    (verdict,) = judge(runs)
    assert verdict.registered and verdict.standing == "registered before the first step"
    for run in runs:
        assert run.provenance[0]["claims"] == [verdict.claim.hash]


def test_a_claim_edited_after_the_runs_is_late_and_the_first_one_is_not_forgotten(tiny, make):
    make(tiny(CLAIM))
    runs = make(tiny(CLAIM.replace("> 0", "> -1"))).runs
    now, before = judge(runs)
    assert (now.claim.expect, now.registered) == ("difference > -1", False)
    assert (before.claim.expect, before.withdrawn) == ("difference > 0", True)


def test_a_claim_that_stood_is_registered_though_a_part_of_the_runs_was_made_first(tiny, make):
    file = tiny(CLAIM)
    make(file, "norm=identity", "seed=1")
    runs = make(file).runs
    assert len(runs) == 4 and judge(runs)[0].registered


def test_making_a_part_again_leaves_the_experiment_whole(tiny, make):
    file = tiny(CLAIM)
    whole = make(file).runs
    part = make(file, "norm=identity", "seed=1")
    assert part.states == ["skipped"]
    assert [run.path for run in load(whole.path).runs] == [run.path for run in whole.runs]


@pytest.fixture
def tuned(tmp_path):
    file = tmp_path / "tuned.yaml"
    file.write_text(TUNED)
    return file


def test_each_arm_runs_at_the_point_that_its_trials_chose(tuned, make):
    outcome = make(tuned)
    runs = outcome.runs
    assert len(outcome.states) == 10 and set(outcome.states) <= {"done", "diverged"}
    assert len(runs) == 4 and len(runs.trials) == 6
    tuning = runs.about["tuning"]
    for run in runs.runs:
        chosen = tuning["chosen"][run.arm]
        config = run.config
        assert config["optimizer"]["learning_rate"] == chosen["values"]["learning_rate"]
        assert run.seed in (0, 1) and set(run.axes) == {"norm"}
        # By the validation split alone, and a diverged trial is one that guesses.
        scores = {t["values"]["learning_rate"]: t["scores"] for t in chosen["tried"]}
        trials = {t.axes["learning_rate"]: t for t in runs.trials if t.axes["norm"] == run.arm}
        for rate, run in trials.items():
            diverged = run.state == "diverged"
            assert scores[rate] == [0.1 if diverged else run.metrics[-1]["val_accuracy"]]
        assert chosen["score"] == max(s for (s,) in scores.values()) and chosen["trials"] == 3
        assert chosen["steps"] == 3 * 4
    text = str(compare(runs))
    assert "Every arm had the same grid: learning_rate in [0.0001, 0.1, 1e+30]" in text


def test_a_tuned_experiment_goes_on_where_it_was_and_chooses_the_same(tuned, make):
    before = make(tuned).runs
    file = before.path / "experiment.json"
    kept = json.loads(file.read_text())
    again = make(tuned)
    assert set(again.states) == {"skipped"} and json.loads(file.read_text()) == kept
    assert "val_loss" in before.runs[0].metrics[-1]


def test_a_failed_trial_chooses_nothing(tuned, make, monkeypatch):
    from normlab.engine import maker

    real = maker.Compiled

    def broken(program, data):
        if "batch_norm" in repr(program.model) or "BatchNorm" in repr(program.model):
            raise RuntimeError("out of memory")
        return real(program, data)

    monkeypatch.setattr(maker, "Compiled", broken)
    outcome = make(tuned)
    assert outcome.states.count("failed") == 3 and len(outcome.states) == 6
    assert len(outcome.runs) == 0 and "tuning" not in outcome.runs.about
    monkeypatch.setattr(maker, "Compiled", real)
    assert len(make(tuned).runs) == 4  # the same command goes on


LOOKS = """
looks: [3, 5]
sweep: {norm: [identity, batch_norm, layer_norm], seed: 0..4}
claims:
  - says: batch normalisation harms little
    measure: final(test_accuracy)
    compare: {left: batch_norm, right: identity}
    expect: difference > -0.1
  - says: layer normalisation reaches a half
    measure: final(test_accuracy)
    compare: {left: layer_norm}
    expect: mean >= 0.52
"""


def test_runs_are_made_look_by_look_until_every_claim_is_decided(tiny, make, by_hand):
    told = []
    outcome = make(tiny(LOOKS), until_decided=True, tell=told.append)
    assert sorted(by_hand) == sorted(
        [("batch_norm", s) for s in range(3)]
        + [("identity", s) for s in range(3)]
        + [("layer_norm", s) for s in range(5)]
    )
    first, second = judge(outcome.runs)
    assert (first.outcome, first.look.place, first.registered) == ("supported", 0, True)
    assert (second.outcome, second.look.place) == ("undecided", 1)
    assert outcome.runs.about["plan"] == {"seeds": [0, 1, 2, 3, 4], "looks": [3, 5]}
    by_hand.clear()
    assert not make(tiny(LOOKS), until_decided=True).failed and not by_hand
    assert len(make(tiny(LOOKS)).runs) == 15 and len(by_hand) == 4  # all, when asked for


def test_runs_that_no_claim_needs_any_more_are_told(tiny, make, by_hand):
    told = []
    easy = LOOKS.replace("mean >= 0.52", "mean >= 0.1")
    make(tiny(easy), until_decided=True, tell=told.append)
    words = [event.text for event in told if isinstance(event, Remark)]
    assert words[-1] == "every claim is decided; 6 of 15 runs were not needed"


def test_arms_that_no_claim_is_about_are_not_made_until_they_are_asked_for(tiny, make, by_hand):
    told = []
    more = LOOKS.replace("layer_norm],", "layer_norm, rms_norm],").replace("0..4", "0..2")
    file = tiny(more.replace("[3, 5]", "[2, 3]"))
    make(file, until_decided=True, tell=told.append)
    assert {arm for arm, _ in by_hand} == {"identity", "batch_norm", "layer_norm"}
    words = [event.text for event in told if isinstance(event, Remark)]
    assert words[-1].endswith("of 12 runs were not needed")
    assert len(make(file).runs) == 12


def test_claims_about_other_arms_decide_nothing_of_a_part(tiny, make):
    with pytest.raises(UserError, match="no claim is about the arms of this command"):
        make(tiny(LOOKS.replace("layer_norm]", "layer_norm, rms_norm]")), "norm=rms_norm",
             until_decided=True)  # fmt: skip


def test_nothing_can_be_decided_without_claims(tiny, make):
    with pytest.raises(UserError, match="there is nothing to decide"):
        make(tiny(), until_decided=True)


def test_seeds_after_the_first_results_are_not_in_the_plan(tiny, make, by_hand):
    make(tiny(CLAIM))
    runs = make(tiny(CLAIM), "sweep.seed=0..5").runs
    assert len(runs) == 12 and runs.about["plan"] == {"seeds": [0, 1], "looks": [2]}
    assert audit(runs) == ["Seeds were added after the plan, and decide no claim: 2, 3, 4, 5."]


def test_seeds_of_an_array_of_jobs_are_in_the_plan_until_two_have_a_result(tiny, make, by_hand):
    file = tiny(CLAIM.replace(", seed: 0..1", ""))
    for seed in range(4):
        make(file, f"seed={seed}")
    assert make(file, "seed=0").runs.about["plan"] == {"seeds": [0, 1], "looks": [2]}


def test_the_journal_tells_plan_and_results(tiny, make, by_hand):
    runs = make(tiny(CLAIM)).runs
    make(tiny(CLAIM))
    events = [line["event"] for line in read_journal(runs.path).lines]
    assert events == ["registered"] + ["finished"] * 4 and audit(runs) == []
    make(tiny(CLAIM.replace("> 0", "> -1")))
    found = " ".join(audit(load(runs.path)))
    assert "After the first result a claim was written or changed" in found
