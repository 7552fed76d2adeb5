"""The section `probes`: what it resolves to, its place in the hash, its mistakes."""

import json
import re
import subprocess
import sys

import jax
import pytest

from normlab.catalogue import PROBES
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.configs.probes import look_at, look_inside
from normlab.interface.describe import describe_entry

from .mistakes import problems_of, text

PROBED = "probes: {at: [end, 3, 0, 3], examples: 40, measure: [gradients]}\n"


def test_a_config_without_probes_has_the_hash_that_it_always_had(config):
    """The golden value is from before there were probes: runs made then are still found."""
    (run,) = load_experiment(config(text())).runs
    assert run.hash == "f8b6261ecc"
    for nothing in ("probes=null",):
        (same,) = load_experiment(config(text(probes="{measure: [gradients]}")), (nothing,)).runs
        assert same.hash == run.hash and "probes" not in same.sections


def test_probes_are_resolved_and_make_another_run(config):
    (plain,) = load_experiment(config(text())).runs
    (run,) = load_experiment(config(text() + PROBED)).runs
    assert run.sections["probes"] == {
        "at": [0, 3, "end"],
        "every": None,
        "examples": 40,
        "measure": [{"name": "gradients"}],
    }
    assert run.hash != plain.hash
    again = PROBED.replace("[end, 3, 0, 3]", "[0, 3, end]")
    assert load_experiment(config(text() + again)).runs[0].hash == run.hash
    other = PROBED.replace("40", "41")
    assert load_experiment(config(text() + other)).runs[0].hash != run.hash


@pytest.mark.parametrize(
    "given, steps",
    [("", {0, 5}), ("at: [2],", {2}), ("at: [end], every: 2,", {0, 2, 4, 5}),
     ("at: [5, end],", {5}), ("at: [], every: 5,", {0})],
)  # fmt: skip
def test_the_steps_that_are_looked_before(config, given, steps):
    probes = f"{{{given} examples: 40, measure: [gradients]}}"
    (run,) = load_experiment(config(text(probes=probes))).runs  # 100 examples, 20 a step, 1 epoch
    assert look_at(run.sections) == steps


def test_runs_that_differ_in_seed_and_rate_alone_are_traced_once(config, monkeypatch):
    (run,) = load_experiment(config(text() + PROBED)).runs

    def traced(*_, **__):
        raise AssertionError("traced again")

    monkeypatch.setattr(jax, "eval_shape", traced)
    sweep = "sweep: {learning_rate: [0.1, 0.2, 0.3], seed: 0..1}\n"
    runs = load_experiment(config(text() + PROBED + sweep)).runs
    assert len(runs) == 6
    assert {id(look_inside(one.sections)) for one in runs} == {id(look_inside(run.sections))}


MISTAKES = {
    "gradients": "{file}:6:9: 'probes' must be a mapping, found the text 'gradients'",
    "{at: [0]}": "{file}:6:9: probes needs the key 'measure': a list of",
    "{measure: []}": "{file}:6:19: probes needs the key 'measure': a list of",
    "{measure: gradients}": "{file}:6:19: 'measure' must be a list of probes, found the text",
    "{measure: [3]}": "{file}:6:20: a probe is a name or a mapping with a name, found 3",
    "{measure: [gradient]}": "{file}:6:20: no probe is called 'gradient'; did you mean 'gradients'",
    "{measure: [gradients, {name: hessian, cout: 3}]}":
        "{file}:6:47: probe hessian has no key 'cout'; did you mean 'count'?",
    "{measure: [gradients, gradients]}": "{file}:6:31: the probe 'gradients' is measured twice",
    "{measure: [gradients], a: [0]}": "{file}:6:32: probes has no key 'a'; ",
    "{measure: [gradients], at: 3}": "{file}:6:36: probes: 'at' must be a list of",
    "{measure: [gradients], at: [0, last]}": "{file}:6:40: probes: 'at' must be a list of",
    "{measure: [gradients], at: [-1]}": "{file}:6:36: probes: at must be a list of steps from 0",
    "{measure: [gradients], at: []}": "{file}:6:36: probes: at must be a list with a step",
    "{measure: [gradients], at: [0, 6], examples: 40}":
        "{file}:6:40: probes: the run has 5 steps, found 6; 'end' is the last",
    "{measure: [gradients], every: 0}": "{file}:6:39: probes: every must be at least 1, got 0",
    "{measure: [gradients], examples: 101}":
        "{file}:6:42: probes: 'examples' must be at most 100, the training examples",
    "{examples: 40, measure: [gradients, 'my_probes:Refuses']}":
        "{file}:6:45: probes: refuses cannot look into this network: there is no attention in it; ",
    "{measure: ['my_probes:Nothing']}": "{file}:6:20: my_probes:Nothing: my_probes: ",
}  # fmt: skip


