"""Claims and tuning as a config gives them: what is accepted, and the words for what is not."""

# ruff: noqa: E501 (a golden text is easier to read whole)

import pytest

from normlab.configs.document import parse
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema

from .mistakes import problems_of, text

SWEEP = "{norm: [identity, batch_norm], learning_rate: [0.1, 0.2], seed: 0..2}"
CLAIM = {
    "says": "it helps",
    "measure": "final(test_accuracy)",
    "compare": "{left: {norm: batch_norm, learning_rate: 0.1}, right: {norm: identity, learning_rate: 0.1}}",
    "expect": "difference > 0",
}


def claiming(sweep=SWEEP, **changes):
    """A good config with one claim, some of its keys changed; a key of None is left out."""
    keys = {**CLAIM, **changes}
    claim = ", ".join(f"{key}: {value}" for key, value in keys.items() if value is not None)
    return text(sweep=sweep, claims=f"[{{{claim}}}]")


def test_claims_are_read_as_they_stand(config):
    (claim,) = load_experiment(config(claiming(floor="final(test_accuracy) >= 0.2"))).claims
    assert (claim.says, claim.right) == ("it helps", {"norm": "identity", "learning_rate": 0.1})
    assert claim.floor == "final(test_accuracy) >= 0.2" and claim.paired is None
    over_an_axis = {"measure": "largest_stable(learning_rate)",
                    "compare": "{left: batch_norm, right: identity}", "expect": "ratio >= 2"}  # fmt: skip
    assert load_experiment(config(claiming(**over_an_axis))).claims[0].expectation.low == 2


AMBIGUOUS = "'batch_norm' is several arms ('batch_norm, learning_rate=0.1', 'batch_norm, learning_rate=0.2'); say which, as in {norm: batch_norm, batch_size: 32}"
NOT_WRITTEN = "is written as in {left: batch_norm, right: identity}"

