"""No command hides, relabels or repeats what another has made."""

import json
import os
import signal
import threading

import pytest

from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine, RunEnded, Waiting
from normlab.engine.plan import Planned
from normlab.errors import UserError
from normlab.evidence.verdicts import judge
from normlab.interface.reporting import render
from normlab.interface.runs_clean import clean
from normlab.interface.runs_show import list_experiments, show
from normlab.store.loading import load_runs
from tests.shared.small_runs import TINY

SWEEP = """
question: does it help?
sweep: {norm: [identity, batch_norm], seed: 0..2}
claims:
  - says: it helps
    measure: final(test_accuracy)
    compare: {left: batch_norm, right: identity}
    expect: difference > 0
"""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def run(by_hand, make):
    """A function that makes a config's runs and returns those it had to make."""

    def make_and_tell(file, *overrides):
        before = len(by_hand)
        make(file, *overrides)
        return by_hand[before:]

    return make_and_tell


def listed(folder):
    return [(run.arm, run.seed) for run in load_runs(folder)]


def cleaned(out):
    return "\n".join(clean(out))


PLAN = [(arm, seed) for arm in ("identity", "batch_norm") for seed in range(3)]


def test_overrides_make_an_experiment_of_their_own(tiny, run, out):
    file = tiny(SWEEP)
    assert run(file) == PLAN
    before = (out / "tiny" / "experiment.json").read_bytes()
    assert len(run(file, "train.batch_size=40", "seed=0")) == 2
    assert len(run(file, "batch_size=40", "norm=layer_norm", "sweep.seed=0..1")) == 2
    assert (out / "tiny" / "experiment.json").read_bytes() == before
    own = sorted(path.name for path in out.iterdir())
    assert own == ["tiny", "tiny+batch_size=40", "tiny+batch_size=40+norm=layer_norm"]
    for name in own:
        text = render(out / name, None, "final(test_accuracy)", "md")
        assert "does it help?" in text and "left out" not in text
    assert cleaned(out).count("nothing to delete") == 3 and "would go" not in cleaned(out)
    assert judge(load_runs(out / "tiny"))[0].registered


def test_the_same_overrides_in_other_words_are_the_same_experiment(tiny, run, out):
    file = tiny(SWEEP)
    assert len(run(file, "train.epochs=2", "optimizer.momentum=0.50")) == 6
    assert run(file, "optimizer.momentum=0.5", "epochs=2") == []
    assert [path.name for path in out.iterdir()] == ["tiny+epochs=2+optimizer.momentum=0.5"]
    again = load_runs(out / "tiny+epochs=2+optimizer.momentum=0.5").command
    assert again.endswith("tiny.yaml optimizer.momentum=0.5 epochs=2")


def test_overrides_that_only_look_alike_are_two_experiments(tiny, run, out):
    file = tiny()
    for widths in ("[8, 8]", "[88]", "[8-8]"):
        try:
            run(file, f"model.widths={widths}")
        except UserError:
            assert widths == "[8-8]"
    assert len(list(out.iterdir())) == 2


def test_an_experiment_can_be_named(tiny, run, out):
    file = tiny(SWEEP)
    run(file)
    assert len(run(file, "epochs=2", "name=shorter", "seed=4")) == 2
    assert len(run(file, "epochs=2", "name=shorter", "seed=5")) == 2
    assert listed(out / "shorter") == [("identity", 4), ("identity", 5),
                                       ("batch_norm", 4), ("batch_norm", 5)]  # fmt: skip
    assert listed(out / "tiny") == PLAN


def test_a_part_of_the_plan_leaves_the_plan(tiny, run, out):
    file = tiny(SWEEP)
    run(file)
    for words in (["norm=batch_norm"], ["seed=1"], ["sweep.seed=0..1"], ["sweep=null", "seed=2"],
                  ["sweep.norm=[batch_norm]", "seed=0"]):  # fmt: skip
        assert run(file, *words) == []
        assert listed(out / "tiny") == PLAN, words
    assert len(list(out.iterdir())) == 1


def test_seeds_extend_the_plan_and_what_was_registered_stays(tiny, run, out):
    file = tiny(SWEEP)
    run(file)
    assert run(file, "seed=7") == [("identity", 7), ("batch_norm", 7)]
    longer = [*PLAN[:3], ("identity", 7), *PLAN[3:], ("batch_norm", 7)]
    assert listed(out / "tiny") == longer
    assert load_runs(out / "tiny").command.endswith("tiny.yaml 'sweep.seed=[0, 1, 2, 7]'")
    assert run(file) == [] and listed(out / "tiny") == longer
    tiny(SWEEP.replace("identity, ", "identity, layer_norm, "))
    assert len(run(file)) == 3
    assert {arm for arm, _ in listed(out / "tiny")} == {"identity", "layer_norm", "batch_norm"}
    (verdict,) = judge(load_runs(out / "tiny"))
    assert verdict.registered and {sample.name for sample in verdict.arms} == {
        "batch_norm", "identity"}  # fmt: skip
    assert "left out" not in render(out / "tiny", None, "final(test_accuracy)", "md")


