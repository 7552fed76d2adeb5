"""Every way in which a sweep is written: its runs, their names, their commands, its mistakes."""

# ruff: noqa: E501 (a golden text is easier to read whole)

import random
import re
import shlex

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.configs.document import parse
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.errors import UserError
from normlab.store.seeds import seed_text

from .mistakes import problems_of, text

COSINE = "{name: cosine_decay_schedule, init_value: 0.5}"
WARM_UP = "{name: warmup_constant_schedule, init_value: 0, peak_value: 1, warmup_steps: 2}"

# The sweep, and its runs as "arm | seed".
SWEEPS = {
    "labels in a grid": (
        "{norm: {bn: batch_norm, 'gn, 2 groups': {name: group_norm, groups: 2}}, seed: 0..1}",
        ["bn | 0", "bn | 1", "gn, 2 groups | 0", "gn, 2 groups | 1"],
    ),
    "labels of plain values": (
        "{batch_size: {small: 5, large: 20}, model.widths: {8: [8], 16: [16]}}",
        ["small, 8 | 0", "small, 16 | 0", "large, 8 | 0", "large, 16 | 0"],
    ),
    "a zip": (
        "{norm: [layer_norm, identity], zip: {batch_size: [5, 20], learning_rate: [0.05, 0.2]}}",
        ["layer_norm, batch_size=5, learning_rate=0.05 | 0", "layer_norm, batch_size=20, learning_rate=0.2 | 0",
         "identity, batch_size=5, learning_rate=0.05 | 0", "identity, batch_size=20, learning_rate=0.2 | 0"],
    ),
    "several zips, before the grid": (
        "{zip: [{epochs: [1, 2], decay.rate: [0.1, 0]}, {batch_size: {s: 5, l: 20}, seed: 3..4}], norm: [identity]}",
        ["epochs=1, decay.rate=0.1, s, identity | 3", "epochs=1, decay.rate=0.1, l, identity | 4",
         "epochs=2, decay.rate=0, s, identity | 3", "epochs=2, decay.rate=0, l, identity | 4"],
    ),
    "a list": (
        "{list: [{norm: batch_norm, batch_size: 2}, {batch_size: 20, norm: rms_norm}], seed: 0..1}",
        ["batch_norm, batch_size=2 | 0", "batch_norm, batch_size=2 | 1", "rms_norm, batch_size=20 | 0", "rms_norm, batch_size=20 | 1"],
    ),
    "labels in a list": (
        "{list: {tiny batch: {norm: batch_norm, batch_size: 2, seed: 7}, usual: {norm: rms_norm, batch_size: 20, seed: 8}}, epochs: [1, 2]}",
        ["tiny batch, epochs=1 | 7", "tiny batch, epochs=2 | 7", "usual, epochs=1 | 8", "usual, epochs=2 | 8"],
    ),
    "a list of seeds": ("{list: {a: {seed: 1}, b: {seed: 2}}}", ["a | 1", "b | 2"]),
    "an exclusion": (
        "{norm: [batch_norm, rms_norm], batch_size: [2, 20], seed: 0..1, exclude: [{norm: batch_norm, batch_size: 2}, {norm: {name: rms_norm}, train.seed: 1}]}",
        ["batch_norm, batch_size=20 | 0", "batch_norm, batch_size=20 | 1", "rms_norm, batch_size=2 | 0", "rms_norm, batch_size=20 | 0"],
    ),
    "an exclusion by label": (
        "{norm: {bn: batch_norm, rms: rms_norm}, model.widths: {8: [8], 9: [9]}, exclude: [{norm: bn, model.widths: 8}, {norm: rms_norm, model.widths: [9]}]}",
        ["bn, 9 | 0", "rms, 8 | 0"],
    ),
    "everything at once": (
        "{norm: {bn: batch_norm, rms: rms_norm}, seed: 0..1, zip: {epochs: [1, 2], train.clip: [null, 1]}, list: {a: {batch_size: 5}, b: {batch_size: 10}}, exclude: [{norm: bn}, {batch_size: 5, epochs: 1}, {seed: 1}]}",
        ["rms, epochs=1, train.clip=null, b | 0", "rms, epochs=2, train.clip=1, a | 0", "rms, epochs=2, train.clip=1, b | 0"],
    ),
    "learning rates of swept optimisers": (
        "{learning_rate: [0.1, 0.2], optimizer: [sgd, {name: adam, b1: 0.8}]}",
        ["learning_rate=0.1, sgd | 0", "learning_rate=0.1, adam(b1=0.8) | 0", "learning_rate=0.2, sgd | 0", "learning_rate=0.2, adam(b1=0.8) | 0"],
    ),
    "learning rates of swept schedules": (
        f"{{list: [{{optimizer: sgd}}], schedule: [null, {COSINE}, {WARM_UP}], learning_rate: [0.1]}}",
        ["sgd, schedule=null, learning_rate=0.1 | 0", "sgd, cosine_decay_schedule, learning_rate=0.1 | 0",
         "sgd, warmup_constant_schedule(init_value=0, warmup_steps=2), learning_rate=0.1 | 0"],
    ),
    "augmentations and seeds": (
        "{data: [{name: shapes, size: 8, augment: [flip]}], seed: 0..1}",
        ["shapes(size=8, augment=['flip']) | 0", "shapes(size=8, augment=['flip']) | 1"],
    ),
    "null": ("null", ["batch_norm | 0"]),
    "null forms": ("{zip: null, list: null, exclude: null, seed: [1]}", ["batch_norm | 1"]),
}  # fmt: skip


