"""The section `kernel`: optional, swept over, checked; and where it is absent nothing changes."""

# ruff: noqa: E501 (a golden text is easier to read whole)

from pathlib import Path

import jsonschema
import pytest

from normlab.catalogue import KERNELS
from normlab.configs import build
from normlab.configs.document import parse
from normlab.configs.experiment import load_experiment
from normlab.configs.json_schema import json_schema
from normlab.errors import UserError
from normlab.interface.describe import describe_entry
from normlab.weights import SpectralNorm, WeightNorm

from .mistakes import assert_told, problems_of, text

EVERY = ", ".join(KERNELS.entries())
CONFIGS = Path(__file__).parents[2] / "configs"


def runs_of(file, *overrides):
    return load_experiment(file, overrides).runs


@pytest.mark.parametrize("null", [False, True])
def test_a_config_without_a_transform_has_the_hash_that_it_had_before_there_were_any(
    config, tmp_path, null
):
    """Noted of version 0.1 as it was just before this section came."""
    given = {"kernel": "null"} if null else {}
    (run,) = runs_of(config(text(**given)))
    assert run.hash == "f8b6261ecc"
    assert "kernel" not in run.sections
    quickstart = CONFIGS / "quickstart.yaml"
    assert runs_of(quickstart, *(["kernel=null"] if null else []))[0].hash == "141a93931d"


def test_a_transform_makes_another_run_and_so_do_its_fields(config):
    values = ["null", "weight_norm", "spectral_norm", "{name: spectral_norm, iterations: 2}"]
    hashes = [runs_of(config(text(kernel=value)))[0].hash for value in values]
    assert len(set(hashes)) == 4
    spelt_out = config(text(kernel="{name: spectral_norm, iterations: 1}"))
    assert runs_of(spelt_out)[0].hash == hashes[2]


@pytest.mark.parametrize("name", KERNELS.entries())
def test_every_transform_of_the_catalogue_can_be_named(config, name):
    (run,) = runs_of(config(text(kernel=name)))
    assert run.sections["kernel"]["name"] == name
    assert list(run.sections).index("kernel") == 3  # beside the normaliser
    assert build.model(run.sections).kernel == KERNELS.load(name)()
    assert build.program(run.sections).model.kernel == KERNELS.load(name)()


def test_fields_come_from_the_config_and_the_command_line(config):
    file = config(text(kernel="{name: spectral_norm, iterations: 3}"))
    assert build.kernel_transform(runs_of(file)[0].sections) == SpectralNorm(iterations=3)
    (run,) = runs_of(file, "kernel.iterations=5")
    assert build.kernel_transform(run.sections) == SpectralNorm(iterations=5)
    assert str(run.origins["kernel", "iterations"]) == "command line 'kernel.iterations=5'"
    (run,) = runs_of(file, "kernel=weight_norm")
    assert build.kernel_transform(run.sections) == WeightNorm()
    assert runs_of(file, "kernel=null")[0].hash == runs_of(config(text(), "plain.yaml"))[0].hash


@pytest.mark.parametrize(
    ("sweep", "arms"),
    [
        ("{kernel: [null, weight_norm]}", ["kernel=null", "weight_norm"]),
        ("{kernel: {none: null, WS: weight_standardisation}}", ["none", "WS"]),
        (
            "{kernel: [spectral_norm, {name: spectral_norm, iterations: 5}]}",
            ["spectral_norm", "spectral_norm(iterations=5)"],
        ),
        (
            "{norm: [identity, layer_norm], kernel: [null, weight_norm], exclude: [{norm: identity, kernel: null}]}",
            ["identity, weight_norm", "layer_norm, kernel=null", "layer_norm, weight_norm"],
        ),
        ("{zip: {norm: [identity, layer_norm], kernel: [weight_norm, null]}}", ["identity, weight_norm", "layer_norm, kernel=null"]),
        ("{kernel.iterations: [1, 2]}", ["kernel.iterations=1", "kernel.iterations=2"]),
    ],
)  # fmt: skip
def test_a_sweep_over_transforms(config, sweep, arms):
    kernel = {"kernel": "spectral_norm"} if "kernel.iterations" in sweep else {}
    assert [run.arm for run in runs_of(config(text(sweep=sweep, **kernel)))] == arms


