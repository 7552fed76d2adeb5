"""A classifier is made of whatever names one, with the numbers that the data decide."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters.classifier import Classifier
from normlab.adapters.own_model import make_classifier, parameters_of, with_normaliser
from normlab.errors import FieldError, UserError
from normlab.norms import BatchNorm, GroupNorm, MovingAverageBatchNorm
from tests.shared.own_nets import Mlp, NnxResNet, ResNet, ResNetBlock, SmallResNet

SHAPE = (6, 6, 3)
IMAGES = jax.random.normal(jax.random.key(0), (4, *SHAPE))


class Wide(nn.Module):
    num_outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_outputs)(x.reshape(len(x), -1))


class Flat(nnx.Module):
    def __init__(self, din: int, dout: int, *, rngs: nnx.Rngs):
        self.layer = nnx.Linear(din, dout, rngs=rngs)

    def __call__(self, x):
        return self.layer(x.reshape(len(x), -1))


def a_function(num_classes, *, rngs):
    return Flat(6 * 6 * 3, num_classes, rngs=rngs)


def width(model):
    network = Classifier(model)
    params, state = network.init(jax.random.key(0), IMAGES)
    return network.apply(params, state, IMAGES, train=False)[0].shape[-1]


@pytest.mark.parametrize(
    "named",
    [
        SmallResNet,
        NnxResNet,
        Mlp,
        Wide,
        Flat,
        a_function,
        lambda: Mlp(out=7),
        Mlp(out=7),
        Flat(108, 7, rngs=nnx.Rngs(0)),
        partial(NnxResNet, width=2),
    ],
    ids=lambda named: getattr(named, "__name__", type(named).__name__),
)
def test_the_number_of_classes_is_found(named):
    assert width(make_classifier(named, {}, 7, SHAPE)) == 7


def test_a_width_that_is_not_the_output_s_stays():
    model = make_classifier(Mlp, {}, 7, SHAPE)
    assert (model.features, model.out) == (8, 7)
    assert make_classifier(Mlp, {"features": 5}, 7, SHAPE).features == 5


def test_values_that_are_given_hold():
    given = {"stage_sizes": (1,), "block_cls": ResNetBlock, "num_filters": 2}
    assert make_classifier(ResNet, given, 7, SHAPE).num_filters == 2


@pytest.mark.parametrize(
    ("named", "given", "field", "says"),
    [
        (Mlp, {"out": 5}, "out", "it returns 5 logits, and the data have 7 classes: leave out out"),
        (SmallResNet, {"num_classes": 9}, "num_classes", "it returns 9 logits"),
        (lambda: Mlp(out=4), {}, None, "returns 4 logits, .* an argument called num_classes"),
        (Mlp(out=4), {}, None, "returns 4 logits but the data have 7 classes"),
        (ResNet, {}, None, "ResNet needs block_cls, stage_sizes"),
        (Mlp(), {"out": 7}, None, "a Mlp that is made takes no out"),
        (lambda: 3, {}, None, "returns a int; a model is a linen or NNX module"),
        ([Mlp], {}, None, "or a function that returns one; found a list"),
        (nn.Conv(7, (3, 3)), {}, None, r"returns an array \(2, 6, 6, 7\) for images"),
    ],
)
def test_a_mistake_says_what_was_found_and_what_mends_it(named, given, field, says):
    with pytest.raises(UserError, match=says) as caught:
        make_classifier(named, given, 7, SHAPE)
    assert field is None or (isinstance(caught.value, FieldError) and caught.value.field == field)


def test_arguments_of_classes_functions_and_partial_ones_are_told():
    assert list(parameters_of(Flat)) == ["din", "dout", "rngs"]
    assert parameters_of(SmallResNet)["stage_sizes"].default == (1, 1)
    assert list(parameters_of(partial(a_function, 7))) == ["rngs"]


@pytest.mark.parametrize("named", [SmallResNet, NnxResNet])
def test_a_normaliser_comes_in_the_place_of_every_layer(named):
    model = make_classifier(named, {}, 7, SHAPE)
    own = Classifier(model).init(jax.random.key(0), IMAGES)
    params, state = Classifier(with_normaliser(model, GroupNorm(groups=2), SHAPE)).init(
        jax.random.key(0), IMAGES
    )
    assert state == {} and own[1]
    assert jax.tree.structure(params) == jax.tree.structure(own[0])


def test_where_chooses_by_path_and_by_class():
    model = make_classifier(SmallResNet, {}, 7, SHAPE)
    for where, left in (
        ("bn_init", 5),
        ("ResNetBlock_*", 1),
        (("*/norm_proj", "bn_init"), 4),
        ("BatchNorm", 0),
    ):
        swapped = with_normaliser(model, GroupNorm(groups=2), SHAPE, where)
        _, state = Classifier(swapped).init(jax.random.key(0), IMAGES)
        assert len(jax.tree.leaves(state)) == 2 * left
    with pytest.raises(UserError, match="where leaves out every layer"):
        with_normaliser(model, GroupNorm(groups=2), SHAPE, "Layer*")


def test_an_nnx_module_that_is_given_stays_as_it_is():
    given = NnxResNet(3, num_classes=7, rngs=nnx.Rngs(0))
    with_normaliser(make_classifier(given, {}, 7, SHAPE), GroupNorm(groups=2), SHAPE)
    assert isinstance(given.stem.layers[1], nnx.BatchNorm)


@pytest.mark.parametrize("named", [SmallResNet, NnxResNet])
def test_a_state_that_the_backward_pass_leaves_is_carried(named):
    model = make_classifier(named, {}, 7, SHAPE)
    network = Classifier(with_normaliser(model, MovingAverageBatchNorm(), SHAPE, "*/*orm*"))
    params, state = network.init(jax.random.key(0), IMAGES)
    watched = network.by_gradient(state)

    def loss(params, watched):
        logits, moved = network.apply(
            params, {**state, **watched}, IMAGES, train=True, key=jax.random.key(1)
        )
        return (logits**2).sum(), moved

    gradients, moved = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, watched)
    after = network.with_gradient(moved, gradients[1])
    assert jax.tree.structure(after) == jax.tree.structure(state)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), watched, gradients[1])
    assert any(jax.tree.leaves(changed))


def test_states_of_microbatches_are_pooled_as_one_batch_has_them():
    network = Classifier(nn.Sequential([nn.BatchNorm(momentum=0.0), nn.Dense(2)]))
    x = jax.random.normal(jax.random.key(0), (8, 3))
    params, state = network.init(jax.random.key(0), x)
    moved = [network.apply(params, state, half, train=True)[1] for half in (x[:4], x[4:])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *moved)
    pooled = network.pool(stacked, params, x[:4])["batch_stats"]["layers_0"]
    np.testing.assert_allclose(pooled["mean"], x.mean(0), rtol=1e-5)
    within = BatchNorm(momentum=0.0).pool  # the rule of the library's own batch norm
    expected = within({"mean": stacked["batch_stats"]["layers_0"]["mean"],
                       "variance": stacked["batch_stats"]["layers_0"]["var"]})  # fmt: skip
    np.testing.assert_allclose(pooled["var"], expected["variance"], rtol=1e-5)