@pytest.mark.parametrize("given", MISTAKES)
def test_every_mistake_is_told_at_its_place(config, given, own_files):
    assert problems_of(config(text(probes=given))).startswith(MISTAKES[given])


CLAIM = """
claims:
  - {{says: x, measure: "{}", compare: {{left: batch_norm}}, expect: mean > 0}}
"""

WRONG = {
    "probe(gradients.total, 1)": "a run of 'batch_norm' is not looked into before step 1",
    "probe(gradients.totl, 0)": "did you mean 'gradients.total'?",
    "probe(totl, 0)": "did you mean 'gradients.total'?",
    "probe(spread, 0)": "several quantities called 'spread': write gradients.spread or updates",
    "probe(gradients.norm, 0)": "has 2 values of 'gradients.norm', one for each of its layers",
    "probe(gradients.norm, 0, Dense_7)": "did you mean 'Dense_1'?",
    "probe(gradients.total, 0, max)": "has one number for 'gradients.total', which needs no 'max'",
    "drift(gradients.total)": "a run of 'batch_norm' is looked into once: give probes.at",
    "probe(gradients.total)": "it is written probe(quantity, step[, how])",
    "probe(gradients.total, x)": "'x' must be a step, a whole number or end",
}


ONCE = "probes: {at: [0], examples: 40, measure: [gradients, updates]}\n"


@pytest.mark.parametrize("measure", WRONG)
def test_a_claim_of_what_no_probe_will_see_is_told_before_the_first_step(config, measure):
    assert WRONG[measure] in problems_of(config(text() + ONCE + CLAIM.format(measure)))


def test_a_claim_of_probes_without_probes_is_told(config):
    told = problems_of(config(text() + CLAIM.format("probe(gradients.total, 0)")))
    assert "a run of 'batch_norm' is made without probes: give the section 'probes'" in told


@pytest.mark.parametrize("measure", ["gradients.norm, end, Dense_0", "total, 0", "norm, 0, spread"])
def test_a_claim_of_what_they_will_see_is_fine(config, measure):
    probes = "probes: {examples: 40, measure: [gradients]}\n"
    claim = CLAIM.format(f"probe({measure})")
    assert len(load_experiment(config(text() + probes + claim)).claims) == 1


def test_probes_are_described_and_in_the_schema():
    words = describe_entry("probes")
    assert "at: [0, end]" in words and "measure: ...  # a list of activations" in words
    assert "probes:\n    measure:\n      - name: hessian" in describe_entry("hessian")
    schema = json_schema()["properties"]["probes"]
    assert schema["type"] == ["object", "null"]
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(json_schema())))
    good = {"at": [0, "end"], "every": 3, "measure": ["gradients", {"name": "hessian", "count": 2}]}
    assert validator.is_valid({"probes": good})
    assert not validator.is_valid({"probes": {**good, "at": ["last"]}})
    assert not validator.is_valid({"probes": {**good, "measure": ["gradient"]}})


def test_they_are_listed():
    command = [sys.executable, "-m", "normlab.cli", "list", "probes"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [re.split(r"\s", line)[0] for line in listed.splitlines()] == list(PROBES.entries())
