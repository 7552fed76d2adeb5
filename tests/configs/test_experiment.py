"""A config resolves to the right values, and two runs are the same run only if they must be."""

import random
import shlex

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.configs.document import parse
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.errors import UserError
from tests.shared.small_runs import TINY


def hashes(file, *overrides):
    return [run.hash for run in load_experiment(file, overrides).runs]


def test_yaml_scalars_follow_the_core_schema():
    text = (
        "[1e-3, 1e3, .5, 010, 0x1f, no, yes, on, true, ~, '1', 1_000, 12:30, 1., -.inf, 2026-01-01]"
    )
    want = [1e-3, 1e3, 0.5, 10, 31, "no", "yes", "on", True, None, "1", "1_000", "12:30", 1.0,
            float("-inf"), "2026-01-01"]  # fmt: skip
    assert parse(text, "text").value == want


def test_every_default_is_filled_in_and_its_origin_known(tiny):
    (run,) = load_experiment(tiny(), ("norm.eps=1e-3",)).runs
    assert run.sections["norm"] == {
        "name": "batch_norm",
        "eps": 1e-3,
        "momentum": 0.9,
        "norm_batch": None,
        "unbiased_running_variance": False,
        "use_bias": True,
        "use_scale": True,
    }
    assert run.sections["schedule"]["decay_steps"] == 3 * 6
    assert str(run.origins["norm", "eps"]) == "command line 'norm.eps=1e-3'"
    assert str(run.origins["train", "epochs"]).endswith("tiny.yaml:7:17")
    assert ("norm", "momentum") not in run.origins


SAME = {
    "spelt out": "norm: {name: batch_norm}",
    "default given": "norm: {momentum: 0.9, name: batch_norm}",
    "cosmetics": "norm: batch_norm\nquestion: why\nname: other\ntarget: {test_accuracy: 0.5}",
    "comment": "norm: batch_norm # a comment",
}


@pytest.mark.parametrize("spelling", SAME)
def test_spelling_does_not_change_a_run(tiny, spelling):
    before = hashes(tiny())
    file = tiny(name="other.yaml")
    file.write_text(TINY.replace("norm: batch_norm", SAME[spelling]))
    assert hashes(file) == before


@pytest.mark.parametrize(
    "override",
    ["seed=1", "norm.eps=1e-4", "norm=layer_norm", "model.widths=[9]", "data.augment=[]",
     "schedule.init_value=0.2", "optimizer.nesterov=true", "decay.rate=1e-4", "train.clip=1"],
)  # fmt: skip
def test_every_value_that_matters_changes_it(tiny, override):
    assert hashes(tiny(), override) != hashes(tiny())


def test_a_resolved_config_is_a_config_of_the_same_run(tiny, make):
    run = make(tiny(), "epochs=1").runs.runs[0]
    assert run.path.name.endswith(hashes(run.path / "config.yaml")[0])


def test_the_command_of_a_run_makes_that_run_alone(tiny):
    sweep = (
        "sweep: {norm: [layer_norm, {name: group_norm, groups: 2}], epochs: [1, 2], seed: 0..1}\n"
    )
    experiment = load_experiment(tiny(sweep), ("model.widths=[16]",))
    assert len(experiment.runs) == 8
    for run in experiment.runs:
        _, _, file, *overrides = shlex.split(experiment.command(run))
        assert hashes(experiment.file.parent / file, *overrides) == [run.hash]


def test_arms_are_named_by_what_is_swept(tiny):
    sweep = (
        "sweep: {norm: [layer_norm, {name: group_norm, groups: 2}], epochs: [1, 2], seed: 0..1}\n"
    )
    arms = list(dict.fromkeys(run.arm for run in load_experiment(tiny(sweep)).runs))
    assert arms == ["layer_norm, epochs=1", "layer_norm, epochs=2",
                    "group_norm(groups=2), epochs=1", "group_norm(groups=2), epochs=2"]  # fmt: skip
    assert load_experiment(tiny()).runs[0].arm == "batch_norm"


def test_an_override_of_an_axis_takes_it_out_of_the_sweep(tiny):
    file = tiny("sweep: {norm: [layer_norm, identity], seed: 0..4}\n")
    runs = load_experiment(file, ("norm=rms_norm", "seed=7")).runs
    assert [(run.sections["norm"]["name"], run.seed) for run in runs] == [("rms_norm", 7)]


def test_a_child_lays_its_keys_over_its_parents(tiny):
    tiny(name="parent.yaml")
    child = tiny(name="child.yaml")
    child.write_text(
        "extends: parent.yaml\n"
        "norm: {momentum: 0.5}\n"  # the same call: merged
        "optimizer: {name: adam}\n"  # another call: replaced, momentum and all
        "train: {epochs: 9}\n"
    )
    (run,) = load_experiment(child).runs
    assert run.sections["norm"]["name"] == "batch_norm" and run.sections["norm"]["momentum"] == 0.5
    assert run.sections["optimizer"]["name"] == "adam"
    assert run.sections["train"]["epochs"] == 9 and run.sections["train"]["batch_size"] == 20
    assert "parent.yaml" in str(run.origins["train", "batch_size"])