MISTAKES = {
    "an unknown transform": (text(kernel="wieght_norm"), "{file}:6:9: no kernel transform is called 'wieght_norm'; did you mean 'weight_norm'?"),
    "an unknown key": (text(kernel="{name: spectral_norm, iteration: 2}"), "{file}:6:31: kernel spectral_norm has no key 'iteration'; did you mean 'iterations'?"),
    "a value of another type": (text(kernel="{name: spectral_norm, iterations: two}"), "{file}:6:43: kernel spectral_norm: 'iterations' must be a whole number, found the text 'two'"),
    "a value out of range": (text(kernel="{name: spectral_norm, iterations: 0}"), "{file}:6:43: kernel spectral_norm: iterations must be between 1 and 100, got 0"),
    "fields at odds": (text(kernel="{name: weight_norm, use_gain: false}"), "{file}:6:9: kernel weight_norm: start must be a number where use_gain is false, got None"),
    "a number": (text(kernel="3"), "{file}:6:9: 'kernel' must be a name or a mapping with a name, found 3"),
    "no name": (text(kernel="{iterations: 3}"), f"{{file}}:6:9: 'kernel' needs a name: one of {EVERY}"),
    "a normaliser": (text(kernel="batch_norm"), f"{{file}}:6:9: no kernel transform is called 'batch_norm', which is a normaliser; allowed: {', '.join(sorted(KERNELS.entries()))}"),
    "in the sweep": (text(sweep="{kernel: [null, weight_nrom]}"), "{file}:6:24: no kernel transform is called 'weight_nrom'; did you mean 'weight_norm'?"),
    "a misspelt section": (text(kernal="weight_norm"), "{file}:6:1: an experiment has no key 'kernal'; did you mean 'kernel'?"),
    "a slot of the model": (text(model="{name: mlp, kernel: weight_norm}"), "{file}:2:20: model mlp has no key 'kernel'; ..."),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_at_its_place(config, mistake):
    content, expected = MISTAKES[mistake]
    assert_told(config(content), expected)


OUTSIDE = """
from dataclasses import dataclass
import flax.linen as nn
import jax.numpy as jnp
from normlab.core import kernel_transform
from normlab.errors import KernelError
from normlab.models.slots import model

@kernel_transform(paper="none: made here")
@dataclass(frozen=True)
class Halved:
    '''Half of a kernel.'''
    by: float = 2.0
    def init(self, key, kernel): return {}, {}
    def apply(self, params, state, kernel, *, train): return kernel / self.by, state

@kernel_transform(paper="none: made here")
@dataclass(frozen=True)
class Raises(Halved):
    def apply(self, params, state, kernel, *, train):
        raise RuntimeError("not like this")

@kernel_transform(paper="none: made here")
@dataclass(frozen=True)
class Refuses(Halved):
    def init(self, key, kernel):
        raise KernelError(f"a kernel of shape {kernel.shape} is not for me")

@model(paper="none: made here")
class NoSlot(nn.Module):
    norm: object
    classes: int
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1)).astype(jnp.float32)
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "outside_kernels.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("outside")
def test_a_transform_of_ones_own_is_named_by_its_module(config):
    file = config(text(kernel="{name: 'outside_kernels:Halved', by: 4.0}"))
    (run,) = runs_of(file)
    assert build.model(run.sections).kernel.by == 4.0
    assert "outside_kernels:Halved (kernel transform)" in describe_entry("outside_kernels:Halved")


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"kernel": "'outside_kernels:Raises'"}, "{file}:6:9: kernel: outside_kernels:Raises fails: RuntimeError: not like this (outside_kernels.py:21)"),
        ({"kernel": "'outside_kernels:Refuses'"}, "{file}:6:9: kernel: a kernel of shape (192, 8) is not for me"),
        ({"kernel": "'normlab.norms:BatchNorm'"}, "{file}:6:9: normlab.norms:BatchNorm is not a kernel transform: put @kernel_transform above the class"),
        ({"kernel": "'outside_kernels:Nothing'"}, "{file}:6:9: outside_kernels:Nothing: outside_kernels: 'outside_kernels:Nothing' cannot be imported: ..."),
        ({"kernel": "weight_norm", "model": "'outside_kernels:NoSlot'"}, "{file}:6:9: kernel: model outside_kernels:NoSlot has no slot for a kernel transform; use null"),
    ],
)  # fmt: skip
def test_what_fails_outside_is_told_at_its_place(config, given, wanted):
    (line,) = problems_of(config(text(**given))).splitlines()
    assert line.startswith(wanted.removesuffix("..."))


@pytest.mark.usefixtures("outside")
def test_a_model_without_the_slot_does_without_it(config):
    (run,) = runs_of(config(text(model="'outside_kernels:NoSlot'")))
    assert build.model(run.sections).classes == 10


def test_the_json_schema_knows_the_section():
    validator = jsonschema.Draft202012Validator(json_schema())
    for good in ("null", "weight_norm", "{name: spectral_norm, iterations: 2}", "'mine:Own'"):
        validator.validate(parse(text(kernel=good), "text").value)
    for bad in ("weight_nrom", "{name: spectral_norm, iteration: 2}", "3"):
        assert not validator.is_valid(parse(text(kernel=bad), "text").value)


@pytest.mark.parametrize("name", KERNELS.entries())
def test_describe_says_how_to_write_it(name):
    words = describe_entry(name)
    assert f"kernel:\n    name: {name}" in words and f"{name} (kernel transform)" in words
    assert "invariant to: " in words and f"{name}(" in words
    with pytest.raises(UserError, match="did you mean"):
        describe_entry(name + "m")
