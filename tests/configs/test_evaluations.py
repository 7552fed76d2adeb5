"""The section `evaluate`: what it resolves to, its place in the hash, its mistakes, its claims."""

import json

import pytest

from normlab.configs.evaluations import look_ahead, settings_of
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.configs.probes import look_inside
from normlab.interface.describe import describe_entry

from .mistakes import problems_of, text


def words(run):
    return [one.words for one in settings_of(run.sections)]


def test_a_config_without_it_has_the_hash_that_it_always_had(config):
    (run,) = load_experiment(config(text())).runs
    assert run.hash == "f8b6261ecc" and "evaluate" not in run.sections


@pytest.mark.parametrize(
    "given", ["tent", "[tent]", "{name: tent}", "{policy: tent}", "{policy: {tent: tent}}",
              "{policy: [tent], stream: iid, batch_size: [200]}"]
)  # fmt: skip
def test_every_spelling_of_one_policy_is_the_same_run(config, given):
    (run,) = load_experiment(config(text(evaluate=given))).runs
    assert words(run) == [("tent", "iid", "200")]
    (first,) = load_experiment(config(text(evaluate="tent"))).runs
    assert run.hash == first.hash


def test_policies_streams_and_sizes_are_all_combined_in_one_run(config):
    given = "{policy: {slow: {name: tent, learning_rate: 1e-5}, stored: stored}, "
    given += "stream: [iid, sorted], batch_size: [1, 10]}"
    (run,) = load_experiment(config(text(evaluate=given))).runs
    assert len(words(run)) == 8 and ("slow", "sorted", "1") in words(run)
    slow = settings_of(run.sections)[0].policy
    assert slow.learning_rate == 1e-5
    assert [one.parts for one in look_ahead(run.sections).judged] == [("clean",)] * 8


def test_a_sweep_may_vary_it(config):
    sweep = "{evaluate.stream: [iid, sorted], evaluate.batch_size: [1, 16]}"
    runs = load_experiment(config(text(evaluate="{policy: tent}", sweep=sweep))).runs
    assert words(runs[0]) == [("tent", "iid", "1")] and len(runs) == 4
    runs = load_experiment(config(text(sweep="{evaluate: [tent, sar]}"))).runs
    assert [words(run)[0][0] for run in runs] == ["tent", "sar"]


MISTAKES = {
    "tnt": "{file}:6:11: no policy is called 'tnt'; did you mean",
    "{policy: []}": "{file}:6:20: evaluate needs the key 'policy': one of alpha_bn",
    "{stream: iid}": "{file}:6:11: evaluate needs the key 'policy'",
    "{policy: [tent, tent]}": "{file}:6:27: the policy 'tent' is given twice; give both labels",
    "{policy: {a b: tent}}": "{file}:6:21: the label of a policy is a word, found the text 'a b'",
    "{policy: tent, stream: srted}": "{file}:6:34: evaluate: 'stream' must be a list",
    "{policy: tent, stream: [iid, iid]}": "{file}:6:34: evaluate: stream must be a list without",
    "{policy: tent, batch_size: 0}": "{file}:6:38: evaluate: batch_size must be at least 1, got 0",
    "{policy: tent, severity: 6}": "{file}:6:36: evaluate: severity must be in 1..5, got 6",
    "{policy: tent, corruptions: frog}": "{file}:6:39: evaluate: no augmentation is called 'fr",
    "{policy: tent, corruptions: flip}": "{file}:6:39: evaluate: 'flip' has no severities",
    "{policy: {name: tent, lr: 1}}": "{file}:6:33: policy tent has no key 'lr'; did you mean 'l",
    "{policy: tent, polcy: sar}": "{file}:6:26: evaluate has no key 'polcy'",
    "{policy: alpha_bn, prior: 3}": "{file}:6:30: evaluate has no key 'prior'",
}  # fmt: skip


@pytest.mark.parametrize("given", MISTAKES)
def test_every_mistake_is_told_at_its_place(config, given):
    assert problems_of(config(text(evaluate=given))).startswith(MISTAKES[given])


def test_a_policy_that_cannot_change_the_network_is_told(config):
    told = problems_of(config(text(norm="identity", evaluate="[stored, tent]")))
    assert "evaluate: tent cannot evaluate this network: the policy learns scales and" in told


CLAIM = """
claims:
  - {{says: x, measure: "{}", compare: {{left: batch_norm}}, expect: mean > 0}}
"""
TWO = "evaluate: {policy: [stored, tent], stream: [iid, changing], batch_size: 64}\n"
WRONG = {
    "evaluated(test_accuracy, tent)": "several evaluations 'tent': write tent, iid, 64 or tent, ch",
    "evaluated(test_accuracy, sar, iid)": "no evaluation 'sar, iid'; it has stored, iid, 64; st",
    "evaluated(train_accuracy, tent, iid)": "evaluated on the test examples",
    "evaluated(test_accuracy, tent, iid, remade_fog)": "no evaluation 'tent, iid, remade_fog'",
    "gained(test_accuracy, tent, sar, iid)": "no evaluation 'sar, iid'",
    "evaluated(test_accuracy)": "it is written evaluated(metric, policy[, stream][, batch size]",
}


@pytest.mark.parametrize("measure", WRONG)
def test_a_claim_of_what_will_not_be_evaluated_is_told_before_the_first_step(config, measure):
    assert WRONG[measure] in problems_of(config(text() + TWO + CLAIM.format(measure)))


@pytest.mark.parametrize(
    "measure", ["evaluated(test_accuracy, tent, iid)", "evaluated(test_loss, tent, 64, changing)",
                "evaluated(test_accuracy, stored, changing, remade_snow)",
                "gained(test_accuracy, tent, stored, iid)"]
)  # fmt: skip
def test_a_claim_of_what_will_be_is_fine(config, measure):
    claim = CLAIM.format(measure)
    assert len(load_experiment(config(text() + TWO + claim)).claims) == 1
    told = problems_of(config(text() + claim))
    assert "is not evaluated by policies: give the section 'evaluate'" in told


def test_probes_can_look_after_an_evaluation_and_claims_know_it(config):
    probes = "probes: {at: [end], examples: 40, measure: [gradients]}\n"
    looking = "evaluate: {policy: [stored, tent], look: true}\n"
    claim = CLAIM.format("probe(gradients_after_tent.total, end)")
    (run,) = load_experiment(config(text() + probes + looking + claim)).runs
    inside = look_inside(run.sections)
    assert inside is not None
    assert {one.probe for one in inside.quantities} == {
        "gradients", "gradients_after_stored", "gradients_after_tent"
    }  # fmt: skip
    early = CLAIM.format("probe(gradients_after_tent.total, 0)")
    assert "once: write end" in problems_of(config(text() + probes + looking + early))


def test_it_is_described_and_in_the_schema():
    assert "policy: ...  # one, a list" in describe_entry("evaluate")
    assert "evaluate:\n    policy:\n      - name: tent" in describe_entry("tent")
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(json_schema())))
    labelled = {"policy": {"a": "tent"}, "stream": "sorted"}
    whole = {"policy": "tent", "stream": ["iid"], "batch_size": 1, "corruptions": "fog"}
    for good in ("tent", ["tent", {"name": "sar"}], labelled, whole):
        assert validator.is_valid({"evaluate": good}), good
    for bad in ("tnt", {"stream": "iid"}, {"policy": "tent", "stream": "srted"}):
        assert not validator.is_valid({"evaluate": bad}), bad
