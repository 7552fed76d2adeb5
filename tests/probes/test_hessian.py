"""`hessian` finds the edges of known spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from normlab.catalogue import NORMS
from normlab.errors import UserError
from normlab.models.plain import MLP
from normlab.norms import BatchNorm
from normlab.probes import Hessian
from normlab.probes.hessian import hessian_vector_product, lanczos
from normlab.probes.layers import loss_and_gradient, loss_of

from .conftest import linear_look, moment, subject, with_singular_values

RNG = np.random.default_rng(0)
WITH_MEMORY = [name for name, entry in NORMS.entries().items() if entry.load().facts.backward_state]


def symmetric(values, seed=0):
    """Make a matrix of given eigenvalues, float64."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return (basis * np.asarray(values)) @ basis.T


def spectrum(matrix, iterations):
    a = jnp.asarray(matrix, jnp.float32)
    start = jnp.asarray(np.random.default_rng(1).standard_normal(len(matrix)), jnp.float32)
    return jax.jit(lambda start: lanczos(lambda v: a @ v, start, iterations))(start)


def times(values, found, tolerance):
    """Count how often each distinct value was found; every found value must be one of them."""
    different = np.unique(values)
    near = np.abs(np.asarray(found)[:, None] - different) <= tolerance
    assert near.any(axis=1).all(), found
    return dict(zip(different.tolist(), near.sum(axis=0).tolist(), strict=True))


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([9, 5, 5, 5, 1, 0, 0, -2, -2], 1.0),
        ([9, 5, -2, 0], 1e-6),
        ([-1, -4, -4, -9], 1e6),
        ([2, 0, 0, 0], 1.0),
    ],
)
def test_a_small_matrix_gives_each_eigenvalue_and_no_copies(values, scale):
    found = spectrum(scale * symmetric(values), len(values))
    top = np.abs(values).max()
    counts = times(values, found.values / scale, 1e-5 * top)
    for value, count in counts.items():
        assert count >= 1, value
        # What is left over repeats the smallest, as it says.
        assert count <= values.count(value) or value == min(values), value
    assert float(found.error.max()) <= 1e-4 * top * scale


def test_the_extremes_of_a_large_matrix_are_found_long_before_the_rest():
    bulk = RNG.uniform(-1, 1, 290)
    values = np.concatenate([bulk, [30, 20, 20, 10, -5, -8, 0, 0, 0, 0]])
    found = np.asarray(spectrum(symmetric(values), 40).values)
    counts = times([30, 20, 10], found[found > 2], 1e-4 * 10)
    assert counts[30] == counts[10] == 1 and counts[20] in (1, 2)
    np.testing.assert_allclose(found[-2:], [-5, -8], rtol=1e-4)


def test_each_value_lies_within_its_error_of_an_eigenvalue():
    values = RNG.standard_normal(120)
    found = spectrum(symmetric(values), 12)
    distance = np.abs(values[:, None] - np.asarray(found.values)).min(axis=0)
    assert (distance <= np.asarray(found.error) + 1e-5).all()
    assert float(found.error.max()) > 0.01  # not converged yet, and says so


def test_of_linear_regression_they_are_the_squared_singular_values_of_the_data():
    """They are `2 factor s^2 / N` for `factor * mean |xW - y|^2`, repeated for each output."""
    outputs, factor = 2, 0.75
    singular = np.array([6.0, 5.0, 3.0, 1.0, 0.5])
    x = with_singular_values(singular, rows=20)
    targets = RNG.standard_normal((20, outputs))
    kernel = RNG.standard_normal((5, outputs))

    def loss(y, t):
        return factor * jnp.sum((y - t) ** 2, axis=-1).mean()

    found = linear_look(Hessian(count=3), [kernel], x, targets, loss)
    expected = 2 * factor * singular**2 / 20
    counts = times(expected, found["largest"], 1e-4 * expected[0])
    assert found["largest"][0] == pytest.approx(expected[0], rel=1e-4)
    assert all(count <= outputs for count in counts.values())
    np.testing.assert_allclose(found["smallest"], expected[-1], rtol=1e-3)


@pytest.fixture(scope="module")
def tiny():
    model = MLP(norm=BatchNorm(eps=1e-9), classes=3, widths=(4,), activation="tanh")
    who = subject(model, optax.sgd(0.1))
    return who, moment(who, (12, 2))


def test_through_batch_norm_it_agrees_with_the_whole_hessian(tiny):
    point, unravel = ravel_pytree(tiny[1].params)
    matrix = jax.jit(jax.hessian(lambda flat: loss_of(*tiny)(unravel(flat))))(point)
    expected = np.linalg.eigvalsh(np.asarray(matrix, np.float64))[::-1]
    found = Hessian(count=4).measure(*tiny)
    np.testing.assert_allclose(found["largest"], expected[:4], rtol=1e-3)
    np.testing.assert_allclose(found["smallest"], expected[-1], rtol=1e-3)
    assert expected[-1] < -1e-3


def test_along_a_scale_invariant_weight_the_hessian_gives_minus_the_gradient(tiny):
    """`g(c w) = g(w) / c`, so that `H w = -g`, in the block of that weight."""
    who, when = tiny
    along = jax.tree.map(jnp.zeros_like, when.params)
    along["Dense_0"] = when.params["Dense_0"]
    product = jax.jit(lambda v: hessian_vector_product(loss_of(who, when), when.params)(v))(along)
    _, gradient = loss_and_gradient(who, when)
    g = gradient["Dense_0"]["kernel"]
    np.testing.assert_allclose(product["Dense_0"]["kernel"], -g, atol=1e-5)
    assert float(jnp.abs(g).max()) > 1e-3


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_a_backward_pass_with_a_memory_has_no_hessian(name):
    norm = NORMS.load(name)()
    who = subject(MLP(norm=norm, classes=3, widths=(4,)))
    with pytest.raises(UserError, match=rf"Hessian.*{type(norm).__name__}.*memory"):
        Hessian().measure(who, moment(who, (6, 4)))


def test_there_are_normalisers_whose_backward_pass_has_a_memory():
    assert {"power_norm", "online_norm"} <= set(WITH_MEMORY)


@pytest.mark.parametrize("field", [{"count": 0}, {"count": 5, "iterations": 4}])
def test_settings_that_ask_for_nothing_are_refused(field):
    with pytest.raises(UserError, match="|".join(field)):
        Hessian(**field)
