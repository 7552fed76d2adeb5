"""`propagation` is right where mean field theory or linear algebra gives the answer."""

import jax.numpy as jnp
import numpy as np
import pytest

from normlab.models.plain import MLP
from normlab.norms import BatchNorm, Identity
from normlab.probes import Propagation
from normlab.probes.propagation import growth, similarity

from .conftest import linear_look, moment, subject, with_singular_values

RNG = np.random.default_rng(0)


def measured(norm, activation, batch, seeds, depth=12, width=256):
    """Measure the growth of gradient and signal between hidden layers at initialisation,
    the geometric mean over seeds."""
    model = MLP(norm=norm, classes=10, widths=(width,) * depth, activation=activation)
    who = subject(model)
    logs = []
    for seed in range(seeds):
        found = Propagation().measure(who, moment(who, (batch, width), seed=seed))
        # Without the head, where the loss's gradient is not yet one that a normaliser let through.
        back = growth(found["gradient"].values[:-1])
        logs.append([np.log(float(value)) for value in (back, found["signal_growth"])])
    return np.exp(np.mean(logs, axis=0))


@pytest.mark.parametrize("batch", [8, 16])
def test_gradients_explode_through_linear_batch_norm_by_the_batch(batch):
    """They grow by (B - 2)/(B - 3) per layer (Yang et al. 2019, arXiv:1902.08129)."""
    back, forward = measured(BatchNorm(), "identity", batch, seeds=3)
    assert back == pytest.approx((batch - 2) / (batch - 3), rel=0.025)
    assert forward == pytest.approx(1, rel=1e-3)


def test_gradients_explode_through_batch_norm_and_relu():
    """They grow by pi/(pi - 1), about 1.467, per layer for a large batch (Yang et al. 2019)."""
    back, _ = measured(BatchNorm(), "relu", 256, seeds=1)
    assert back == pytest.approx(np.pi / (np.pi - 1), rel=0.02)


def test_hes_initialisation_keeps_signals_and_gradients_through_relu():
    back, forward = measured(Identity(), "relu", 16, seeds=3)
    assert back == pytest.approx(1, rel=0.03)
    assert forward == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("value", [0.5, 1.0, 1.5])
def test_through_layers_of_one_singular_value_both_grow_by_its_square(value):
    kernels = [with_singular_values([value] * 6, rows=6, seed=seed) for seed in range(5)]
    x, targets = RNG.standard_normal((8, 6)), RNG.standard_normal((8, 6))
    found = linear_look(Propagation(), kernels, x, targets)
    assert found["square"].layers == tuple(f"Dense_{i}" for i in range(1, 5))
    assert float(found["signal_growth"]) == pytest.approx(value**2, rel=1e-4)
    assert float(found["growth"]) == pytest.approx(value**2, rel=1e-4)

    layers = np.arange(1, 5)
    square = np.mean(x**2) * value ** (2 * layers)
    np.testing.assert_allclose(found["square"].values, square, rtol=1e-4)
    error = (x @ np.linalg.multi_dot(kernels) - targets) / 8
    gradient = np.sum(error**2) * value ** (2 * (5 - layers))
    np.testing.assert_allclose(found["gradient"].values, gradient, rtol=1e-4)
    # A rotation keeps every angle between examples.
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(8, dtype=bool)]
    np.testing.assert_allclose(found["similarity"].values, cosines.mean(), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_similarity_is_the_mean_cosine_between_examples(scale):
    x = RNG.standard_normal((5, 2, 3)) + 1
    rows = x.reshape(5, -1) / np.linalg.norm(x.reshape(5, -1), axis=1, keepdims=True)
    expected = (rows @ rows.T)[~np.eye(5, dtype=bool)].mean()
    found = similarity(jnp.asarray(scale * x, jnp.float32))
    assert float(found) == pytest.approx(expected, abs=1e-5)
    alike = similarity(jnp.asarray(np.tile(scale * x[:1], (5, 1, 1)), jnp.float32))
    assert float(alike) == pytest.approx(1, abs=1e-5)
    assert float(similarity(jnp.zeros((3, 4)))) == 0


def test_growth_is_the_geometric_mean_from_the_last_to_the_first():
    assert float(growth(jnp.array([27.0, 100.0, 5.0, 1.0]))) == pytest.approx(3)
    assert float(growth(jnp.array([2.0]))) == 1
    assert np.isfinite(growth(jnp.array([1.0, 0.0])))
