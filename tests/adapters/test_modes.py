"""Training and evaluation are told apart however a model is told them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.adapters import fold, linen, recalibrate
from normlab.adapters.classifier import Classifier
from normlab.norms import BatchNorm
from normlab.probes import Gradients, look


def body(x, stands, deterministic):
    x = nn.BatchNorm(use_running_average=stands, momentum=0.5)(nn.Dense(4)(x))
    return nn.Dense(2)(nn.Dropout(0.5, deterministic=deterministic)(x))


class CallTrains(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return body(x, not train, not train)


class CallSaysTraining(nn.Module):
    @nn.compact
    def __call__(self, x, *, training):
        return body(x, not training, not training)


class CallSaysTwo(nn.Module):
    @nn.compact
    def __call__(self, x, is_training: bool = True, deterministic: bool = False):
        return body(x, not is_training, deterministic)


class FieldTrains(nn.Module):
    train: bool = True

    @nn.compact
    def __call__(self, x):
        return body(x, not self.train, not self.train)


class FieldIsOpen(nn.Module):
    use_running_average: bool | None = None

    @nn.compact
    def __call__(self, x):
        return body(x, self.use_running_average, self.use_running_average)


class Both(nn.Module):
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x, deterministic: bool | None = None):
        stands = nn.merge_param("deterministic", self.deterministic, deterministic)
        return body(x, stands, stands)


class Never(nn.Module):
    """The layers are not told by the model."""

    stands: bool | None = None

    @nn.compact
    def __call__(self, x):
        return body(x, self.stands, self.stands)


class Positional(nn.Module):
    """A layer's flag is given by position."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(momentum=0.5)(nn.Dense(4)(x), False)
        return nn.Dense(2)(x)


MODELS = [
    CallTrains(),
    CallSaysTraining(),
    CallSaysTwo(),
    FieldTrains(),
    FieldTrains(False),
    FieldIsOpen(),
    FieldIsOpen(True),
    Both(),
    Both(True),
    Both(False),
    Never(),
    Never(False),
    Positional(),
    linen.swap(Never(), nn.BatchNorm, BatchNorm(momentum=0.5)),
    linen.swap(CallTrains(), nn.BatchNorm, BatchNorm(momentum=0.5)),
]
IMAGES = jax.random.normal(jax.random.key(0), (64, 3)) + 2


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_training_moves_the_statistics_and_drops_and_evaluation_does_neither(model):
    network = Classifier(model)
    params, state = network.init(jax.random.key(0), IMAGES)
    norm = {"mean": jnp.zeros(4), "var": jnp.ones(4)}
    np.testing.assert_array_equal(state["batch_stats"]["BatchNorm_0"]["mean"], norm["mean"])
    outputs = [
        network.apply(params, state, IMAGES, train=True, key=jax.random.key(seed))
        for seed in (1, 2)
    ]
    hidden = IMAGES @ params["Dense_0"]["kernel"]
    for _, moved in outputs:
        found = moved["batch_stats"]["BatchNorm_0"]["mean"]
        np.testing.assert_allclose(found, hidden.mean(0) / 2, rtol=1e-4)
    drops = not isinstance(model, Positional)
    assert drops == bool((outputs[0][0] != outputs[1][0]).any())
    logits, still = network.apply(params, state, IMAGES, train=False)
    assert still is state or jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), still, state))
    expected = hidden / np.sqrt(1 + 1e-5) @ params["Dense_1"]["kernel"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_model_is_folded_and_recalibrated_whatever_its_default_is(model):
    network = Classifier(model)
    params, state = network.init(jax.random.key(0), IMAGES)
    variables = recalibrate(model, {"params": params, **state}, [IMAGES])
    hidden = np.asarray(IMAGES @ params["Dense_0"]["kernel"], np.float64)
    new = variables["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(new["mean"], hidden.mean(0), rtol=1e-4)
    np.testing.assert_allclose(new["var"], hidden.var(0), rtol=1e-4)
    folded = fold(model, variables, IMAGES)
    assert folded.folded == {"BatchNorm_0": "Dense_0"}
    expected, _ = network.apply(
        params, {"batch_stats": variables["batch_stats"]}, IMAGES, train=False
    )
    found = folded.model.apply(folded.variables, IMAGES)  # it evaluates without being told
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_frozen_by_the_model_stays_so_in_training():
    network = Classifier(Never(True))
    params, state = network.init(jax.random.key(0), IMAGES)
    _, moved = network.apply(params, state, IMAGES, train=True, key=jax.random.key(1))
    assert (moved["batch_stats"]["BatchNorm_0"]["mean"] == 0).all()


def test_a_layer_norm_gives_way_to_batch_norm_which_is_told_when_it_trains():
    model = linen.swap(nn.Sequential([nn.Dense(4), nn.LayerNorm()]), nn.LayerNorm, BatchNorm())
    network = Classifier(model)
    params, state = network.init(jax.random.key(0), IMAGES)
    trained, moved = network.apply(params, state, IMAGES, train=True)
    np.testing.assert_allclose(trained.mean(0), 0, atol=1e-5)
    assert (moved["batch_stats"]["layers_1"]["mean"] != 0).all()
    assert (network.apply(params, state, IMAGES, train=False)[0].mean(0) != 0).all()


def test_a_layer_of_the_model_may_be_called_as_the_wrapper_calls_the_model():
    class Net(nn.Module):
        def setup(self):
            self.model = nn.Dense(4)
            self.norm = nn.BatchNorm(use_running_average=True)

        def __call__(self, x):
            return self.norm(self.model(x))

    variables = Net().init(jax.random.key(0), IMAGES)
    for model in (Net(), linen.swap(Net(), nn.BatchNorm, BatchNorm())):
        assert fold(model, variables, IMAGES).folded == {"norm": "model"}


def test_layers_in_a_list_have_the_same_paths_and_keys_when_they_are_swapped():
    model = nn.Sequential([nn.Dense(4), nn.Sequential([nn.BatchNorm(True), nn.relu]), nn.Dense(2)])
    swapped = linen.swap(model, nn.BatchNorm, BatchNorm())
    key = jax.random.key(0)
    one, other = model.init(key, IMAGES), swapped.init(key, IMAGES)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert fold(swapped, other, IMAGES).folded == {"layers_1/layers_0": "layers_0"}
    twice = linen.swap(swapped, nn.Dropout, BatchNorm())
    jax.tree.map(np.testing.assert_array_equal, one, twice.init(key, IMAGES))


def test_a_look_takes_a_model_whose_call_trains_by_default():
    variables = CallTrains().init(jax.random.key(0), IMAGES, train=False)
    labels = jnp.arange(len(IMAGES)) % 2
    found = look(CallTrains(), variables, IMAGES, labels, [Gradients()])
    assert found["gradients"]["norm"].layers == ("Dense_0", "Dense_1")