def runs_of(file, *overrides):
    return [f"{run.arm} | {run.seed}" for run in load_experiment(file, overrides).runs]


@pytest.mark.parametrize("form", SWEEPS)
def test_the_runs_of_each_form_their_order_and_names(config, form):
    sweep, expected = SWEEPS[form]
    assert runs_of(config(text(sweep=sweep))) == expected


@pytest.mark.parametrize("form", SWEEPS)
def test_the_command_of_each_run_makes_that_run_alone(config, form):
    experiment = load_experiment(config(text(sweep=SWEEPS[form][0])), ("model.activation=tanh",))
    for run in experiment.runs:
        _, _, file, *overrides = shlex.split(experiment.command(run))
        again = load_experiment(experiment.file.parent / file, tuple(overrides)).runs
        assert [one.hash for one in again] == [run.hash]


@pytest.mark.parametrize("form", SWEEPS)
def test_the_json_schema_takes_each_form(form):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate({"sweep": parse(SWEEPS[form][0], "text").value}, json_schema())


@pytest.mark.parametrize(
    "sweep",
    ["{seed: 3}", "{seed: 0-3}", "{zip: {seed: 3}}", "{list: [3]}", "{exclude: {seed: 3}}",
     "{nrom: [batch_norm]}", "{train.batch_size: [x]}",
     "{list: [{norm: nope}]}"],
)  # fmt: skip
def test_the_json_schema_refuses_what_the_check_refuses(config, sweep):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    assert not validator.is_valid({"sweep": parse(sweep, "text").value})
    assert problems_of(config(text(sweep=sweep)))


def test_labels_are_the_names_of_values_but_a_listed_point_keeps_its_own(config):
    sweep = "{norm: {bn: batch_norm}, list: {slow: {epochs: 2, batch_size: 5, seed: 1}}}"
    (run,) = load_experiment(config(text(sweep=sweep))).runs
    assert run.arm == "bn, slow"
    assert run.labels == {"norm": "bn", "epochs": 2, "batch_size": 5}
    assert run.axes == {"norm": {"name": "batch_norm"}, "epochs": 2, "batch_size": 5, "seed": 1}


