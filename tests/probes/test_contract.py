"""Every probe of the catalogue keeps the contract; a new file is tested automatically."""

import dataclasses
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import PROBES
from normlab.norms import BatchNorm
from normlab.probes.contract import PerLayer, ProbeFacts
from normlab.probes.layers import shapes_alone

from .conftest import MODELS, NORMS, moment, subject

NAMES = list(PROBES.entries())
LAYERS = {
    "mlp": ["Dense_0", "Dense_1", "Dense_2"],
    "convnet": ["Conv_0", "Conv_1", "Dense_0"],
    "resnet": [*(f"Conv_{i}" for i in range(7)), "Dense_0"],
    "resnet_v2": [*(f"Conv_{i}" for i in range(9)), "Dense_0"],
}


def make(name):
    return PROBES.load(name)()


@cache
def network(model, norm):
    """Make a network for all probes, which do not change it."""
    who = subject(MODELS[model](NORMS[norm]))
    return who, moment(who)


def measured(probe, who, when):
    return probe.measure(who, when)


def numbers(found):
    return {key: getattr(value, "values", value) for key, value in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_probe_is_a_value_with_facts(name):
    probe = make(name)
    assert dataclasses.replace(probe) == probe and hash(probe) == hash(dataclasses.replace(probe))
    assert isinstance(probe.facts, ProbeFacts) and probe.facts.paper
    for field in dataclasses.fields(probe):
        assert f"{field.name}:" in type(probe).__doc__
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(probe, field.name, None)


@pytest.mark.parametrize(
    ("model", "norm"),
    [
        ("mlp", "identity"),
        ("convnet", "batch_norm"),
        pytest.param("resnet_v2", "group_norm", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_it_finds_finite_numbers_for_layers_in_the_order_of_the_calls(name, norm, model):
    found = measured(make(name), *network(model, norm))
    assert found
    for key, value in found.items():
        if isinstance(value, PerLayer):
            assert isinstance(value.layers, tuple) and len(value.layers) == len(value.values)
            assert list(value.layers) in (LAYERS[model], LAYERS[model][1:]), key
            value = value.values
        assert isinstance(value, jax.Array) and value.dtype == jnp.float32, key
        assert bool(jnp.isfinite(value).all()), (key, value)
        described = re.sub(r"_\d+$", "_N", key)  # as adapted_8
        assert described in type(make(name)).__doc__, "each quantity is described"


@pytest.mark.parametrize("name", NAMES)
def test_jitted_and_not_and_again_it_is_the_same(name):
    who = subject(MODELS["mlp"](BatchNorm()))
    when = moment(who)
    before = jax.tree.map(np.array, when)
    eager, jitted = (numbers(f(make(name), who, when)) for f in (measured, jitted_whole))
    again = numbers(measured(make(name), who, when))
    for key, value in eager.items():
        np.testing.assert_allclose(jitted[key], value, rtol=2e-3, atol=1e-6, err_msg=key)
        np.testing.assert_array_equal(eager[key], again[key])
    jax.tree.map(np.testing.assert_array_equal, when, before)


def jitted_whole(probe, who, when):
    return jax.jit(partial(probe.measure, who))(when)


@pytest.mark.parametrize("name", NAMES)
def test_it_works_in_bfloat16(name):
    who = subject(MODELS["mlp"](BatchNorm(), dtype="bfloat16"))
    for key, value in numbers(measured(make(name), who, moment(who))).items():
        assert value.dtype == jnp.float32 and bool(jnp.isfinite(value).all()), key


@pytest.mark.parametrize("name", NAMES)
def test_what_a_report_shows_first_is_measured_and_is_read_without_importing_the_probe(name):
    probe = make(name)
    assert PROBES.entries()[name].told.get("leading", ()) == probe.facts.leading
    found = jax.eval_shape(partial(probe.measure, *network("mlp", "identity")[:1]),
                           network("mlp", "identity")[1])  # fmt: skip
    assert set(probe.facts.leading) <= found.keys()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_traced_without_gradients_has_the_shapes_that_a_look_has(name):
    found = numbers(measured(make(name), *network("convnet", "batch_norm")))
    model = MODELS["convnet"](NORMS["batch_norm"])
    with shapes_alone():
        who = subject(model)  # another one, because traces are kept by subject
        traced = jax.eval_shape(partial(make(name).measure, who), moment(who))
    assert {k: v.shape for k, v in numbers(traced).items()} == {
        k: v.shape for k, v in found.items()
    }
