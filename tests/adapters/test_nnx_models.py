"""What evaluates a trained model otherwise takes an NNX model, and gives one back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import adapt, fold, freeze, recalibrate
from normlab.adapters.nnx import Norm, swap
from normlab.adapters.nnx_linen import variables_of
from normlab.errors import UserError
from normlab.norms import BatchNorm, GroupNorm
from normlab.probes import Gradients, look
from tests.shared.own_nets import NnxResNet

IMAGES = jax.random.normal(jax.random.key(0), (8, 6, 6, 3)) * 2 + 1


@pytest.fixture(params=["flax", "normlab"])
def model(request):
    made = NnxResNet(3, num_classes=5, rngs=nnx.Rngs(0))
    if request.param == "normlab":
        swap(made, nnx.BatchNorm, BatchNorm())
    made.train()
    for key in range(3):
        made(IMAGES + key)  # statistics that are none of the initial ones
    return made


def test_recalibrated_statistics_are_those_of_the_data_and_the_model_stays(model):
    before = jax.tree.map(np.asarray, variables_of(model))
    new = recalibrate(model, [IMAGES[:3], IMAGES[3:]])
    first = np.asarray(model.stem.layers[0](IMAGES), np.float64)
    np.testing.assert_allclose(new.stem.layers[1].mean[...], first.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(new.stem.layers[1].var[...], first.var((0, 1, 2)), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, before, variables_of(model))


def test_adapted_statistics_lie_between(model):
    old, new = model.stem.layers[1], adapt(model, IMAGES, prior=8).stem.layers[1]
    batch = recalibrate(model, [IMAGES]).stem.layers[1]
    np.testing.assert_allclose(
        new.mean[...], (old.mean[...] + batch.mean[...]) / 2, rtol=1e-4, atol=1e-6
    )


def test_a_folded_model_has_the_outputs_without_the_layers(model):
    folded = fold(model, IMAGES)
    assert folded.folded == {
        "stem/layers/1": "stem/layers/0",
        "blocks/0/norm": "blocks/0/conv",
        "blocks/1/norm": "blocks/1/conv",
    }
    assert list(folded.left) == []
    kinds = {type(part).__name__ for _, part in nnx.iter_graph(folded.model)}
    assert not kinds & {"BatchNorm", "Norm"}
    found = folded.model(IMAGES)
    model.eval()
    np.testing.assert_allclose(found, model(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_frozen_model_trains_with_the_statistics_that_it_has(model):
    frozen = freeze(model)
    for block in (*frozen.blocks, *model.blocks):
        block.dropout.rate = 0.0
    frozen.train()
    found = frozen(IMAGES)
    assert isinstance(frozen.stem.layers[1], Norm)
    held = variables_of(frozen)["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, held, variables_of(model)["batch_stats"])
    model.eval()
    np.testing.assert_allclose(found, model(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_look_finds_the_layers_by_path(model):
    found = look(model, IMAGES, jnp.arange(8) % 5, [Gradients()])
    layers = ("stem/layers/0", "blocks/0/conv", "blocks/1/conv", "fc")
    assert found["gradients"]["norm"].layers == layers


def test_a_model_without_such_layers_is_refused_in_a_sentence(model):
    swap(model, (nnx.BatchNorm, Norm), GroupNorm(groups=2))
    with pytest.raises(UserError, match="keeps no statistics"):
        recalibrate(model, [IMAGES])
    with pytest.raises(UserError, match="no normaliser that can be folded"):
        fold(model, IMAGES)