MISTAKES = {
    "no list": (text(claims="{says: x}"), "'claims' must be a list of claims, found the mapping {'says': 'x'}"),
    "no mapping": (text(claims="[it helps]"), "a claim is a mapping with the keys says, measure, compare, expect, floor, paired, source, unit, generalise, found the text 'it helps'"),
    "unknown key": (claiming(expects="x"), "a claim has no key 'expects'; did you mean 'expect'?"),
    "generalising to what is not known": (claiming(generalise="[seeds, users]"), "claim: 'generalise' must be a list of values, each one of seeds, images, tuning or null, found the list ['seeds', 'users']"),
    "generalising not to seeds": (claiming(generalise="[images]"), "claim: 'generalise': it names seeds, and images or tuning beside them, each once"),
    "generalising to images of a loss": (claiming(generalise="[seeds, images]", measure="final(train_loss)"), "claim: 'generalise': answers are stored of the last evaluation, so images need final(test_accuracy)"),
    "generalising a ratio": (claiming(generalise="[seeds, images]", expect="ratio >= 2"), "claim: 'generalise': a ratio speaks of seeds alone: claim a difference or a mean"),
    "generalising to tuning that is not": (claiming(generalise="[seeds, tuning]"), "a claim generalises to tuning, so the choice must be drawn again: give 'tune' at least two seeds"),
    "no sentence": (claiming(says=None), "the claim needs the key 'says'"),
    "unknown measure": (claiming(measure="finl(test_accuracy)"), "claim: there is no measure 'finl'; did you mean 'final'?"),
    "unknown metric": (claiming(measure="final(accuracy)"), "claim: no metric is called 'accuracy'; did you mean 'val_accuracy'?"),
    "arguments": (claiming(measure="steps_to(test_accuracy)"), "claim: 'steps_to(test_accuracy)' has 1 argument; it is written steps_to(metric, number)"),
    "no validation": (claiming(measure="final(val_accuracy)"), "claim: final(val_accuracy): there is no 'val_accuracy' without examples held out; give data.validation their number"),
    "no such axis": (claiming(measure="largest_stable(batch_size)"), "claim: largest_stable(batch_size): 'batch_size' must be an axis of the sweep whose values are positive numbers; the axes are norm, learning_rate"),
    "several arms": (claiming(compare="{left: batch_norm, right: identity}"), f"claim: {AMBIGUOUS}"),
    "no such arm": (claiming(compare="{left: bach_norm, right: identity}"), "claim: no arm is called 'bach_norm'; the arms are 'identity, learning_rate=0.1', 'identity, learning_rate=0.2', 'batch_norm, learning_rate=0.1', 'batch_norm, learning_rate=0.2'"),
    "one arm": (claiming(compare="{left: {norm: batch_norm, learning_rate: 0.1}}"), "claim: a mean is that of 'left' alone; a difference or ratio needs 'right' too"),
    "a list of arms": (claiming(compare="[batch_norm, identity]"), f"claim: 'compare' {NOT_WRITTEN}, found the list ['batch_norm', 'identity']"),
    "no expectation": (claiming(expect="better"), "claim: an expectation is written as in difference >= 0.01, ratio <= 0.5, mean >= 0.6, matches within 0.01 or differs by more than 0.01, found 'better'"),
    "a margin of zero": (claiming(expect="matches within 0"), "claim: an expectation is written as in difference >= 0.01, ratio <= 0.5, mean >= 0.6, matches within 0.01 or differs by more than 0.01, found 'matches within 0'"),
    "no floor": (claiming(floor="0.3"), "claim: a floor is written as in final(test_accuracy) >= 0.3, found the text '0.3'"),
    "paired is text": (claiming(paired="'yes'"), "claim: 'paired' must be true, false or null, found the text 'yes'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_in_a_claim_is_told_in_these_words(config, mistake):
    content, expected = MISTAKES[mistake]
    lines = [line.split(": ", 1)[1] for line in problems_of(config(content)).splitlines()]
    if mistake == "no floor":
        expected = "claim: 'floor' must be text or null, found 0.3"
    assert expected in lines


def test_a_number_as_an_axis_to_tune_is_told(config):
    told = problems_of(config(tuned(tune="{grid: {3: [0.1]}, seeds: [9]}")))
    assert "nothing is called '3' that could be swept; allowed: " in told


def test_a_command_for_a_part_of_the_runs_keeps_claims_about_the_others(config):
    file = config(claiming())
    part = load_experiment(file, ("norm=identity", "seed=1"))
    assert len(part.runs) == 2
    assert [claim.hash for claim in part.claims] == [c.hash for c in load_experiment(file).claims]


TUNED = {
    "data": "{name: shapes, train_examples: 100, test_examples: 50, size: 8, validation: 20}",
    "sweep": "{norm: [identity, batch_norm], seed: 0..2}",
    "tune": "{grid: {learning_rate: [0.1, 0.3], momentum: [0.5]}, seeds: 100..101}",
}


def tuned(**changes):
    tune = TUNED["tune"].replace("momentum", "optimizer.momentum")
    return text(**{**TUNED, "tune": tune, **changes})


def test_every_arm_tries_every_point_with_seeds_of_its_own(config):
    experiment = load_experiment(config(tuned()))
    tuning = experiment.tuning
    assert tuning.grid == {"learning_rate": [0.1, 0.3], "optimizer.momentum": [0.5]}
    assert len(tuning.trials) == 2 * 2 * 2 and len(tuning.candidates) == 2 * 2 * 3
    assert {trial.config.seed for trial in tuning.trials} == {100, 101}
    assert len(experiment.runs) == 6
    assert {run.arm for run in experiment.runs} == {"identity", "batch_norm"}
    chosen = {arm: {"values": {"learning_rate": 0.3, "optimizer.momentum": 0.5}}
              for arm in ("identity", "batch_norm")}  # fmt: skip
    runs = tuning.chosen_runs(chosen)
    assert [run.seed for run in runs] == [0, 1, 2] * 2
    assert {run.sections["optimizer"]["learning_rate"] for run in runs} == {0.3}


def test_each_seed_may_have_a_choice_of_its_own(config):
    anew = "{grid: {learning_rate: [0.1, 0.3]}, seeds: 100..105, anew: true}"
    tuning = load_experiment(config(tuned(tune=anew))).tuning
    assert tuning.shares == {0: [100, 101], 1: [102, 103], 2: [104, 105]}
    # By the mean of its own two tuning seeds, each seed chooses; all six together choose 0.3.
    scores = {0: dict(zip(tuning.seeds, [0.5, 0.5, 0.9, 0.7, 0.1, 0.1], strict=True)),
              1: dict(zip(tuning.seeds, [0.6, 0.5, 0.7, 0.7, 0.3, 0.1], strict=True))}  # fmt: skip
    points = [{"learning_rate": 0.1}, {"learning_rate": 0.3}]
    best = tuning._best(points, scores, 10)
    rates = {seed: values["learning_rate"] for seed, values in best["by_seed"].items()}
    assert rates == {"0": 0.3, "1": 0.1, "2": 0.3} and best["values"] == {"learning_rate": 0.3}
    runs = tuning.chosen_runs({"identity": best, "batch_norm": best})
    rates = [run.sections["optimizer"]["learning_rate"] for run in runs]
    assert [run.seed for run in runs] == [0, 1, 2] * 2 and rates == [0.3, 0.1, 0.3] * 2


def test_trials_do_not_look_inside(config):
    probes = "{examples: 40, measure: [gradients]}"
    tuning = load_experiment(config(tuned(probes=probes))).tuning
    assert all(trial.config.sections.get("probes") is None for trial in tuning.trials)
    assert all(candidate.config.sections["probes"] for candidate in tuning.candidates)


TUNING_MISTAKES = {
    "anew is no truth": (tuned(tune="{grid: {learning_rate: [0.1]}, seeds: [9], anew: 2}"), "tune: 'anew' must be true or false, found 2"),
    "anew with too few seeds": (tuned(tune="{grid: {learning_rate: [0.1]}, seeds: 100..103, anew: true}"), "tune: with 'anew' each of the sweep's seeds, 3, has its own share of the tuning seeds: give as many, or a multiple, found 4"),
    "no mapping": (tuned(tune="[0.1]"), "'tune' must be a mapping, as in {grid: {learning_rate: [0.03, 0.1, 0.3]}, seeds: 100..101}, found the list [0.1]"),
    "unknown key": (tuned(tune="{grid: {learning_rate: [0.1]}, seeds: [9], seed: 3}"), "tune has no key 'seed'; did you mean 'seeds'?"),
    "no seeds": (tuned(tune="{grid: {learning_rate: [0.1]}}"), "tune needs the key 'seeds', as in {grid: {learning_rate: [0.03, 0.1, 0.3]}, seeds: 100..101}"),
    "no grid": (tuned(tune="{grid: [0.1], seeds: [9]}"), "tune: 'grid' must be a mapping of axes to lists of values, found the list [0.1]"),
    "seeds of the sweep": (tuned(tune="{grid: {learning_rate: [0.1]}, seeds: 2..5}"), "the sweep has 2 of these seeds too; a run that helped to choose must not be reported, so give others"),
    "no validation": (tuned(data="{name: shapes, train_examples: 100, test_examples: 50, size: 8}"), "tune: final(val_accuracy): there is no 'val_accuracy' without examples held out; give data.validation their number"),
    "the test split": (tuned(tune="{grid: {learning_rate: [0.1]}, seeds: [9], measure: final(test_accuracy)}"), "tune: final(test_accuracy) would choose by the test split; choose by val_accuracy or val_loss"),
    "over an axis": (tuned(tune="{grid: {learning_rate: [0.1]}, seeds: [9], measure: largest_stable(learning_rate)}"), "tune: largest_stable(learning_rate) is taken over several runs; tuning needs one of each run"),
    "swept too": (tuned(sweep="{learning_rate: [1], seed: 0..1}"), "'learning_rate' is swept too; what is tuned cannot be an axis of the sweep"),
    "unknown axis": (tuned(tune="{grid: {learning_rat: [0.1]}, seeds: [9]}"), "nothing is called 'learning_rat' that could be swept; did you mean 'learning_rate'?"),
    "out of range": (tuned(tune="{grid: {batch_size: [0]}, seeds: [9]}"), "train: batch_size must be a positive whole number, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", TUNING_MISTAKES)
def test_each_mistake_in_tuning_is_told_in_these_words(config, mistake):
    content, expected = TUNING_MISTAKES[mistake]
    lines = [line.split(": ", 1)[1] for line in problems_of(config(content)).splitlines()]
    assert expected in lines


def test_what_tuning_would_choose_cannot_be_overridden(config):
    file = config(tuned())
    found = problems_of(file, "learning_rate=0.2")
    assert "tuning would choose 'learning_rate' itself; add tune=null to fix it" in found
    assert load_experiment(file, ("learning_rate=0.2", "tune=null")).tuning is None


def test_the_editor_s_schema_takes_claims_and_tuning_and_refuses_typos():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    for good in (claiming(), tuned()):
        assert not list(validator.iter_errors(parse(good, "text").value))
    for typo in (claiming(expects="x"), claiming(says=None), tuned(tune="{grids: 1}")):
        assert list(validator.iter_errors(parse(typo, "text").value))


@pytest.mark.parametrize(
    "changes",
    [
        {"expect": "diference >= 0.01"},
        {"expect": "matches"},
        {"expect": "matches within x"},
        {"expect": "ratio = 2"},
        {"measure": "final"},
        {"measure": "final(test_acuracy)"},
        {"measure": "steps_to(test_accuracy)"},
        {"floor": "final(test_accuracy) = 3"},
        {"compare": "{left: batch_norm, right: identity, across: {learning_rate: [0.1]}}"},
    ],
    ids=str,
)
def test_the_editor_s_schema_refuses_wrong_claims_as_the_check_does(config, changes):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    wrong = claiming(**changes)
    assert not validator.is_valid(parse(wrong, "text").value)
    assert problems_of(config(wrong))


@pytest.mark.parametrize("key", ["expect", "measure", "floor"])
def test_the_editor_s_schema_takes_every_form_of_a_claim(key):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    forms = {
        "expect": ["ratio<=.5", "mean > 1e-3", "matches  within 0.01", "differs by more than 0"],
        "measure": ["diverged", "steps_to( test_accuracy , 6e-1 )", "gap(val_auc, test_auc)",
                    "probe(updates.spread, end)", "probe(a.b, 10, mean)", "largest_stable(norm)"],
        "floor": ["final(test_accuracy) >= 0.3", "steps_to(val_loss, 1)<=200"],
    }  # fmt: skip
    for form in forms[key]:
        found = parse(claiming(**{key: f"'{form}'"}), "text").value
        assert not list(validator.iter_errors(found)), form
