"""The key `dialect` of the section `norm`: translated at the edge, told where it came from."""

import pytest

from normlab.configs.document import parse
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema

from .mistakes import assert_told, problems_of, text


def runs(config, norm, *overrides, **sections):
    return load_experiment(config(text(norm=norm, **sections)), overrides).runs


SAME = {
    "torch": (
        "{name: batch_norm, dialect: torch}",
        "{name: batch_norm, momentum: 0.9, unbiased_running_variance: true}",
    ),
    "torch's momentum": (
        "{name: batch_norm, dialect: torch, momentum: 0.3, eps: 1e-3}",
        "{name: batch_norm, momentum: 0.7, eps: 1e-3, unbiased_running_variance: true}",
    ),
    "torch's cumulative average": (
        "{name: batch_norm, dialect: torch, momentum: null}",
        "{name: debiased_batch_norm, momentum: 1.0, unbiased_running_variance: true}",
    ),
    "flax": ("{name: layer_norm, dialect: flax}", "{name: layer_norm, eps: 1e-6}"),
    "keras": (
        "{name: batch_norm, dialect: keras}",
        "{name: batch_norm, momentum: 0.99, eps: 1e-3}",
    ),
    "haiku": (
        "{name: batch_norm, dialect: haiku, momentum: 0.95}",
        "{name: debiased_batch_norm, momentum: 0.95}",
    ),
    "equinox": ("{name: rms_norm, dialect: equinox}", "{name: rms_norm, use_bias: true}"),
    "timm": ("{name: rms_norm, dialect: timm}", "{name: rms_norm, eps: 1e-6}"),
    "none": ("{name: batch_norm, dialect: null}", "batch_norm"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_a_dialect_resolves_to_the_same_run_as_what_it_stands_for(config, case):
    (spoken,), (plain,) = (runs(config, norm) for norm in SAME[case])
    assert spoken.sections == plain.sections and spoken.hash == plain.hash
    assert "dialect" not in spoken.sections["norm"]


def test_kernel_transforms_have_dialects_too(config):
    spoken, plain = (
        runs(config, "identity", kernel=kernel)[0]
        for kernel in (
            "{name: weight_standardisation, dialect: timm}",
            "{name: weight_standardisation, unbiased: false, eps_in_variance: true, eps: 1e-6}",
        )
    )
    assert spoken.hash == plain.hash


def test_a_config_without_a_dialect_keeps_its_hash(config):
    """Golden: the hash of this config before there were dialects."""
    (run,) = runs(config, "batch_norm")
    assert run.hash == "f8b6261ecc"


def test_origins_say_that_a_value_is_the_dialect_s(config):
    (run,) = runs(config, "{name: batch_norm, dialect: haiku, momentum: 0.95}")
    file = run.origins[("norm", "momentum")].source
    assert str(run.origins[("norm", "momentum")]) == f"{file}:3:52"
    assert str(run.origins[("norm", "eps")]) == f"{file}:3:35 (dialect haiku)"
    assert str(run.origins[("norm", "name")]) == f"{file}:3:14 (dialect haiku: batch_norm)"
    (run,) = runs(config, "{name: batch_norm, dialect: torch, momentum: 0.3}")
    assert str(run.origins[("norm", "momentum")]) == f"{file}:3:52 (dialect torch: 0.3)"
    (run,) = runs(config, "batch_norm", "norm.dialect=torch")
    where = "command line 'norm.dialect=torch' (dialect torch)"
    assert str(run.origins[("norm", "unbiased_running_variance")]) == where


def test_dialects_are_arms_of_a_sweep(config):
    sweep = "{norm: [{name: batch_norm, dialect: torch}, {name: batch_norm, dialect: keras}]}"
    found = runs(config, "batch_norm", sweep=sweep)
    assert [run.arm for run in found] == [
        "batch_norm(dialect=torch)",
        "batch_norm(dialect=keras)",
    ]
    assert [run.sections["norm"]["eps"] for run in found] == [1e-5, 1e-3]
    found = runs(config, "layer_norm", sweep="{norm.dialect: [torch, flax]}")
    assert [run.arm for run in found] == ["norm.dialect=torch", "norm.dialect=flax"]
    sweep = "{norm: [batch_norm, {name: batch_norm, dialect: torch, momentum: 0.1}]}"
    assert len({run.hash for run in runs(config, "batch_norm", sweep=sweep)}) == 2


MISTAKES = {
    "no such dialect": (
        "{name: batch_norm, dialect: troch}",
        "{file}:3:35: norm: no dialect is called 'troch'; did you mean 'torch'?",
    ),
    "a number": (
        "{name: batch_norm, dialect: 3}",
        "{file}:3:35: norm: 'dialect' must be the name of a library, found 3",
    ),
    "no such layer": (
        "{name: instance_norm, dialect: keras}",
        "{file}:3:14: norm: the dialect keras has no instance_norm; it has batch_norm, layer_norm, "
        "group_norm, rms_norm. Without 'dialect', normlab's own is meant",
    ),
    "no such argument": (
        "{name: batch_norm, dialect: torch, norm_batch: 4}",
        "{file}:3:42: norm: BatchNorm1d, 2d, 3d of torch has no argument 'norm_batch'; it has ...",
    ),
    "the library's own word": (
        "{name: batch_norm, dialect: keras, epsilon: 1e-3}",
        "{file}:3:42: norm: BatchNormalization of keras has no argument 'epsilon'; "
        "it is called 'eps' here, whatever the dialect",
    ),
    "none by default": (
        "{name: batch_norm, dialect: haiku}",
        "{file}:3:8: norm: BatchNorm of haiku has no default for 'momentum': give one",
    ),
    "one switch": (
        "{name: group_norm, dialect: equinox, groups: 4, use_bias: false}",
        "{file}:3:55: norm: GroupNorm of equinox has one switch, channelwise_affine, for scale and "
        "bias: give 'use_scale' and 'use_bias' alike",
    ),
    "a bias alone": (
        "{name: layer_norm, dialect: torch, use_scale: false}",
        "{file}:3:42: norm: LayerNorm of torch has no bias without a scale: give 'use_bias: false'",
    ),
    "of the wrong type": (
        "{name: batch_norm, dialect: torch, momentum: high}",
        "{file}:3:52: norm batch_norm: 'momentum' must be a number, found the text 'high'",
    ),
    "out of range": (
        "{name: batch_norm, dialect: torch, momentum: 1.5}",
        "{file}:3:52 (dialect torch: 1.5): norm batch_norm: momentum must be between 0 and 1, "
        "got -0.5",
    ),
    "the dialect's own default does not fit": (
        "{name: group_norm, dialect: flax}",
        "{file}:3:35 (dialect flax): norm: groups=32 does not divide the 8 channels of this layer; "
        "1, 2, 4, 8 would",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_where_it_stands(config, mistake):
    norm, expected = MISTAKES[mistake]
    assert_told(config(text(norm=norm)), expected)


def test_all_mistakes_of_a_call_come_at_once(config):
    norm = "{name: batch_norm, dialect: haiku, epsilon: 1, norm_batch: 4}"
    assert len(problems_of(config(text(norm=norm))).splitlines()) == 3


def test_the_editor_s_schema_knows_dialects():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    for norm, plain in SAME.values():
        assert validator.is_valid(parse(text(norm=norm), "text").value), norm
        assert validator.is_valid(parse(text(norm=plain), "text").value), plain
    for norm in (MISTAKES["no such dialect"][0], MISTAKES["no such layer"][0]):
        assert not validator.is_valid(parse(text(norm=norm), "text").value), norm
