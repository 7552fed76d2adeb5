"""The section `placement`: optional, swept over, checked; the network's own one changes no hash."""

# ruff: noqa: E501 (a golden text is easier to read whole)

import jsonschema
import pytest

from normlab.catalogue import PLACEMENTS
from normlab.configs import build
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.errors import UserError
from normlab.interface.describe import describe_entry
from normlab.placements import V1, MixLN, Pre
from normlab.placements.contract import TokenPlacement

from .mistakes import problems_of, text

VIT = "{name: vit, depth: 4, width: 8, heads: 2, patch: 8}"
TOKENS = "deep_norm, hybrid_norm, hybrid_norm_star, keel, layer_norm_scaling, mix_ln, norm_former, peri, post, pre, sandwich, span_norm, sub_ln"


def runs_of(file, *overrides):
    return load_experiment(file, overrides).runs


def one(config, **given):
    return runs_of(config(text(**given)))[0]


@pytest.mark.parametrize(
    ("model", "own"), [(VIT, "pre"), ("{name: resnet, depth: 8}", "v1"), ("resnet_v2", "v2")]
)
def test_the_networks_own_placement_and_null_have_the_hash_of_a_config_without(config, model, own):
    hashes = {
        one(config, model=model, **g).hash for g in ({}, {"placement": own}, {"placement": "null"})
    }
    assert len(hashes) == 1
    assert "placement" not in one(config, model=model, placement=own).sections


def test_a_config_without_one_has_the_hash_that_it_had_before_there_were_any(config):
    """Noted of version 0.1 as it was before the section `kernel` came."""
    assert one(config).hash == "f8b6261ecc"


def test_other_placements_make_other_runs_and_so_do_their_fields(config):
    values = ["pre", "post", "mix_ln", "{name: mix_ln, share: 0.5}"]
    hashes = [one(config, model=VIT, placement=value).hash for value in values]
    assert len(set(hashes)) == 4
    assert one(config, model=VIT, placement="{name: mix_ln, share: 0.25}").hash == hashes[2]


def test_a_sweep_goes_over_placements_beside_normalisers(config):
    sweep = "{placement: [pre, post, {name: mix_ln, share: 0.5}], norm: [layer_norm, rms_norm]}"
    runs = runs_of(config(text(model=VIT, norm="layer_norm", sweep=sweep)))
    arms = [run.arm for run in runs]
    assert arms[:3] == ["pre, layer_norm", "pre, rms_norm", "post, layer_norm"]
    assert arms[-1] == "mix_ln(share=0.5), rms_norm"
    made = [build.model(run.sections).placement for run in runs]
    assert (made[0], made[-1]) == (Pre(), MixLN(share=0.5))
    assert len({run.hash for run in runs}) == 6


@pytest.mark.parametrize("depth", [8, 20])
def test_a_sweep_of_residual_networks_has_one_placement_each(config, depth):
    sweep = f"{{placement: [v1, v2, branch, after_addition, v1_act_norm, v2_act_norm], model.depth: [{depth}]}}"
    runs = runs_of(config(text(model="resnet", sweep=sweep)))
    assert len({run.hash for run in runs}) == 6
    assert build.model(runs[0].sections).placement == V1()


@pytest.mark.parametrize(
    ("model", "placement", "told"),
    [
        (VIT, "v1", f"placement: model vit has no placement 'v1'; it has {TOKENS}"),
        ("resnet", "post", "placement: model resnet has no placement 'post'; it has after_addition, branch, v1, v1_act_norm, v2, v2_act_norm"),
        ("skipinit", "v1", "placement: model skipinit has no placement 'v1'; it has v2"),
        ("fixup", "v1", "placement: model fixup has no slot for a placement; use null"),
        ("mlp", "pre", "placement: model mlp has no slot for a placement; use null"),
        (VIT, "ngpt", "no placement is called 'ngpt', which is a model; "),
        (VIT, "postt", "no placement is called 'postt'; did you mean 'post'?"),
        (VIT, "{name: post, share: 1}", "placement post has no key 'share'; it has none"),
        (VIT, "{name: mix_ln, share: 2}", "placement mix_ln: share must be above 0 and at most 1, got 2.0"),
        (VIT, "{name: mix_ln, share: 0.1}", "placement: share must be at least 0.25, so that one of 4 blocks is post-norm, got 0.1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_what_is_allowed(config, model, placement, told):
    norm = "identity" if model == "fixup" else "layer_norm"
    (problem,) = problems_of(config(text(model=model, norm=norm, placement=placement))).splitlines()
    assert told in problem


def test_hybrid_norm_names_the_key_of_the_model_that_stands_in_its_way(config):
    model = "{name: vit, depth: 2, width: 8, heads: 2, patch: 8, qk_norm: rms_norm}"
    (problem,) = problems_of(
        config(text(model=model, norm="layer_norm", placement="hybrid_norm"))
    ).splitlines()
    assert "model: qk_norm must be none" in problem


def test_a_placement_of_ones_own_code_is_named_by_its_file(config):
    (run,) = runs_of(config(text(model=VIT, placement="tests.shared.my_placement:Halved")))
    assert isinstance(build.model(run.sections).placement, TokenPlacement)
    assert "tests.shared.my_placement" in run.own_code


def test_the_schema_and_describe_know_every_placement():
    schema = json_schema()
    config = {"placement": {"name": "mix_ln", "share": 0.5}}
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"placement": {"name": "mix_ln", "shre": 0.5}}, schema)
    for name in PLACEMENTS.entries():
        assert name in describe_entry("placement")
        assert describe_entry(name).startswith(f"{name} (placement)")
    with pytest.raises(UserError):
        describe_entry("mix_lnn")
