"""`activations` is right in cases whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from normlab.errors import UserError
from normlab.models.plain import MLP, Convnet
from normlab.norms import BatchNorm, Identity
from normlab.probes import Activations, look
from normlab.probes.activations import (
    dead_fraction,
    effective_rank,
    saturated_fraction,
    skewness,
)
from normlab.probes.layers import activations

from .conftest import moment, subject

RNG = np.random.default_rng(0)


def gaussian(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def test_moments_of_a_dense_layer_with_known_weights_on_gaussian_input():
    """y = w.x + 3 of 400 unit Gaussians has mean 3 and variance |w|^2; a ReLU's of variance s^2
    has mean s / sqrt(2 pi), and a share of one half is zero."""
    model = MLP(norm=Identity(), classes=2, widths=(50,), activation="relu")
    images = gaussian(4000, 400)
    variables = model.init(jax.random.key(0), images, train=False)
    weight = jnp.full((400, 50), 0.1)  # |w|^2 = 4
    dense = {"kernel": weight, "bias": jnp.full(50, 3.0)}
    at_outputs = Activations(at="outputs")
    labels = jnp.zeros(4000, jnp.int32)
    params = {**variables["params"], "Dense_0": dense}
    found = look(model, {"params": params}, images, labels, [at_outputs], train=True)["activations"]
    assert found["mean"].layers == ("Dense_0", "Dense_1")
    assert found["mean"].values[0] == pytest.approx(3, abs=0.15)
    assert found["variance"].values[0] == pytest.approx(4, rel=0.1)
    assert found["skew"].values[0] == pytest.approx(0, abs=0.15)
    assert found["effective_rank"].values[0] == pytest.approx(1, abs=1e-3)  # all units alike

    params = {**variables["params"], "Dense_0": {**dense, "bias": jnp.zeros(50)}}
    found = look(model, {"params": params}, images, labels, [Activations()], train=True)
    found = found["activations"]
    assert found["mean"].layers == ("Dense_1",)
    assert found["mean"].values[0] == pytest.approx(2 / np.sqrt(2 * np.pi), rel=0.06)
    assert found["saturated"].values[0] == pytest.approx(0.5, abs=0.03)
    # A rectified Gaussian's skewness, by its moments.
    m1, m2, m3 = 1 / np.sqrt(2 * np.pi), 0.5, np.sqrt(2 / np.pi)
    skew = (m3 - 3 * m1 * m2 + 2 * m1**3) / (m2 - m1**2) ** 1.5
    assert found["skew"].values[0] == pytest.approx(skew, rel=0.08)


def test_units_whose_bias_is_far_below_zero_are_dead():
    model = Convnet(norm=Identity(), classes=2, widths=(8,), layers=2)
    images = gaussian(6, 5, 5, 3)
    params = model.init(jax.random.key(0), images, train=False)["params"]
    params["Conv_0"]["bias"] = jnp.where(jnp.arange(8) < 3, -1e6, 0.0)
    labels = jnp.zeros(6, jnp.int32)
    found = look(model, {"params": params}, images, labels, [Activations()], train=True)
    dead = found["activations"]["dead"]
    assert dead.layers == ("Conv_1", "Dense_0") and dead.values.tolist() == [3 / 8, 0]


def test_dead_is_a_channel_that_never_changes():
    values = np.array(gaussian(4, 3, 3, 5))
    values[..., 1], values[..., 2] = 0, 7
    values[1:, ..., 3] = 0  # one example still fires
    assert float(dead_fraction(jnp.asarray(values))) == pytest.approx(2 / 5)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "identity"])
def test_saturated_is_where_the_slope_is_small(activation):
    function = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}.get(
        activation, lambda x: x
    )
    x = 3 * gaussian(5000)
    slope = np.asarray(jax.vmap(jax.grad(function))(x))
    steepest = {"sigmoid": 0.25}.get(activation, 1.0)
    found = saturated_fraction(function(x), activation)
    assert float(found) == pytest.approx((slope < 0.05 * steepest).mean(), abs=1e-3)


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_where_the_slope_cannot_be_told_nothing_is_said(activation):
    assert saturated_fraction(gaussian(4), activation) is None
    who = subject(MLP(norm=Identity(), classes=3, widths=(4,), activation=activation))
    assert "saturated" not in Activations().measure(who, moment(who))


@pytest.mark.parametrize(
    "values", [[1] * 7, [1, 0, 0, 0, 0, 0, 0], [3, 3, 3, 0, 0, 0, 0], [8, 4, 2, 1, 1e-3, 0, 0]]
)
@pytest.mark.parametrize("shape", [(40, 7), (7, 300)])
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_effective_rank_of_given_singular_values(values, shape, scale):
    left, _ = np.linalg.qr(RNG.standard_normal((shape[0], 7)))
    right, _ = np.linalg.qr(RNG.standard_normal((shape[1], 7)))
    matrix = scale * (left * np.array(values)) @ right.T
    p = np.array([v for v in values if v > 0]) / np.sum(values)
    expected = np.exp(-(p * np.log(p)).sum())
    found = effective_rank(jnp.asarray(matrix, jnp.float32))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_constant_has_neither_skew_nor_rank_without_being_undefined():
    assert float(skewness(jnp.full(5, 3.0))) == 0
    assert float(effective_rank(jnp.zeros((4, 6)))) == 1


def test_normalisers_are_seen_in_anyones_network():
    class Other(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            for _ in range(2):
                x = nn.BatchNorm(use_running_average=not training)(nn.Dense(6)(x))
                x = nn.relu(x)
            return nn.Dense(3)(nn.LayerNorm()(x))

    model, x = Other(), gaussian(32, 5)
    variables = model.init(jax.random.key(0), x, training=False)
    found = look(model, variables, x, jnp.arange(32) % 3, [Activations(at="norms")], training=True)[
        "activations"
    ]
    assert found["mean"].layers == ("BatchNorm_0", "BatchNorm_1", "LayerNorm_0")
    np.testing.assert_allclose(found["variance"].values, 1, atol=1e-3)
    assert "saturated" not in found


def test_a_layer_called_twice_is_seen_twice():
    class Shared(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            dense = nn.Dense(5)
            return nn.Dense(3)(dense(inputs=dense(x)))

    who = subject(Shared())
    assert list(activations(who, moment(who, (4, 5)))) == ["Dense_0 (2)", "Dense_1"]


class Within(nn.Module):
    """A network whose layers are inside a transformation."""

    @nn.compact
    def __call__(self, x, train):
        block = nn.remat(MLP)(norm=Identity(), classes=4, widths=(8,))
        return nn.Dense(3)(block(x, train=train))


@pytest.mark.parametrize("jitted", [False, True])
def test_layers_inside_a_transformation_are_refused_with_a_reason(jitted):
    who = subject(Within())
    measure = Activations().measure
    when = moment(who)
    with pytest.raises(UserError, match=r"remat.*remove the transformation"):
        jax.jit(lambda m: measure(who, m))(when) if jitted else measure(who, when)


def test_a_network_without_layers_is_refused():
    class Nothing(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return x[..., 0, 0] * self.param("gain", nn.initializers.ones, x.shape[:2])

    x = jnp.ones((4, 3, 2, 2))
    model = Nothing()
    with pytest.raises(UserError, match="no inputs"):
        look(model, {"params": {"gain": jnp.ones((4, 3))}}, x, jnp.zeros(4, jnp.int32),
             [Activations()], train=True)  # fmt: skip


@pytest.mark.parametrize("field", ["at", "activation"])
def test_a_wrong_word_is_refused(field):
    with pytest.raises(UserError, match=field):
        Activations(**{field: "input"})


def test_channels_that_are_not_finite_are_counted_where_the_normaliser_leaves_them_alone():
    model = Convnet(norm=BatchNorm(), classes=2, widths=(8,), layers=2)
    images, labels = gaussian(6, 5, 5, 3), jnp.zeros(6, jnp.int32)
    variables = model.init(jax.random.key(0), images, train=False)
    kernel = variables["params"]["Conv_0"]["kernel"]
    variables["params"]["Conv_0"]["kernel"] = kernel.at[..., :3].mul(1e25)
    probes = [Activations(at="norms"), Activations(at="outputs")]
    for probe in probes:
        found = look(model, variables, images, labels, [probe], train=True)["activations"]
        assert found["not_finite"].values[0] == 3