def test_an_array_job_of_one_seed_each_ends_in_one_report(tiny, by_hand, out):
    file = tiny(SWEEP.replace(", seed: 0..2", ""))
    jobs = [
        threading.Thread(target=Engine(load_experiment(file, (f"seed={i}",)), out).run_all)
        for i in range(8)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(by_hand) == sorted((arm, i) for arm in ("identity", "batch_norm")
                                     for i in range(8))  # fmt: skip
    assert listed(out / "tiny") == [(a, i) for a in ("identity", "batch_norm") for i in range(8)]
    assert judge(load_runs(out / "tiny"))[0].registered
    assert "sweep.seed=[0, 1, 2, 3, 4, 5, 6, 7]" in load_runs(out / "tiny").command
    arms = [(f"norm={norm}", f"seed={i}") for norm in ("batch_norm", "identity") for i in (8, 9)]
    for overrides in arms:
        Engine(load_experiment(file, overrides), out).run_all()
    assert listed(out / "tiny") == [(a, i) for a in ("identity", "batch_norm") for i in range(10)]
    assert judge(load_runs(out / "tiny"))[0].registered


def test_a_renamed_arm_is_trained_no_second_time(tiny, run, out):
    file = tiny(SWEEP)
    run(file)
    tiny(SWEEP.replace("[identity, batch_norm]", "{none: identity, 'BN/β': batch_norm}")
         .replace("left: batch_norm, right: identity", "left: BN/β, right: none"))  # fmt: skip
    assert run(file) == []
    assert listed(out / "tiny") == [(arm, s) for arm in ("none", "BN/β") for s in range(3)]
    assert "BN/β" in render(out / "tiny", "none", "final(test_accuracy)", "md")
    assert "would go" not in cleaned(out) and "left out" not in show(out / "tiny")
    assert len(run(file, "seed=3")) == 2 and len(listed(out / "tiny")) == 8


def test_a_renamed_file_finds_its_runs_and_both_lists_count_them(tiny, run, out):
    run(tiny(SWEEP))
    assert run(tiny(SWEEP, "better.yaml")) == []
    assert listed(out / "tiny") == listed(out / "better") == PLAN
    assert render(out / "better", None, "final(test_accuracy)", "csv").count("batch_norm") >= 1
    tiny(SWEEP.replace("identity, batch_norm", "layer_norm"))
    run(tiny(SWEEP.replace("identity, batch_norm", "layer_norm")
             .replace("left: batch_norm, right: identity", "left: layer_norm")
             .replace("difference > 0", "mean > 0")))  # fmt: skip
    assert "would go" not in cleaned(out), "better still lists them"
    assert "6 done  0 " in list_experiments(out)


def test_a_moved_config_and_a_moved_folder_keep_their_runs(tiny, run, out, tmp_path):
    run(tiny(SWEEP))
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "tiny.yaml").rename(tmp_path / "elsewhere" / "tiny.yaml")
    assert run(moved) == [] and len(list(out.iterdir())) == 1
    (out / "tiny").rename(out / "an older one")
    assert listed(out / "an older one") == PLAN
    assert run(moved) == [] and listed(out / "tiny") == PLAN
    assert {run.path.parent.name for run in load_runs(out / "tiny")} == {"an older one"}
    assert "an older one/identity-s0-" in show(out / "tiny")


def test_what_an_edited_config_leaves_out_is_told(tiny, run, out):
    file = tiny(SWEEP)
    run(file)
    tiny(SWEEP.replace("seed: 0..2", "seed: 0..0"))
    assert run(file) == [] and listed(out / "tiny") == PLAN, "results of its arms count"
    tiny(SWEEP + "\ntarget: {test_accuracy: 0.3}\ndecay: {rate: 0.1}\n")
    assert run(file) == PLAN and listed(out / "tiny") == PLAN
    told = render(out / "tiny", None, "final(test_accuracy)", "md")
    assert ("6 finished runs are left out, because the config does not describe them any more: "
            "identity (3), batch_norm (3).") in told  # fmt: skip
    text = cleaned(out)
    assert text.count("a finished run whose result is in no report; its experiment had it") == 6
    assert "6 of them with the result of a finished run" in text
    tiny(SWEEP)
    assert run(file) == [] and listed(out / "tiny") == PLAN
    assert len(load_runs(out / "tiny").former) == 6


def test_another_file_of_the_same_name_does_not_take_the_folder(tiny, run, out, tmp_path):
    run(tiny(SWEEP))
    other = tmp_path / "other" / "tiny.yaml"
    other.parent.mkdir()
    other.write_text(TINY.replace("widths: [8]", "widths: [9]"))
    before = (out / "tiny" / "experiment.json").read_bytes()
    with pytest.raises(UserError, match=r"holds the experiment of .* give it a name of its own"):
        run(other)
    assert (out / "tiny" / "experiment.json").read_bytes() == before
    assert len(run(other, "name=mine")) == 1