@pytest.mark.parametrize(
    ("schedule", "argument"),
    [("null", None), (COSINE, "init_value"), (WARM_UP, "peak_value"),
     ("{name: constant_schedule, value: 1}", "value"), ("constant_schedule", "value"),
     ("{name: linear_schedule, init_value: 1, end_value: 0}", "init_value"),
     ("{name: linear_onecycle_schedule, peak_value: 1}", "peak_value")],
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_a_bare_learning_rate_is_that_of_the_optimiser_or_the_schedule(
    config, schedule, argument, first
):
    file = config(text(optimizer="sgd"))
    both = ("learning_rate=0.25", f"schedule={schedule}")
    (run,) = load_experiment(file, both if first else both[::-1]).runs
    held = run.sections["schedule"][argument] if argument else run.sections["optimizer"]
    assert held == 0.25 if argument else held["learning_rate"] == 0.25


def test_a_learning_rate_overrides_that_of_every_swept_schedule_and_labels_do_not_deny_it(config):
    file = config(text(optimizer="sgd", sweep=f"{{schedule: [{COSINE}, {WARM_UP}]}}"))
    first, second = load_experiment(file, ("learning_rate=0.25",)).runs
    assert first.sections["schedule"]["init_value"] == 0.25 and first.arm == "cosine_decay_schedule"
    assert second.sections["schedule"]["peak_value"] == 0.25
    assert second.sections["schedule"]["init_value"] == 0


@pytest.mark.parametrize(
    ("axis", "override", "expected"),
    [("learning_rate", "optimizer.learning_rate=1", "epochs=4 | 0"),
     ("optimizer.learning_rate", "learning_rate=1", "epochs=4 | 0"),
     # As the axis is spelt, its new value is one more arm of the experiment.
     ("learning_rate", "learning_rate=1", "learning_rate=1, epochs=4 | 0"),
     ("seed", "train.seed=1", "epochs=4 | 1")],
)  # fmt: skip
def test_an_override_takes_its_axis_out_of_the_grid_however_either_is_spelt(
    config, axis, override, expected
):
    file = config(text(sweep=f"{{{axis}: [2, 3], epochs: [4]}}"))
    assert runs_of(file, override) == [expected]


EXCLUDING = "{norm: {bn: batch_norm, rms: rms_norm}, batch_size: [2, 20], exclude: [{norm: bn, batch_size: 2}]}"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # A part of the experiment keeps the names of the whole.
        (["norm=batch_norm"], ["bn, batch_size=20 | 0"]),
        (["norm=rms_norm"], ["rms, batch_size=2 | 0", "rms, batch_size=20 | 0"]),
        (["norm={name: batch_norm, momentum: 0.5}"], ["batch_size=2 | 0", "batch_size=20 | 0"]),
        (["batch_size=2"], ["rms, batch_size=2 | 0"]),
        (["batch_size=5"], ["bn | 0", "rms | 0"]),
        # Who asks for just the run that is left out is given it.
        (["batch_size=2", "norm=batch_norm"], ["batch_norm | 0"]),
        (["sweep.exclude=null", "batch_size=2"], ["bn | 0", "rms | 0"]),
        (["sweep=null"], ["bn, batch_size=20 | 0"]),
        (["sweep.batch_size=[2]"], ["rms, batch_size=2 | 0"]),
    ],
)
def test_an_exclusion_holds_for_what_overrides_leave_of_the_sweep(config, overrides, expected):
    assert runs_of(config(text(sweep=EXCLUDING)), *overrides) == expected


def seeds_of(file, *overrides):
    return [seed_text(run.seed) for run in load_experiment(file, overrides).runs]


CROSSED = [f"init={i} order=0 augment={a}" for i in (0, 1, 2) for a in (0, 5)]


@pytest.mark.parametrize(
    "parts",
    [
        {"sweep": "{seed: {init: 0..2, order: 0, augment: [0, 5]}}"},
        {"train": "{epochs: 1, batch_size: 20, seed: {init: 0..2, augment: [0, 5]}}"},
        {"sweep": "{train.seed: {init: 0..2, augment: [0, 5], dropout: 0}}"},
    ],
)
def test_the_streams_of_a_seed_are_crossed(config, parts):
    assert seeds_of(config(text(**parts))) == CROSSED


