"""Models take a batch that is spread over a mesh, whatever the kind of its axes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from normlab.adapters.classifier import Classifier
from normlab.adapters.statistics import recalibrate
from normlab.catalogue import MODELS
from normlab.models.plain import Convnet
from normlab.norms import BatchNorm, Identity

SMALL = {
    "convnet": {"widths": (4, 4), "layers": 1},
    "mlp": {"widths": (8,)},
    "ngpt": {"patch": 3, "depth": 1, "width": 8, "heads": 2},
    "resnet": {"depth": 8},
    "speednet": {"widths": (4, 4, 4)},
    "vit": {"patch": 3, "depth": 1, "width": 8, "heads": 2, "qk_norm": "rms_norm"},
}
WITHOUT = ("fixup", "ngpt", "normaliser_free")
SHAPE = (8, 9, 9, 3)


def mesh_of(kind):
    return jax.make_mesh((4, 2), ("data", "other"), axis_types=(kind,) * 2)


EXPLICIT, AUTO = mesh_of(AxisType.Explicit), mesh_of(AxisType.Auto)


def spread(mesh, images, *whole):
    return jax.device_put(images, NamedSharding(mesh, P("data"))), *jax.device_put(
        whole, NamedSharding(mesh, P())
    )


def step(network, images, params, state):
    """Compute logits, the next state and the gradient of a training step."""

    def loss(params):
        logits, moved = network.apply(params, state, images, train=True, key=jax.random.key(1))
        return (logits**2).sum(), (logits, moved)

    return jax.value_and_grad(loss, has_aux=True)(params)


def given(name):
    make = partial(MODELS.load(name), classes=3, **SMALL.get(name, {}))
    norm = Identity() if name in WITHOUT else BatchNorm()
    network = Classifier(make(norm=norm))
    images = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    params, state = network.init(jax.random.key(0), jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    return network, images, params, state


@pytest.mark.parametrize("name", list(MODELS.entries()))
@pytest.mark.parametrize("within", [False, True], ids=["arrays only", "set_mesh"])
def test_every_model_can_be_traced_on_explicit_axes(name, within):
    network, *arrays = given(name)
    arrays = spread(EXPLICIT, *arrays)
    context = jax.set_mesh(EXPLICIT) if within else jax.numpy_rank_promotion("raise")
    with context:
        (_, (logits, _)), grads = jax.eval_shape(lambda *a: step(network, *a), *arrays)
    assert logits.sharding.spec[0] == "data"
    assert all(set(gradient.sharding.spec) <= {None} for gradient in jax.tree.leaves(grads))


@pytest.mark.parametrize("mesh", [EXPLICIT, AUTO], ids=["explicit", "auto"])
def test_a_convnet_has_the_numbers_of_one_device(mesh):
    network, *arrays = given("convnet")
    run = jax.jit(lambda *a: step(network, *a))
    wanted, found = run(*arrays), run(*spread(mesh, *arrays))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)


def test_within_shard_map_an_axis_name_joins_the_shards():
    _, images, params, state = given("convnet")
    plain, named = (
        Classifier(Convnet(norm=norm, classes=3, **SMALL["convnet"]))
        for norm in (BatchNorm(), BatchNorm(axis_name="data"))
    )
    wanted = jax.jit(lambda *a: plain.apply(*a, train=True))(params, state, images)
    shards = jax.shard_map(
        lambda *a: named.apply(*a, train=True),
        mesh=AUTO,
        in_specs=(P(), P(), P("data")),
        out_specs=(P("data"), P()),
    )
    found = jax.jit(shards)(params, state, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)


@pytest.mark.parametrize("mesh", [EXPLICIT, AUTO], ids=["explicit", "auto"])
def test_recalibrated_statistics_are_of_the_whole_batch(mesh):
    network, images, params, state = given("convnet")
    variables = network.variables(params, state)
    wanted = recalibrate(network.model, variables, [images, 2 * images])
    images, variables = spread(mesh, images, variables)
    found = recalibrate(network.model, variables, [images, 2 * images])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)
