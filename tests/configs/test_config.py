"""The words of every kind of mistake. `{file}` stands for the path of the config."""

# ruff: noqa: E501 (a golden text is easier to read whole)

import pytest

from normlab.configs.experiment import load_experiment
from normlab.errors import UserError

from .mistakes import EVERY_NORMALISER, problems_of, text

MISTAKES = {
    # Not YAML, or not a config.
    "syntax": ("data: [1, 2\n", "{file}:2:1: this is not YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow sequence begun at 1:7)"),
    "tab": ("data:\n\tname: shapes\n", "{file}:2:1: this is not YAML: found character '\\t' that cannot start any token; indent with spaces, not tabs"),
    "empty": ("", "{file}: an experiment is a mapping with keys such as data, model, norm, optimizer, train"),
    "a list": ("- data\n", "{file}:1:1: an experiment is a mapping with keys such as data, model, norm, optimizer, train"),
    "two documents": (text() + "---\na: 1\n", "{file}:6:1: this is not YAML: but found another document (expected a single document in the stream begun at 1:1)"),
    "key twice": (text() + "norm: layer_norm\n", "{file}:6:1: 'norm' is given twice, first in line 3; keep one"),
    "tag": (text(train="!!python/object:os.system {epochs: 1, batch_size: !mine 20}"), "{file}:5:58: the tag !mine is not supported; write a plain value"),
    "alias of itself": (text(train="&a {epochs: *a}"), "{file}:5:8: this alias contains itself"),
    "key is a list": (text(train="{? [1] : 2}"), "{file}:5:11: a key must be a single word, not a list or mapping"),
    # Keys.
    "unknown section": (text(optimiser="sgd"), "{file}:6:1: an experiment has no key 'optimiser'; did you mean 'optimizer'?"),
    "missing section": (text(model=None), "{file}:1:1: an experiment needs the key 'model': one of convnet, fixup, mlp, ngpt, normaliser_free, resnet, resnet_v2, skipinit, speednet, vit"),
    "unknown key of norm": (text(norm="{name: group_norm, gruops: 4}"), "{file}:3:26: norm group_norm has no key 'gruops'; did you mean 'groups'?"),
    "unknown key of model": (text(model="{name: mlp, width: [8]}"), "{file}:2:20: model mlp has no key 'width'; did you mean 'widths'?"),
    "unknown key of data": (text(data="{name: shapes, siz: 8}"), "{file}:1:22: data shapes has no key 'siz'; did you mean 'size'?"),
    "unknown key of optimizer": (text(optimizer="{name: sgd, lr: 0.1, learning_rate: 1}"), "{file}:4:24: optimizer sgd has no key 'lr'; did you mean 'learning_rate'?"),
    "key of another section": (text(train="{lr: 0.1}"), "{file}:5:9: train has no key 'lr'; did you mean 'learning_rate' in 'optimizer'?"),
    "key of train elsewhere": (text(model="{name: mlp, batchsize: 8}"), "{file}:2:20: model mlp has no key 'batchsize'; did you mean 'batch_size' in 'train'?"),
    "unknown key of train": (text(train="{epoch: 1}"), "{file}:5:9: train has no key 'epoch'; did you mean 'epochs'?"),
    "unknown key of decay": (text(decay="{rates: 1e-4}"), "{file}:6:9: decay has no key 'rates'; did you mean 'rate'?"),
    "unknown key of target": (text(target="{accuracy: 0.5, test_accuracy: 0.5}"), "{file}:6:10: target has no key 'accuracy'; did you mean 'test_accuracy'?"),
    "a key that the loop fills in": (text(norm="{name: batch_norm, axis_name: x}"), "{file}:3:26: norm batch_norm has no key 'axis_name'; allowed: eps, momentum, norm_batch, unbiased_running_variance, use_bias, use_scale, zero_centred"),
    "missing name": (text(norm="{groups: 4}"), "{file}:3:7: 'norm' needs a name: one of " + EVERY_NORMALISER),
    "missing argument": (text(optimizer="sgd", schedule="{name: polynomial_schedule, init_value: 1, end_value: 0}"), "{file}:6:11: schedule polynomial_schedule needs the key 'power': a number"),
    "missing key of target": (text(target="{}"), "{file}:6:9: target needs the key 'test_accuracy': a number"),
    # Types.
    "text for a number": (text(train='{epochs: "3"}'), "{file}:5:17: train: 'epochs' must be a whole number, found the text '3'"),
    "fraction for a whole number": (text(train="{epochs: 1.5}"), "{file}:5:17: train: 'epochs' must be a whole number, found 1.5"),
    "truth for a number": (text(train="{epochs: true}"), "{file}:5:17: train: 'epochs' must be a whole number, found true"),
    "number for truth": (text(optimizer="{name: sgd, learning_rate: 0.1, nesterov: 1}"), "{file}:4:54: optimizer sgd: 'nesterov' must be true or false, found 1"),
    "a word that YAML 1.1 takes for truth": (text(optimizer="{name: sgd, learning_rate: 0.1, nesterov: yes}"), "{file}:4:54: optimizer sgd: 'nesterov' must be true or false, found the text 'yes'"),
    "list for a number": (text(train="{epochs: [1]}"), "{file}:5:17: train: 'epochs' must be a whole number, found the list [1]"),
    "null for a number": (text(train="{epochs: }"), "{file}:5:16: train: 'epochs' must be a whole number, found null"),
    "number for a list": (text(model="{name: mlp, widths: 8}"), "{file}:2:28: model mlp: 'widths' must be a list of whole numbers, found 8"),
    "wrong element": (text(model="{name: mlp, widths: [8, x]}"), "{file}:2:32: model mlp: 'widths' must be a list of whole numbers, found the text 'x'"),
    "not one of": (text(model="{name: mlp, activation: rleu}"), "{file}:2:32: model mlp: 'activation' must be one of relu, gelu, silu, tanh, sigmoid, identity, found the text 'rleu'"),
    "text for a section": (text(train="fast"), "{file}:5:8: 'train' must be a mapping, found the text 'fast'"),
    "number for a call": (text(norm="3"), "{file}:3:7: 'norm' must be a name or a mapping with a name, found 3"),
    "question is a list": (text(question="[why]"), "{file}:6:11: 'question' must be text, found the list ['why']"),
    # Values.
    "out of range": (text(norm="{name: batch_norm, momentum: 9}"), "{file}:3:36: norm batch_norm: momentum must be between 0 and 1, got 9.0"),
    "infinite": (text(train="{clip: -.inf}"), "{file}:5:15: train: 'clip' must be a finite number or null, found -inf"),
    "a model's own": (text(model="{name: resnet, depth: 9}"), "{file}:2:30: model resnet: depth must be 6n + 2, as in 8, 14, 20, 32, 44, 56, 110, got 9"),
    "unknown normaliser": (text(norm="bach_norm"), "{file}:3:7: no normaliser is called 'bach_norm'; did you mean 'batch_norm'?"),
    "unknown optimizer": (text(optimizer="{name: sdg}"), "{file}:4:19: optax has no optimizer 'sdg'; did you mean 'sgd'?"),
    "unknown schedule": (text(optimizer="sgd", schedule="{name: cosine_decay}"), "{file}:6:18: optax has no schedule 'cosine_decay'; did you mean 'cosine_decay_schedule'?"),
    "unknown augmentation": (text(data="{name: shapes, augment: [flop]}"), "{file}:1:32: no augmentation is called 'flop'; did you mean 'flip'?"),
    "augment is not a list": (text(data="{name: shapes, augment: flip}"), "{file}:1:31: 'augment' must be a list of augmentations, found the text 'flip'"),
    "a word for held-out examples": (text(data="{name: shapes, validation: some}"), "{file}:1:34: data: 'validation' must be a whole number, own or null, found the text 'some'"),
    "no validation split of its own": (text(data="{name: shapes, validation: own}"), "{file}:1:34: data: validation must be null or a number: this set has none of its own, got 'own'"),
    "more held out than there are": (text(data="{name: shapes, train_examples: 100, validation: 95}"), "{file}:1:55: data: validation must be null, or in 10..90: one of each class held out, one left, got 95"),
    # Sections that do not fit together.
    "rate twice": (text(schedule="{name: constant_schedule, value: 1}"), "{file}:4:39: the learning rate is given twice, here and by 'schedule'; keep one"),
    "no rate": (text(optimizer="sgd"), "{file}:4:12: optimizer sgd needs the key 'learning_rate': a number; or give a 'schedule'"),
    "groups that do not divide": (text(norm="{name: group_norm, groups: 3}"), "{file}:3:34: norm: groups=3 does not divide the 8 channels of this layer; 1, 2, 4, 8 would"),
    "more examples a batch than there are": (text(train="{batch_size: 101}"), "{file}:5:21: train: batch_size=101 is larger than the 100 training examples: lower it, or take more examples"),
    "ghosts that do not divide": (text(norm="{name: batch_norm, norm_batch: 6}"), "{file}:3:7: norm: norm_batch=6 does not divide the 20 examples of this call; choose a divisor, or drop the incomplete last batch"),
    "accumulation without a stated norm batch": (text(train="{batch_size: 20, accumulate: 4}"), "{file}:3:7: norm: with train.accumulate=4 each microbatch of 5 examples is normalised by itself; say so with norm_batch: 5 (or a divisor of it)"),
    # Sweeps.
    "unknown axis": (text(sweep="{norms: [batch_norm]}"), "{file}:6:9: nothing is called 'norms' that could be swept; did you mean 'norm'?"),
    "empty axis": (text(sweep="{seed: []}"), "{file}:6:15: the axis 'seed' must be a list of values, or a range such as 0..4, found the list []"),
    "backward range": (text(sweep="{seed: 4..0}"), "{file}:6:15: the axis 'seed' must be a list of values, or a range such as 0..4, found the text '4..0'"),
    "a wrong value in an axis": (text(sweep="{norm: [layer_norm, {name: group_norm, groups: x}]}"), "{file}:6:55: norm group_norm: 'groups' must be a whole number, found the text 'x'"),
    "a run twice": (text(sweep="{norm: [layer_norm, {name: layer_norm}]}"), "{file}:6:8: two runs of the sweep are the same: 'layer_norm' with seed 0"),
    "a sweep that is a list": (text(sweep="[norm]"), "{file}:6:8: 'sweep' must be a mapping of axes to lists of values, found the list ['norm']"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_in_these_words_and_at_this_place(config, mistake):
    content, expected = MISTAKES[mistake]
    lines = problems_of(config(content)).splitlines()
    assert expected in lines
    # There are two tags; and a key that cannot be read leaves its section without it.
    assert len(lines) == 1 or mistake in ("tag", "key is a list")


def test_all_mistakes_come_at_once_in_the_order_of_the_file(config):
    content = text(
        data="{name: shapes, siz: 8, train_examples: 3}",
        norm="{name: batch_norm, momentum: 2, eps: 0}",
        train="{epochs: 0, batch_size: x, label_smoothing: 1}",
        sweep="{nrm: [a]}",
    )
    lines = problems_of(config(content + "norm: x\n")).splitlines()
    places = [line.split(" ")[0].removeprefix("{file}:").rstrip(":") for line in lines]
    assert places == ["1:22", "1:46", "3:36", "3:44", "5:17", "5:32", "5:52", "6:9", "7:1"]


OVERRIDES = {
    "no equals sign": ("seed", "an override is key=value, as in train.epochs=5"),
    "unknown section": ("trian.epochs=3", "an experiment has no key 'trian'; did you mean 'train'?"),
    "unknown bare key": ("epoch=3", "an experiment has no key 'epoch'; did you mean 'model'?"),
    "unknown key": ("train.epoch=3", "train has no key 'epoch'; did you mean 'epochs'?"),
    "wrong type": ("epochs=x", "train: 'epochs' must be a whole number, found the text 'x'"),
    "not YAML": ("train.epochs=[1", "this is not YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow sequence begun at 1:1)"),
    "below a scalar": ("train.epochs.x=3", "'train.epochs' has no keys below it"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", OVERRIDES)
def test_an_override_is_checked_like_the_file(config, mistake):
    override, message = OVERRIDES[mistake]
    found = problems_of(config(text()), override)
    if mistake == "unknown bare key":
        message = message.partition(";")[0]
    assert found.startswith(f"command line '{override}': {message}")


def test_an_override_that_the_sweep_would_undo_is_refused(config):
    file = config(text(sweep="{norm: [layer_norm, group_norm]}"))
    assert "the sweep replaces all of 'norm', so this would be lost" in problems_of(
        file, "norm.groups=2"
    )


def test_a_parent_that_is_missing_or_a_descendant(config):
    child = config("extends: parent.yaml\n")
    assert "{file}:1:10: there is no file" in problems_of(child)
    config("extends: experiment.yaml\n", "parent.yaml")
    assert (
        "'extends' goes round in a circle: experiment.yaml -> parent.yaml -> experiment.yaml"
        in (problems_of(child))
    )
    assert "must be the name of one file" in problems_of(config("extends: [a, b]\n"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"data: \x00"])
def test_a_file_that_is_not_text_is_refused(tmp_path, content):
    file = tmp_path / "experiment.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"experiment\.yaml"):
        load_experiment(file)


def test_a_file_that_is_not_there_names_its_neighbours(config):
    config(text(), "quickstart.yaml")
    missing = config(text()).with_name("quikstart.yaml")
    with pytest.raises(UserError, match=r"no such file; .*quickstart\.yaml"):
        load_experiment(missing)


@pytest.mark.parametrize("name", ["no_such_module:Norm", "json:JSONDecoder", "json:Missing"])
def test_an_entry_outside_normlab_that_cannot_be_used_says_why(config, name):
    found = problems_of(config(text(norm=f'"{name}"')))
    assert found.startswith("{file}:3:7: ") and name in found