def test_a_seed_may_be_split_in_one_run_on_the_command_line_and_in_a_list(config):
    file = config(text())
    assert seeds_of(file, "seed={init: 2}") == ["init=2 order=0 augment=0"]
    assert seeds_of(file, "seed.init=2") == ["init=2 order=0 augment=0"]
    assert seeds_of(file, "seed={init: 0..1, order: 7}") == [
        "init=0 order=7 augment=0", "init=1 order=7 augment=0"]  # fmt: skip
    apart = config(text(sweep="{seed: [{init: 0, order: 5}, {init: 1, order: 6}]}"))
    assert seeds_of(apart) == ["init=0 order=5 augment=0", "init=1 order=6 augment=0"]
    assert seeds_of(apart, "sweep.seed=[{dropout: 1}, 3]") == [
        "init=0 order=0 augment=0 dropout=1", "3"]  # fmt: skip


def test_a_split_seed_makes_no_arm_and_its_command_makes_the_run_again(config):
    file = config(text(sweep="{norm: [rms_norm, identity], seed: {init: 0..1, order: 0..1}}"))
    found = load_experiment(file)
    assert {run.arm for run in found.runs} == {"rms_norm", "identity"}
    for run in found.runs:
        _, _, _, *overrides = shlex.split(found.command(run))
        (again,) = load_experiment(file, tuple(overrides)).runs
        assert (again.hash, again.seed, again.arm) == (run.hash, run.seed, run.arm)
        assert run.with_seed(3).sections["train"]["seed"] == 3
        assert run.with_seed(3).with_seed(run.seed).hash == run.hash


def test_looks_need_seeds_that_share_nothing(config):
    one = config(text(sweep="{seed: {init: 0..9, order: 0}}") + "looks: [5, 10]\n", "one.yaml")
    assert load_experiment(one).looks == (5, 10)
    two = config(text(sweep="{seed: {init: 0..4, order: 0..1}}") + "looks: [5, 10]\n", "two.yaml")
    assert problems_of(two) == (
        "{file}:7:8: a look counts independent repetitions, and here the streams init and order "
        "are crossed, so runs share them: take 'looks' out, or let one stream vary"
    )


