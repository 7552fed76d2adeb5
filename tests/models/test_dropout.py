"""Dropout drops the right units at the right place and time, and changes nothing else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import MODELS, NORMS
from normlab.errors import FieldError
from normlab.models.dropout import drop
from normlab.models.plain import MLP, Convnet
from normlab.models.slots import NORM_STATE
from normlab.norms import BatchNorm, Identity
from tests.shared.thorough import mostly_thorough

SMALL = {
    "mlp": {"widths": (8, 8)},
    "convnet": {"widths": (4, 8), "layers": 1},
    "resnet": {"depth": 8, "width": 4},
    "resnet_v2": {"depth": 8, "width": 4},
    "skipinit": {"depth": 8, "width": 4},
    "fixup": {"depth": 8, "width": 4},
    "normaliser_free": {"depth": 8, "width": 4, "skip_gain": 1.0},
}
PLACES = {"mlp": 1, "convnet": 1}  # within the blocks; residual networks of depth 8 have three
IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
models = pytest.mark.parametrize(
    "name", mostly_thorough(SMALL, ["mlp", "resnet", "normaliser_free"])
)
places = pytest.mark.parametrize("at", ["head", "blocks"])


def build(name, norm=None, **more):
    norm = norm or ("identity" if name in ("fixup", "normaliser_free") else "batch_norm")
    return MODELS.load(name)(norm=NORMS.load(norm)(), classes=3, **SMALL[name], **more)


def moved(made):
    """Make variables unlike their initial values, where some models have zero branches."""
    start = made.init(jax.random.key(1), IMAGES, train=False)
    return jax.tree.map(lambda leaf: leaf + 0.1, start)


def jaxpr(made, train, **call):
    variables = jax.eval_shape(lambda: made.init(jax.random.key(1), IMAGES, train=False))
    apply = lambda v: made.apply(v, IMAGES, train=train, mutable=[NORM_STATE], **call)  # noqa: E731
    return str(jax.make_jaxpr(apply)(variables))


def keyed(seed=0):
    return {"rngs": {"dropout": jax.random.key(seed)}}


class Drop(nn.Module):
    """A model with one place for dropout and nothing else."""

    dropout: float
    dropout_at: str = "head"

    @nn.compact
    def __call__(self, x, at="head", *, train):
        return drop(self, x, at, train)


@pytest.fixture(scope="module")
def dropped():
    return Drop(0.75).apply({}, jnp.ones((100, 1000)), train=True, **keyed())


def test_what_is_kept_is_scaled_by_one_over_the_share_that_is_kept(dropped):
    assert set(np.unique(dropped)) == {0.0, 4.0}


def test_the_share_that_is_asked_for_is_dropped_everywhere_alike(dropped):
    lost = np.asarray(dropped == 0)
    assert lost.mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / lost.size))
    for axis in (0, 1):  # no example and no unit stands out: by five deviations at most
        count = lost.shape[axis]
        assert np.abs(lost.mean(axis=axis) - 0.75).max() < 5 * np.sqrt(0.75 * 0.25 / count)


def test_in_evaluation_and_elsewhere_nothing_is_touched():
    x = jax.random.normal(jax.random.key(0), (2, 3))
    np.testing.assert_array_equal(Drop(0.75).apply({}, x, train=False), x)
    np.testing.assert_array_equal(Drop(0.75).apply({}, x, "blocks", train=True, **keyed()), x)


def test_in_bfloat16_what_is_kept_stays_bfloat16():
    y = Drop(0.5).apply({}, jnp.ones((8, 8), jnp.bfloat16), train=True, **keyed())
    assert y.dtype == jnp.bfloat16 and set(np.unique(y.astype(jnp.float32))) == {0.0, 2.0}


@models
def test_at_rate_zero_the_program_is_the_one_without(name):
    plain = build(name)
    for at in ("head", "blocks"):
        same = build(name, dropout=0.0, dropout_at=at)
        for train in (True, False):
            assert jaxpr(same, train) == jaxpr(plain, train)


@models
def test_parameters_and_their_start_do_not_depend_on_it(name):
    one, other = (
        made.init(jax.random.key(1), IMAGES, train=False)
        for made in (build(name), build(name, dropout=0.5, dropout_at="blocks"))
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


@models
@places
def test_it_acts_in_training_by_its_key_and_not_in_evaluation(name, at):
    made, plain = build(name, dropout=0.5, dropout_at=at), build(name)
    variables = moved(made)
    train = jax.jit(lambda key: made.apply(variables, IMAGES, train=True, rngs={"dropout": key}))
    one, again, other = (np.asarray(train(jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert jaxpr(made, False) == jaxpr(plain, False)


@models
def test_before_the_head_it_is_once_and_in_the_blocks_once_a_block(name):
    def masks(at):
        return jaxpr(build(name, dropout=0.5, dropout_at=at), True, **keyed()).count("random_bits")

    assert masks("head") == 1
    assert masks("blocks") == PLACES.get(name, 3)


def test_in_the_blocks_batch_norm_stores_a_larger_variance_than_evaluation_has():
    """Li et al. 2019: dropout before batch norm raises the variance that it sees in training."""
    made = MLP(norm=BatchNorm(momentum=0.0), classes=2, widths=(64, 64), activation="relu",
               dropout=0.5, dropout_at="blocks")  # fmt: skip
    x = jax.random.normal(jax.random.key(3), (2000, 8))
    variables = made.init(jax.random.key(4), x, train=False)

    def stored(network):
        state = network.apply(variables, x, train=True, mutable=[NORM_STATE], **keyed())[1]
        slots = (state[NORM_STATE][f"NormAct_{i}"]["Norm_0"]["norm"] for i in range(2))
        return [np.asarray(slot["variance"]) for slot in slots]

    with_it, without = stored(made), stored(made.clone(dropout=0.0))
    np.testing.assert_array_equal(with_it[0], without[0])  # nothing is dropped before it
    assert (with_it[1] / without[1]).min() > 1.2


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet", "normaliser_free"])
def test_a_share_outside_of_zero_to_one_is_an_error(name, rate):
    with pytest.raises(FieldError, match="dropout must be at least 0 and below 1"):
        build(name, dropout=rate)


def test_a_place_that_does_not_exist_is_an_error():
    with pytest.raises(FieldError, match="dropout_at must be head or blocks, got 'tail'"):
        build("resnet", dropout=0.5, dropout_at="tail")
    for made in (
        lambda: MLP(norm=Identity(), classes=2, widths=(4,), dropout=0.1, dropout_at="blocks"),
        lambda: Convnet(norm=Identity(), classes=2, widths=(4,), layers=1, dropout=0.1,
                        dropout_at="blocks"),
    ):  # fmt: skip
        with pytest.raises(FieldError, match="dropout_at must be head, as there is only one"):
            made()