def test_a_damaged_list_is_written_anew_with_all_that_lies_there(tiny, run, out):
    file = tiny(SWEEP)
    run(file)
    run(file, "seed=5")
    (out / "tiny" / "experiment.json").write_text("{")
    assert run(file) == []
    assert ("batch_norm", 5) in listed(out / "tiny") and len(listed(out / "tiny")) == 8


def test_an_arm_added_by_a_command_stays(tiny, run, out):
    file = tiny(SWEEP)
    run(file)
    assert run(file, "norm=layer_norm") == [("layer_norm", seed) for seed in range(3)]
    longer = [*PLAN, *(("layer_norm", seed) for seed in range(3))]
    for words in ((), ("seed=0",), ("norm=batch_norm",), ("sweep.norm=[layer_norm]", "seed=1")):
        assert run(file, *words) == [] and listed(out / "tiny") == longer, words
    runs = load_runs(out / "tiny")
    assert {run.axes["norm"] for run in runs} == {"identity", "batch_norm", "layer_norm"}
    assert runs.command.endswith("tiny.yaml") and judge(runs)[0].registered
    assert "would go" not in cleaned(out)
    tiny(SWEEP + "decay: {rate: 0.1}\n")
    assert run(file) == PLAN and listed(out / "tiny") == PLAN
    assert "layer_norm (3)" in render(out / "tiny", None, "final(test_accuracy)", "md")


def test_runs_of_two_experiments_are_made_once(tiny, run, out):
    file = tiny(SWEEP)
    run(file)
    assert run(file, "sweep.norm=[identity, batch_norm, layer_norm]", "name=three") == [
        ("layer_norm", seed) for seed in range(3)
    ]
    own = out / "three"
    assert len(listed(own)) == 9 and listed(out / "tiny") == PLAN
    assert judge(load_runs(own))[0].registered
    about = json.loads((own / "experiment.json").read_text())
    assert about["name"] == "three" and about["question"] == "does it help?"
    assert "would go" not in cleaned(out)


def same_run_twice(tiny):
    """Return the files of two experiments that share their runs of batch norm."""
    first = tiny("sweep: {norm: [identity, batch_norm]}\n", "first.yaml")
    return first, tiny("sweep: {norm: [batch_norm, layer_norm]}\n", "second.yaml")


def hashes(out):
    return [path.name.rpartition("-")[2] for path in out.glob("*/*-s*")]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_a_run_that_another_experiment_began_after_the_plan_is_taken_over(tiny, make, out, jobs):
    first, second = same_run_twice(tiny)

    def while_planning(event):
        if isinstance(event, Planned) and not out.joinpath("first").exists():
            assert make(first).states == ["done", "done"]

    outcome = make(second, tell=while_planning, jobs=jobs)
    assert outcome.states == ["skipped", "done"]
    assert len(hashes(out)) == len(set(hashes(out))) == 3
    assert [run.state for run in load_runs(out / "second")] == ["done", "done"]
    assert [run.path.parent.name for run in load_runs(out / "second")] == ["first", "second"]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_a_run_that_another_process_makes_is_waited_for(tiny, make, out, jobs):
    first, second = same_run_twice(tiny)
    make(first, "norm=identity")
    planned = Engine(load_experiment(first), out).runs_of(load_experiment(first).runs)[1]
    told, begun, enough = [], threading.Event(), threading.Event()

    def another():
        with planned.locked():
            planned.write_config(load_experiment(first).runs[1].sections)
            planned.write_status("running")
            begun.set()
            enough.wait(60)

    def tell(event):
        if isinstance(event, Waiting):
            told.append([(run.arm, run.seed) for run in event.runs])
            enough.set()

    other = threading.Thread(target=another)
    other.start()
    begun.wait(60)
    outcome = make(second, tell=tell, jobs=jobs)
    other.join()
    assert told == [[("batch_norm", 0)]] and outcome.states == ["done", "done"]
    assert len(hashes(out)) == len(set(hashes(out))) == 3 and not outcome.failed


def test_a_command_that_is_stopped_while_it_waits_says_who_has_the_run(tiny, make, out):
    file = tiny()
    run = Engine(load_experiment(file), out).runs_of(load_experiment(file).runs)[0]
    told = []

    def tell(event):
        told.append(event)
        if isinstance(event, Waiting):
            os.kill(os.getpid(), signal.SIGINT)

    with run.locked():
        run.write_config(load_experiment(file).runs[0].sections)
        run.write_status("running")
        outcome = make(file, tell=tell)
    assert outcome.states == ["busy"] and outcome.interrupted
    ended = [event for event in told if isinstance(event, RunEnded)]
    assert len(ended) == 1 and f"(pid {os.getpid()}) is working on this run" in ended[0].message
