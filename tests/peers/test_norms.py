"""The same numbers as other libraries: live where they are installed, by golden files elsewhere."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab import norms
from tests.norms.conftest import sample, with_values

from . import goldens
from .libraries import SHAPE, C
from .norms import CASES, IMAGE, our_record, parameters

CLOSE = {"rtol": 1e-4, "atol": 5e-5}
MODULE = {"dm-haiku": "haiku"}


@cache
def ours(name):
    return our_record(CASES[name])


def assert_same(name, theirs):
    assert theirs, "nothing to compare with"
    mine = ours(name)
    missing = set(mine) - set(theirs)
    assert not missing or name == "frozen batch, torchvision"  # whose parameters are buffers
    for key, value in theirs.items():
        np.testing.assert_allclose(mine[key], value, **CLOSE, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", CASES)
def test_the_installed_library_gives_the_same_steps_gradients_and_evaluation(name):
    pytest.importorskip(MODULE.get(CASES[name].library, CASES[name].library))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = CASES[name].theirs(parameters(CASES[name]))
    assert_same(name, theirs)


@pytest.mark.parametrize("name", CASES)
def test_what_the_library_gave_when_the_golden_file_was_made_is_the_same(name):
    of_case = {k.split("/")[1]: v for k, v in golden().items() if k.split("/")[0] == name}
    assert_same(name, of_case)


@cache
def golden():
    return goldens.load("norms")


def test_the_golden_file_holds_the_table_and_names_its_libraries():
    assert {key.split("/")[0] for key in golden()} == set(CASES)
    assert set(goldens.versions("norms")) == {case.library for case in CASES.values()}


def test_torch_and_we_refuse_the_same_batch_of_one_value():
    torch = pytest.importorskip("torch")
    batch = CASES["batch, torch"].ours
    with pytest.raises(ValueError, match="more than 1 value"):
        torch.nn.BatchNorm1d(C)(torch.zeros(1, C))
    with pytest.raises(ValueError, match="one value"):
        batch.apply(*batch.init(C), jnp.zeros((1, C)), train=True)


LAYERS = {
    "batch": (norms.BatchNorm(), nn.BatchNorm(use_running_average=False)),
    "layer": (norms.LayerNorm(), nn.LayerNorm(epsilon=1e-5)),
    "layer, image": (norms.LayerNormImage(), nn.LayerNorm(epsilon=1e-5, **IMAGE)),
    "group": (norms.GroupNorm(groups=4), nn.GroupNorm(num_groups=4, epsilon=1e-5)),
    "instance": (norms.InstanceNorm(), nn.InstanceNorm(epsilon=1e-5)),
    "rms": (norms.RMSNorm(), nn.RMSNorm(epsilon=1e-5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_flax_has_the_same_masked_output(name):
    ours, theirs = LAYERS[name]
    x = jnp.asarray(sample(SHAPE, mean=2))
    mask = jnp.asarray(np.random.default_rng(3).random((*SHAPE[:3], 1)) < 0.7)
    params, state = ours.init(C)
    params = with_values(params)
    y, _ = ours.apply(params, state, x, train=True, mask=mask)
    stats = {"mean": jnp.zeros(C), "var": jnp.ones(C)}
    wide = jnp.broadcast_to(mask, SHAPE)  # as flax's GroupNorm wants it
    other, _ = theirs.apply(
        {"params": params, "batch_stats": stats}, x, mask=wide, mutable=["batch_stats"]
    )
    # flax leaves a value where the mask is False; here it is zero.
    np.testing.assert_allclose(y, jnp.where(mask, other, 0), rtol=1e-4, atol=5e-5)
