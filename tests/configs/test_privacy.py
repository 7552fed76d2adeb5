"""`train.private` is a mapping that is checked whole, and refuses what joins examples."""

# ruff: noqa: E501 (a golden text is easier to read whole)

import jsonschema
import pytest

from normlab.configs import build
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.engine import preflight
from normlab.training.privacy import Privacy

from .mistakes import assert_told, problems_of, text

GIVEN = "{clip: 1, noise_multiplier: 1.1, delta: 1e-5}"


def private(given=GIVEN, **more):
    train = f"{{epochs: 1, batch_size: 20, private: {given}}}"
    return text(**{"norm": "layer_norm", "train": train, **more})


def test_a_config_trains_privately_and_null_has_the_hash_of_a_config_without(config):
    (run,) = load_experiment(config(private())).runs
    assert build.recipe(run.sections).private == Privacy(1.0, 1.1, 1e-5)
    plain, null = (
        load_experiment(config(one)).runs[0].hash
        for one in (text(norm="layer_norm"), private("null"))
    )
    assert plain == null != run.hash


def test_the_schema_knows_the_keys():
    good, bad = ({"clip": 1, "noise_multiplier": 1.1, delta: 1e-5} for delta in ("delta", "foo"))
    jsonschema.validate({"train": {"private": good}}, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"train": {"private": bad}}, json_schema())


def test_a_normaliser_of_the_batch_is_refused_with_the_reason_and_those_that_serve(config):
    (told,) = problems_of(config(private(norm="batch_norm"))).splitlines()
    assert told.startswith(
        "{file}:3:7: norm: train.private cannot bound what BatchNorm reveals: it makes the "
        "gradient of one example depend on all others; use one of "
    )
    offered = told.partition("use one of ")[2].split(", ")
    assert {"group_norm", "layer_norm", "instance_norm", "identity"} <= set(offered)
    assert not {"batch_norm", "online_norm", "taper_norm", "batch_renorm"} & set(offered)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "{clip: 1, noise_multiplier: 1.1, delta: 0.01}",
            "{file}:5:45: train: private.delta must be below 1 / 100, one over the number of training examples, got 0.01: a larger one allows to publish some of them",
        ),
        (
            "{clip: 1, noise_multiplier: 1.1}",
            "{file}:5:45: train needs the key 'private.delta': a number",
        ),
        (
            "{clip: 0, noise_multiplier: 1.1, delta: 1e-5}",
            "{file}:5:45: train: private must be given a clip above 0, got 0.0",
        ),
        (
            "{clip: 1, noise: 1.1, delta: 1e-5}",
            "{file}:5:45: train needs the key 'private.noise_multiplier': a number",
        ),
        (
            "true",
            "{file}:5:45: train: 'private' must be a mapping of clip, noise_multiplier, delta or null, found true",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(config, given, told):
    lines = problems_of(config(private(given))).splitlines()
    assert lines[0] == told, lines


def test_a_model_of_ones_own_that_moves_statistics_is_refused(config):
    file = config(
        private(model='{name: "tests.shared.own_nets:SmallResNet", num_filters: 4}', norm=None)
    )
    assert_told(
        file,
        "{file}:2:8: model: train.private cannot bound what this model reveals: training moves its batch_stats, to which no noise is added; use one of ...",
    )


def test_several_devices_are_refused(config):
    assert_told(
        config(private(mesh="{data: 2}")),
        "{file}:6:7: mesh: train.private takes one device: leave out mesh, which asks for 2",
    )


def test_a_missing_library_is_told_before_the_first_run(config, monkeypatch):
    runs = load_experiment(config(private())).runs
    monkeypatch.setattr("normlab.training.privacy.LIBRARY", "no_such_package")
    with pytest.raises(preflight.ImpossibleError, match=r"pip install 'normlab\[private\]'"):
        preflight.check(runs, 1, lambda run: build.dataset(run.sections))