# `^` stands before each mistake.
MISTAKES = {
    "zip of unequal lengths": ("{zip: ^{batch_size: [5, 20], seed: 0..2}}", ["the axes of a 'zip' go together value by value, so each needs as many values as the others: 'batch_size' has 2, 'seed' has 3"]),
    "zip of nothing": ("{zip: ^{}}", ["'zip' must be a mapping of axes to lists of values, or a list of such mappings, found the mapping {}"]),
    "zip of a number": ("{zip: [^3]}", ["'zip' must be a mapping of axes to lists of values, or a list of such mappings, found 3"]),
    "value in a zip": ("{zip: {seed: ^3}}", ["the axis 'seed' must be a list of values, or a range such as 0..4, found 3"]),
    "unknown axis in a zip": ("{zip: {^sede: [3]}}", ["nothing is called 'sede' that could be swept; did you mean 'seed'?"]),
    "unknown axis in a list": ("{list: [{^learning_rte: 3}]}", ["nothing is called 'learning_rte' that could be swept; did you mean 'learning_rate'?"]),
    "axis in grid and zip": ("{seed: [1], zip: {^seed: [2]}}", ["the axis 'seed' is given twice in the sweep, first at {file}:6:9; keep one"]),
    "axis in zip and list": ("{zip: {seed: [1]}, list: [{^seed: 2}]}", ["the axis 'seed' is given twice in the sweep, first at {file}:6:15; keep one"]),
    "axis in two zips": ("{zip: [{seed: [1]}, {^seed: [2]}]}", ["the axis 'seed' is given twice in the sweep, first at {file}:6:16; keep one"]),
    "axis in another": ("{norm: [rms_norm], zip: {^norm.eps: [1]}}", ["the axes 'norm' and 'norm.eps' would overwrite each other; keep one"]),
    "learning rate in another": ("{optimizer.learning_rate: [1], ^learning_rate: [2]}", ["the axis 'optimizer.learning_rate' and 'learning_rate' set the same; keep one"]),
    "list of nothing": ("{list: ^[]}", ["'list' must be a list of points, or a mapping of labels to points, found the list []"]),
    "point that is no mapping": ("{list: [^batch_norm]}", ["a point of 'list' must be a mapping of axes to values, as in {norm: batch_norm, batch_size: 32}, found the text 'batch_norm'"]),
    "point that lacks an axis": ("{list: [{norm: rms_norm, seed: 1}, ^{norm: identity}]}", ["the points of 'list' must all have the same axes: the first has 'norm' and 'seed', this one 'norm'"]),
    "label without letters": ("{list: {^'': {seed: 1}}}", ["a label must not be empty"]),
    "call in place of labels": ("{norm: ^{name: rms_norm, eps: 1}}", ["the axis 'norm' must be a list of values, or a range such as 0..4, found the mapping {'name': 'rms_norm', 'eps': 1}; one value needs brackets around it: [{...}]"]),
    "wrong value in a point": ("{list: {a: {norm: rms_norm, seed: ^x}}}", ["train: 'seed' must be a whole number, found the text 'x'"]),
    "wrong key in a labelled value": ("{norm: {a: {name: rms_norm, ^esp: 1}}}", ["norm rms_norm has no key 'esp'; did you mean 'eps'?"]),
    "unknown key, many values": ("{^model.width: [[8], [9]]}", ["model mlp has no key 'width'; did you mean 'widths'?"]),
    "a label twice": ("^{seed: {1: 1, '1': 2}, model.widths: {8: [8], '8': [9]}}", ["two different runs are called '1, 8' with seed 1; give each a label of its own", "two different runs are called '1, 8' with seed 2; give each a label of its own"]),
    "an arm twice": ("^{batch_size: {'x': 5, 'x, y': 10}, model.widths: {'y, z': [8], 'z': [9]}}", ["two different runs are called 'x, y, z' with seed 0; give each a label of its own"]),
    "a point twice": ("^{list: {a: {seed: 1}, b: {seed: 1}}}", ["two runs of the sweep are the same: 'b' with seed 1"]),
    "exclude is no list": ("{seed: 0..1, exclude: ^{seed: 1}}", ["'exclude' must be a list of mappings of axes to values, as in [{norm: instance_norm, batch_size: 1}], found the mapping {'seed': 1}"]),
    "exclusion is no mapping": ("{seed: 0..1, exclude: [^1]}", ["what is excluded must be a mapping of axes to values, as in {norm: instance_norm, batch_size: 1}, found 1"]),
    "exclusion of an unknown axis": ("{seed: 0..1, exclude: [{^sed: 1}]}", ["the sweep has no axis 'sed'; did you mean 'seed'?"]),
    "exclusion from nothing": ("{exclude: [{^seed: 1}]}", ["the sweep has no axis 'seed'; it has none"]),
    "exclusion of an unknown value": ("{norm: {a: rms_norm, b: {name: rms_norm, eps: 1}}, seed: 0..19, exclude: [{norm: rms_norm, seed: ^20}, {norm: ^c}]}", ["'seed' is never 20, so no run is left out; it has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...", "'norm' is never c, so no run is left out; it has a, b"]),
    "exclusion of what never meets": ("{zip: {seed: [1, 2], epochs: [1, 2]}, exclude: [^{seed: 1, epochs: 2}]}", ["no run has all of these values together, so none is left out; drop it"]),
    "exclusion of everything": ("{seed: 0..1, ^exclude: [{seed: 0}, {seed: 1}]}", ["this leaves out every run of the sweep, all 2; keep some"]),
    "a stream that is none": ("{seed: {^int: 0..4, order: 0}}", ["a seed has no stream 'int'; did you mean 'init'?"]),
    "a stream of words": ("{seed: {init: ^many, order: 0}}", ["the stream 'init' of 'seed' must be a whole number, a list of them, or a range such as 0..4, found the text 'many'"]),
    "a stream as an axis": ("{^seed.init: 0..4}", ["the streams of a seed are one axis: write them together, as in seed: {init: 0..4, order: 0}"]),
    "a stream's number is too large": ("{seed: ^{init: [4096]}}", ["train: the stream 'init' must be a whole number from 0 to 4095, found 4096"]),
    "a crossing twice": ("^{seed: [{init: 1}, {init: 1, order: 0}]}", ["two runs of the sweep are the same: 'batch_norm' with seed init=1 order=0 augment=0"]),
    "too many streams": ("^{seed: {init: 0..200, order: 0..200}}", ["the sweep has more than 10000 runs; split it into several files"]),
    "too many runs": ("^{list: [{seed: 1}, {seed: 2}], epochs: 1..5001}", ["the sweep has more than 10000 runs; split it into several files"]),
    "all at once": ("{zip: ^{seed: 0..2, epochs: [1]}, list: [^3], exclude: [{^norm: rms_norm}]}", ["the axes of a 'zip' go together value by value, so each needs as many values as the others: 'seed' has 3, 'epochs' has 1", "a point of 'list' must be a mapping of axes to values, as in {norm: batch_norm, batch_size: 32}, found 3", "the sweep has no axis 'norm'; allowed: epochs, seed"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_in_these_words_and_no_others(config, mistake):
    sweep, expected = MISTAKES[mistake]
    lines = problems_of(config(text(sweep=sweep.replace("^", "")))).splitlines()
    marks = re.finditer(r"\^", f"sweep: {sweep}")
    columns = [mark.start() - index + 1 for index, mark in enumerate(marks)]
    if len(columns) < len(expected):  # several of one place
        columns *= len(expected)
    places = [f"{{file}}:6:{column}" for column in columns]
    assert lines == [f"{place}: {words}" for place, words in zip(places, expected, strict=True)]


@pytest.mark.parametrize(
    ("schedule", "keys"),
    [("{name: linear_schedule, init_value: 0, end_value: 1}", "'schedule.init_value' or 'schedule.end_value'"),
     ("{name: sgdr_schedule, cosine_kwargs: [{init_value: 0, peak_value: 1, warmup_steps: 2, decay_steps: 9}]}", "'schedule.cosine_kwargs'")],
)  # fmt: skip
def test_a_learning_rate_that_could_be_several_arguments_is_refused(config, schedule, keys):
    file = config(
        text(optimizer="sgd", schedule=schedule, sweep="{zip: {learning_rate: [1, 2], seed: 0..1}}")
    )
    name = parse(schedule, "text").value["name"]
    assert problems_of(file) == (
        f"{{file}}:7:15: it cannot be told which argument of schedule {name} is the learning rate; "
        f"write {keys} instead of 'learning_rate'"
    )


OVERRIDES = {
    "a zipped axis": (["seed=3"], "seed=3", "the sweep's 'zip' sets 'seed' together with others; take it out too (sweep.zip=null), or all of the sweep (sweep=null)"),
    "below a listed axis": (["norm.eps=1"], "norm.eps=1", "the sweep's 'list' sets 'norm' together with others; take it out too (sweep.list=null), or all of the sweep (sweep=null)"),
    "a learning rate twice": (["learning_rate=1", "sweep=null", "optimizer.learning_rate=2"], "optimizer.learning_rate=2", "'learning_rate' sets 'optimizer.learning_rate' too; keep one"),
    "a learning rate that is listed": (["optimizer.learning_rate=2"], "optimizer.learning_rate=2", "the sweep's 'list' sets 'learning_rate' together with others; take it out too (sweep.list=null), or all of the sweep (sweep=null)"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", OVERRIDES)
def test_an_override_that_the_sweep_would_undo_is_refused_and_says_how_to_mend_it(config, mistake):
    overrides, where, message = OVERRIDES[mistake]
    sweep = "{zip: {seed: 0..1, epochs: [1, 2]}, list: {a: {norm: rms_norm, learning_rate: 1}}}"
    file = config(text(sweep=sweep))
    assert problems_of(file, *overrides) == f"command line '{where}': {message}"


def test_a_tied_axis_can_be_overridden_once_its_form_is_taken_out(config):
    file = config(text(sweep="{zip: {seed: 0..1, epochs: [1, 2]}, norm: [rms_norm]}"))
    assert runs_of(file, "seed=3", "sweep.zip=null") == ["epochs=1, rms_norm | 3"]
    assert runs_of(file, "seed=3", "sweep=null") == ["epochs=1, rms_norm | 3"]


def test_a_learning_rate_outside_its_section_is_refused_in_a_file(config):
    message = "an experiment has no key 'learning_rate'; write it in 'optimizer', or in 'schedule' as the argument that holds it"
    assert problems_of(config(text() + "learning_rate: 1\n")) == f"{{file}}:6:1: {message}"


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        ("sweep: {exclude: null}", ["bn, epochs=1 | 0", "bn, epochs=2 | 1", "rms, epochs=1 | 0", "rms, epochs=2 | 1"]),
        ("sweep: {zip: {seed: [5]}, exclude: [{norm: rms}]}", ["bn | 5"]),
        ("sweep: {zip: null, seed: 0..1}", ["bn | 0", "bn | 1", "rms | 0"]),
        ("sweep: {zip: null, exclude: null}\ntrain: {seed: 1}", ["bn | 1", "rms | 1"]),
        ("sweep: null\ntrain: {seed: 1}", ["batch_norm | 1"]),
        ("norm: rms_norm", ["epochs=1 | 0"]),
        ("norm: rms_norm\nsweep: {norm: [identity, rms_norm]}", ["identity, epochs=1 | 0", "identity, epochs=2 | 1", "rms_norm, epochs=1 | 0"]),
    ],
)  # fmt: skip
def test_a_child_replaces_its_parents_forms_one_by_one(config, child, expected):
    sweep = "{norm: {bn: batch_norm, rms: rms_norm}, zip: {seed: 0..1, epochs: [1, 2]}, exclude: [{norm: rms_norm, seed: 1}]}"
    config(text(sweep=sweep), "parent.yaml")
    file = config(f"extends: parent.yaml\n{child}\n")
    assert runs_of(file) == expected


def test_a_child_cannot_set_what_its_parent_zips(config):
    config(text(sweep="{zip: {seed: 0..1, epochs: [1, 2]}}"), "parent.yaml")
    file = config("extends: parent.yaml\ntrain: {seed: 3}\n")
    assert problems_of(file) == (
        "{file}:2:9: the sweep's 'zip' sets 'seed' together with others; take it out too "
        "(sweep.zip=null), or all of the sweep (sweep=null)"
    )


AXES = st.sampled_from(["norm", "seed", "batch_size", "learning_rate", "schedule", "x", "zip", "8"])
VALUES = st.one_of(
    st.none(), st.integers(1, 3), st.floats(0.1, 1), st.just("rms_norm"), st.just("1..2"),
    st.sampled_from([{"name": "identity"}, {"name": "cosine_decay_schedule"}, {}, []]),
)  # fmt: skip
LISTS = st.one_of(VALUES, st.lists(VALUES, max_size=3), st.dictionaries(AXES, VALUES, max_size=3))
POINTS = st.dictionaries(AXES, VALUES, min_size=1, max_size=2)
FORMS = {
    "zip": st.dictionaries(AXES, LISTS, max_size=3),
    "list": st.one_of(st.lists(POINTS, max_size=3), st.dictionaries(AXES, POINTS, max_size=3)),
    "exclude": st.lists(POINTS, max_size=2),
}


@settings(max_examples=200, deadline=None)
@given(
    sweep=st.dictionaries(AXES, LISTS, max_size=2),
    forms=st.fixed_dictionaries({}, optional=FORMS),
    overrides=st.lists(
        st.sampled_from(["seed=1", "norm=rms_norm", "learning_rate=2", "schedule=constant_schedule",
                         "norm.eps=1", "sweep.zip=null", "sweep.list=3"]),
        max_size=2,
    ),
)  # fmt: skip
def test_any_sweep_is_told_so_or_runs_and_each_run_has_its_command(
    tmp_path_factory, sweep, forms, overrides
):
    file = tmp_path_factory.mktemp("fuzz") / "config.yaml"
    written = yaml.safe_dump({**sweep, **forms}, default_flow_style=True, width=10**6)
    file.write_text(text(sweep=written.strip()))
    try:
        experiment = load_experiment(file, tuple(overrides))
    except UserError as error:
        assert str(error)
        return
    run = random.Random(0).choice(experiment.runs)
    again = load_experiment(file, tuple(shlex.split(experiment.command(run))[3:])).runs
    assert [one.hash for one in again] == [run.hash]


UNUSED = (
    "{file}:3:1: no run has this 'norm', because the sweep puts others in its place: delete it, or "
    "write it, or those of its keys that are to hold, in the sweep's 'norm'"
)


@pytest.mark.parametrize(
    ("norm", "sweep", "used"),
    [
        ("layer_norm", "{norm: [layer_norm, identity]}", True),
        ("layer_norm", "{norm: {mine: {name: layer_norm, eps: 1e-3}}}", True),
        ("null", "{norm: [identity]}", True),
        ("rms_norm", "{norm: [layer_norm, identity]}", False),
        ("{name: layer_norm, eps: 1e-3}", "{norm: [layer_norm, identity]}", False),
    ],
)
def test_a_base_that_no_run_has_is_a_mistake(config, norm, sweep, used):
    file = config(text(norm=norm, sweep=sweep))
    if used:
        assert load_experiment(file).runs
    else:
        assert problems_of(file) == UNUSED


def test_what_a_parent_or_the_command_line_gives_is_not_in_the_way_of_a_sweep(config):
    config(text(norm="rms_norm"), "parent.yaml")
    child = config("extends: parent.yaml\nsweep: {norm: [layer_norm, identity]}\n")
    assert len(load_experiment(child).runs) == 2
    alone = config(text(norm="rms_norm"))
    assert len(load_experiment(alone, ("sweep.norm=[layer_norm, identity]",)).runs) == 2


@pytest.mark.parametrize("baseline", ["identity", "'identity, epochs=1'", "null"])
def test_a_baseline_is_an_arm_or_its_label_on_an_axis(config, baseline):
    sweep = "{norm: [batch_norm, identity], epochs: [1]}"
    experiment = load_experiment(config(text(sweep=sweep, baseline=baseline)))
    assert experiment.baseline == (None if baseline == "null" else baseline.strip("'"))


def test_a_baseline_that_is_no_arm_is_told_with_the_nearest(config):
    sweep = "{norm: [batch_norm, identity], seed: 0..1}"
    assert problems_of(config(text(sweep=sweep, baseline="none"))) == (
        "{file}:7:11: 'baseline' must be the name of an arm: none is 'none'; "
        "did you mean 'identity'?"
    )
    with pytest.raises(UserError, match="none is 'batchnorm'; did you mean 'batch_norm'"):
        load_experiment(config(text(sweep=sweep)), ("baseline=batchnorm",))
    alone = load_experiment(config(text(sweep=sweep, baseline="identity")), ("norm=batch_norm",))
    assert [run.arm for run in alone.runs] == ["batch_norm"] * 2
