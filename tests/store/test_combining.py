"""Experiments are added up without giving two different arms one name."""

import json

import pytest

import normlab
from normlab.errors import UserError
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.store.loading import load_runs
from tests.shared.simulated import simulate, write, write_run

FINAL = "final(test_accuracy)"


def configured(runs, arm, **settings):
    """Give the runs of an arm other settings."""
    for run in runs.runs:
        if run.arm == arm:
            run.write_config({**run.config, **settings})
    return runs


@pytest.fixture
def first(tmp_path):
    claim = Claim("b is better", FINAL, "b", "a", "difference > 0")
    return simulate(tmp_path / "first", {"a": [0.5, 0.52], "b": [0.6, 0.63]}, [claim])


def test_different_arms_stand_side_by_side(tmp_path, first):
    other = simulate(tmp_path / "other", {"c": [0.7, 0.71]}, question="and c?")
    both = first + other
    assert [(run.arm, run.seed) for run in both] == [(a, s) for a in "abc" for s in (0, 1)]
    found = normlab.compare([first, other])
    assert [arm.name for arm in found.arms] == ["a", "b", "c"]
    assert {arm.baseline for arm in found.arms} == {"a"}
    assert found.arm("c").difference.estimate == pytest.approx(0.705 - 0.51)
    assert both.about["question"] == "does it? and c?" and both.about["name"] == "first + other"
    assert [v.claim.says for v in found.verdicts] == [v.claim.says for v in judge(first)]
    assert found.verdicts[0].registered
    assert first + first is first and len((first + other) + other) == 6


def test_an_arm_that_both_configure_alike_is_one_arm_under_the_first_ones_name(tmp_path, first):
    folder = tmp_path / "other"
    again = [write_run(folder, "other b", seed, 0.7, norm="b") for seed in (2, 3)]
    both = first + write(folder, again)
    assert [(run.arm, run.seed) for run in both if run.arm != "a"] == [("b", s) for s in range(4)]
    assert {run.axes["norm"] for run in both} == {"a", "b"}


def test_a_run_that_both_list_counts_once(tmp_path, first):
    shared = write(tmp_path / "other", first.runs[2:])
    assert len(first + shared) == 4


def test_different_arms_of_one_name_are_named_with_their_experiment(tmp_path, first):
    other = simulate(tmp_path / "first+epochs=9", {"a": [0.55, 0.56], "b": [0.8, 0.83]})
    for arm in "ab":
        configured(other, arm, train={"epochs": 9, "batch_size": 20, "seed": 0})
    found = normlab.compare(first + other)
    assert [arm.name for arm in found.arms] == [
        "a, first", "b, first", "a, first+epochs=9", "b, first+epochs=9"]  # fmt: skip
    assert found.arm("b, first+epochs=9").baseline == "a, first+epochs=9"
    across = normlab.compare([first, other], baseline="first")
    assert across.arm("b, first+epochs=9").baseline == "b, first"
    assert across.arm("b, first+epochs=9").difference.estimate == pytest.approx(0.815 - 0.615)
    single = simulate(tmp_path / "x" / "first", {"a": [0.9]})
    configured(single, "a", train={"epochs": 1, "seed": 0})
    names = {run.arm for run in first + single}
    assert names == {f"{arm}, {tmp_path / 'first'}" for arm in "ab"} | {
        f"a, {tmp_path / 'x' / 'first'}"}  # fmt: skip


def test_the_same_seed_made_twice_is_not_hidden(tmp_path, first):
    folder = tmp_path / "other"
    made = write(folder, [write_run(folder, "b", 0, 0.9)])
    assert len(first + made) == 4, "of one hash, as far as the names tell"
    run = made.runs[0]
    run.path.rename(folder / "b-s0-again")
    listed = json.loads((folder / "experiment.json").read_text())
    listed["runs"][0]["run"] = "b-s0-again"
    (folder / "experiment.json").write_text(json.dumps(listed))
    assert {run.arm for run in first + load_runs(folder)} == {"a, first", "b, first", "b, other"}


def test_only_experiments_can_be_compared(first):
    with pytest.raises(UserError, match=r"as from normlab\.load; found 'first'"):
        normlab.compare([first, "first"])
    with pytest.raises(UserError, match=r"as from normlab\.load"):
        normlab.compare([])
