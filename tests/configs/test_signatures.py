"""The words for names, for arguments of optax, for entries outside normlab, for sections at odds."""

# ruff: noqa: E501 (a golden text is easier to read whole)

import pytest

from normlab.catalogue import AUGMENTATIONS

from .mistakes import assert_told, problems_of, text

FOLDER = "'name' names a folder: at most 100 letters, digits, spaces and any of _.=+-, beginning with a letter or digit, found the text "

MISTAKES = {
    # The experiment's name becomes a folder, which must not lie elsewhere.
    "an empty name": (text(name="''"), "{file}:6:7: " + FOLDER + "''"),
    "a name above": (text(name=".."), "{file}:6:7: " + FOLDER + "'..'"),
    "a name elsewhere": (text(name="/tmp/mine"), "{file}:6:7: " + FOLDER + "'/tmp/mine'"),
    "a name that is a number": (text(name="3"), "{file}:6:7: 'name' must be text, found 3"),
    # Named calls.
    "no name": (text(norm="null"), "{file}:3:7: 'norm' must be a name or a mapping with a name, found null"),
    "a number for a name": (text(model="{name: 3}"), "{file}:2:15: 'model' needs a name: one of convnet, fixup, mlp, ngpt, normaliser_free, resnet, resnet_v2, skipinit, speednet, vit, found 3"),
    "unknown dataset": (text(data="{name: cifar11}"), "{file}:1:14: no dataset is called 'cifar11'; did you mean 'cifar10'?"),
    "unknown model": (text(model="resne"), "{file}:2:8: no model is called 'resne'; did you mean 'resnet'?"),
    "a key where there are none": (text(norm="{name: identity, eps: 3}"), "{file}:3:24: norm identity has no key 'eps'; it has none"),
    "an augmentation's key": (text(data="{name: shapes, augment: [{name: crop, pad: 2}]}"), "{file}:1:45: augmentation crop has no key 'pad'; did you mean 'padding'?"),
    "an augmentation's value": (text(data="{name: shapes, augment: [{name: crop, padding: -2}]}"), "{file}:1:54: augmentation crop: padding must be at least 1, got -2"),
    "an augmentation without a name": (text(data="{name: shapes, augment: [{padding: 1}]}"), f"{{file}}:1:32: 'augmentation' needs a name: one of {', '.join(AUGMENTATIONS.entries())}"),
    "a number for an augmentation": (text(data="{name: shapes, augment: [3]}"), "{file}:1:32: an augmentation is a name or a mapping with a name, found 3"),
    "a role that is none": (text(decay="{roles: [weight, biass]}"), "{file}:6:25: decay: 'roles' must be a list of values, each one of weight, bias, norm, found the text 'biass'"),
    "a rate below zero": (text(decay="{rate: -1}"), "{file}:6:15: decay: rate must be at least 0, got -1.0"),
    "a target in per cent": (text(target="{test_accuracy: 60}"), "{file}:6:25: target: test_accuracy must be above 0 and at most 1, got 60.0"),
    "a target without a key": (text(target="0.6"), "{file}:6:9: 'target' must be a mapping, found 0.6"),
    "null in a list": (text(model="{name: mlp, widths: [8, null]}"), "{file}:2:32: model mlp: 'widths' must be a list of whole numbers, found null"),
    "truth in a list": (text(model="{name: mlp, widths: [true]}"), "{file}:2:29: model mlp: 'widths' must be a list of whole numbers, found true"),
    "a mapping for a list": (text(model="{name: mlp, widths: {a: 1}}"), "{file}:2:28: model mlp: 'widths' must be a list of whole numbers, found the mapping {'a': 1}"),
    "a precision that is none": (text(model="{name: mlp, dtype: float64}"), "{file}:2:27: model mlp: 'dtype' must be one of float32, bfloat16, float16, found the text 'float64'"),
    # Optax.
    "text for a momentum that may be null": (text(optimizer="{name: sgd, learning_rate: 1, momentum: high}"), "{file}:4:52: optimizer sgd: 'momentum' must be a number or null, found the text 'high'"),
    "an accumulator of no dtype": (text(optimizer="{name: sgd, learning_rate: 1, accumulator_dtype: half}"), "{file}:4:61: optimizer sgd: 'accumulator_dtype' must be one of float32, bfloat16, float16 or null, found the text 'half'"),
    "steps below zero": (text(optimizer="sgd", schedule="{name: cosine_decay_schedule, init_value: 1, decay_steps: -5}"), "{file}:6:11: schedule: optax cannot use it: ValueError: The cosine_decay_schedule requires positive decay_steps, got decay_steps=-5."),
    "a warmup beyond the end": (text(optimizer="sgd", schedule="{name: warmup_cosine_decay_schedule, init_value: 0, peak_value: 1, warmup_steps: 9}"), "{file}:6:11: schedule: optax cannot use it: ValueError: The cosine_decay_schedule requires positive decay_steps, got decay_steps=-4."),
    "boundaries that are a number": (text(optimizer="sgd", schedule="{name: piecewise_constant_schedule, init_value: 1, boundaries_and_scales: 3}"), "{file}:6:11: schedule: optax cannot use it: AttributeError: 'int' object has no attribute 'values'"),
    "an optimizer that a plain step cannot drive": (text(optimizer="lbfgs"), "{file}:4:12: optimizer lbfgs cannot be used here: its update evaluates the loss again"),
    # Sections at odds.
    "instance normalisation of vectors": (text(norm="instance_norm"), "{file}:3:7: norm: an input of shape (1, 8) leaves one value to take a mean and variance of ..."),
    "a batch of one": (text(train="{batch_size: 1}"), "{file}:3:7: norm: an input of shape (1, 8) leaves one value to take a mean and variance of ..."),
    "microbatches that do not divide": (text(train="{batch_size: 20, accumulate: 3}"), "{file}:5:37: train: accumulate must be a divisor of batch_size=20, got 3"),
    "ghosts larger than a microbatch": (text(norm="{name: batch_norm, norm_batch: 20}", train="{batch_size: 20, accumulate: 4}"), "{file}:3:7: norm: norm_batch=20 does not divide the 5 examples of this call; choose a divisor, or drop the incomplete last batch"),
    "a network deeper than its images": (text(model="{name: convnet, widths: [4, 4, 4, 4, 4]}"), "{file}:2:32: model: widths must be at most 4 for so small an image, which is halved between them, got (4, 4, 4, 4, 4)"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_in_these_words(config, mistake):
    content, expected = MISTAKES[mistake]
    assert_told(config(content), expected)


def test_mistakes_of_sections_that_meet_come_at_once(config):
    content = text(
        norm="{name: group_norm, groups: 3}",
        schedule="{name: constant_schedule, value: 1}",
        train="{batch_size: 200}",
    )
    places = [line.split(": ")[0] for line in problems_of(config(content)).splitlines()]
    assert places == ["{file}:3:34", "{file}:4:39", "{file}:5:21"]


def test_one_mistake_of_many_seeds_is_told_once(config):
    content = text(norm="{name: group_norm, groups: 3}", sweep="{seed: 0..9}")
    assert len(problems_of(config(content)).splitlines()) == 1


OUTSIDE = """
from dataclasses import dataclass
from normlab.core import normaliser

class Undecorated:
    pass

@normaliser(paper="none")
@dataclass(frozen=True)
class RaisesWhenApplied:
    def init(self, features): return {}, {}
    def apply(self, params, state, x, *, train, mask=None):
        raise RuntimeError("not like this")

@normaliser(paper="none")
@dataclass(frozen=True)
class HasNoInit:
    pass

@normaliser(paper="none")
@dataclass(frozen=True)
class RefusesItsField:
    power: float = 1.0
    def __post_init__(self):
        raise ValueError("power is wrong")
"""

OUTSIDE_MISTAKES = {
    "no_such_module:X": "'no_such_module:X' cannot be imported: No module named 'no_such_module'",
    "outside:Missing": "'outside:Missing' cannot be imported: module 'outside' has no attribute",
    "outside:Undecorated": "outside:Undecorated is not a normaliser: put @normaliser above the class",
    "outside:RaisesWhenApplied": "outside:RaisesWhenApplied fails: RuntimeError: not like this (outside.py:13)",
    "outside:HasNoInit": "outside:HasNoInit fails: AttributeError: 'HasNoInit' object has no attribute 'init'",
    "outside:RefusesItsField": "outside:RefusesItsField fails: ValueError: power is wrong (outside.py:25)",
    "raising:X": "'raising:X' cannot be imported: division by zero",
    "broken:X": "'broken:X' cannot be imported: invalid syntax (broken.py, line 1)",
    "leaving:X": "leaving:X fails: SystemExit: 3",
    "normlab.models.plain:MLP": "normlab.models.plain:MLP is not a normaliser",
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE_MISTAKES)
def test_an_entry_outside_normlab_that_fails_says_why_and_where(
    config, tmp_path, monkeypatch, name
):
    (tmp_path / "outside.py").write_text(OUTSIDE)
    (tmp_path / "raising.py").write_text("1 / 0\n")
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = problems_of(config(text(norm=f"'{name}'"))).splitlines()
    assert line.startswith("{file}:3:7: ") and OUTSIDE_MISTAKES[name] in line