def test_adamw_takes_weight_decay_off_norms_and_biases_by_default(tiny):
    import jax.numpy as jnp

    from normlab.configs import build

    overrides = ("optimizer={name: adamw, weight_decay: 0.5}",)
    (run,) = load_experiment(tiny(), overrides).runs
    optimizer = build.optimizer(run.sections)
    params = {"Dense_0": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
              "Norm_0": {"norm": {"scale": jnp.ones(2)}}}  # fmt: skip
    zeros = {"Dense_0": {"kernel": jnp.zeros(2), "bias": jnp.zeros(2)},
             "Norm_0": {"norm": {"scale": jnp.zeros(2)}}}  # fmt: skip
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    assert (updates["Dense_0"]["kernel"] < 0).all()
    assert not updates["Dense_0"]["bias"].any() and not updates["Norm_0"]["norm"]["scale"].any()


SCHEDULES = [
    "{name: piecewise_constant_schedule, init_value: 1, boundaries_and_scales: {6: 0.1, 12: 0.1}}",
    "{name: warmup_cosine_decay_schedule, init_value: 0, peak_value: 0.1, warmup_steps: 3}",
    "{name: exponential_decay, init_value: 0.1, decay_rate: 0.9}",
    "{name: linear_onecycle_schedule, peak_value: 0.1}",
    "{name: sgdr_schedule, cosine_kwargs: [{init_value: 0.0, peak_value: 0.1, warmup_steps: 2, "
    "decay_steps: 9, end_value: 0.0}]}",
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_any_schedule_of_optax_runs_and_its_written_config_is_the_same_run(tiny, make, schedule):
    outcome = make(tiny(), f"schedule={schedule}", "epochs=1")
    assert outcome.states == ["done"]
    path = outcome.runs.runs[0].path
    assert path.name.endswith(hashes(path / "config.yaml")[0])


@pytest.mark.parametrize(
    "override",
    ["train.metrics=-1", "train.metrics=auc", "train.metrics={a: 1}", "train.metrics=2.5"],
)
def test_metrics_of_another_kind_are_told_with_their_place(tiny, override):
    with pytest.raises(UserError, match="'metrics' must be a list"):
        load_experiment(tiny(), [override])


def test_a_rule_that_is_none_is_told_where_there_is_a_tuning_too(tiny):
    tune = "tune: {grid: {learning_rate: [0.1, 0.2]}, seeds: 5..6}\n"
    with pytest.raises(UserError, match="exclude"):
        load_experiment(tiny(tune), ["sweep.exclude=[-1]"])


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=5),
    st.just("0..3"), st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.sampled_from(["name", "groups", "x"]), st.integers(0, 9), max_size=2),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), value=SCALARS, cuts=st.integers(0, 3))
def test_a_mutilated_config_is_told_so_or_runs_but_never_fails_otherwise(
    tmp_path_factory, seed, value, cuts
):
    rng = random.Random(seed)
    config = yaml.safe_load(TINY)
    section = rng.choice([*config, "sweep", "decay", "target"])
    inner = config.get(section)
    if isinstance(inner, dict) and rng.random() < 0.7:
        inner[rng.choice([*inner, "extra"])] = value
    else:
        config[section] = value
    text = yaml.safe_dump(config, sort_keys=False)
    for _ in range(cuts):
        place = rng.randrange(len(text))
        text = (
            text[:place] + rng.choice(["", " ", ":", "{", "\n", "\t", "-", "é"]) + text[place + 1 :]
        )
    file = tmp_path_factory.mktemp("fuzz") / "config.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        runs = load_experiment(file).runs
    except UserError as error:
        assert "config.yaml" in str(error)
    else:
        assert runs


def test_the_json_schema_takes_what_the_check_takes_and_refuses_typos(tiny):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    good = parse(tiny("sweep: {seed: 0..3}\nschedule: {name: constant_schedule, value: 1}\n")
                 .read_text(), "text", []).value  # fmt: skip
    validator.validate(good)
    validator.validate({"norm": "my_file:MyNorm", "data": {"name": "shapes", "augment": ["flip"]}})
    for path, typo in {
        ("norm",): "bach_norm",
        ("train",): {"epoch": 1},
        ("model",): {"name": "mlp", "width": [8]},
        ("extra",): 1,
        ("data",): {"name": "shapes", "augment": ["flop"]},
    }.items():
        assert not validator.is_valid({**good, path[0]: typo}), path
