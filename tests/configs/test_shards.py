"""`data.shards` deals examples to clients, and the settings of rounds are checked with it."""

import json

import pytest

from normlab.configs import build
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.interface.describe import describe_entry

from .mistakes import GOOD, problems_of, text

DATA = GOOD["data"].removesuffix("}") + ", shards: {}}}"
DATA = "{{" + DATA.removeprefix("{")


def test_sizes_steps_and_the_program_are_those_of_rounds(config):
    shards = "{name: by_label, clients: 3, pieces: 1}"
    train = "{epochs: 2, batch_size: 18, local_steps: 2}"
    (run,) = load_experiment(config(text(data=DATA.format(shards), train=train))).runs
    outline = build.outline(run.sections)
    assert (outline.train_examples, outline.test_examples) == (99, 48)
    assert build.total_steps(run.sections) == 2 * (99 // 18)
    data, program = build.dataset(run.sections), build.program(run.sections)
    assert len(data.train.labels) == 99 and program.clients == 3
    (plain,) = load_experiment(config(text(train="{epochs: 2, batch_size: 18}"))).runs
    assert plain.hash != run.hash and "shards" not in plain.sections["data"]


def test_a_name_is_enough_and_a_sweep_may_vary_the_rounds(config):
    data, train = DATA.format("by_label"), "{epochs: 1, batch_size: 40}"
    sweep = "{train.local_normalisers: [false, true], train.local_steps: [1, 2]}"
    runs = load_experiment(config(text(data=data, train=train, sweep=sweep))).runs
    assert len({run.hash for run in runs}) == 4
    assert runs[0].sections["data"]["shards"] == {
        "name": "by_label", "clients": 10, "pieces": 2, "seed": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    "data, train, said",
    [("by_labl", "", "no sharding is called 'by_labl'; did you mean 'by_label'?"),
     ("{name: dirichlet, alpha: 0}", "", "alpha must be above 0"),
     ("[by_label]", "", "data: 'shards' must be a name or a mapping"),
     ("by_label", "local_steps: 3", "batch_size must be a multiple of 10 clients x 3 local_steps"),
     (None, "local_steps: 3", "'local_steps' is of clients, and there are none"),
     (None, "local_normalisers: true", "'local_normalisers' is of clients"),
     ("by_label", "ema: 0.9", "ema must be null with data.shards")],
)  # fmt: skip
def test_mistakes_are_told(config, data, train, said):
    changed = {"data": DATA.format(data)} if data else {}
    settings = f"{{epochs: 1, batch_size: 20, {train}}}"
    assert said in problems_of(config(text(**changed, train=settings)))


def test_a_normaliser_without_statistics_cannot_fix_them(config):
    train = "{epochs: 1, batch_size: 20, fixed_statistics_after: 1}"
    given = text(data=DATA.format("by_label"), train=train, norm="layer_norm")
    assert "has no frozen counterpart" in problems_of(config(given))


def test_they_are_described_and_in_the_schema():
    assert "data:\n    shards:\n      name: by_label" in describe_entry("by_label")
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(json_schema())))
    data = {"name": "shapes", "shards": {"name": "dirichlet", "alpha": 0.1}}
    assert validator.is_valid({"data": data})
    assert not validator.is_valid({"data": {**data, "shards": 3}})
