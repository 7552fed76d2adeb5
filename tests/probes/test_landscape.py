"""`landscape` is right if the loss is a parabola."""

import numpy as np
import pytest

from normlab.errors import UserError
from normlab.probes import Landscape

from .conftest import linear_look, with_singular_values

RNG = np.random.default_rng(0)
STEPS = (0.1, 0.5, 1.0, 3.0)
SINGULAR = np.array([6.0, 4.0, 2.0, 1.0])
ROWS = 20


def regression(kernel):
    """Measure `|xW - y|^2 / 2`, whose Hessian has eigenvalues `s^2 / N`; compute it by hand."""
    x = with_singular_values(SINGULAR, rows=ROWS)
    targets = RNG.standard_normal((ROWS, kernel.shape[1]))
    hessian = x.T @ x / ROWS
    gradient = x.T @ (x @ kernel - targets) / ROWS
    start = 0.5 * np.sum((x @ kernel - targets) ** 2) / ROWS
    return linear_look(Landscape(steps=STEPS), [kernel], x, targets), start, gradient, hessian


@pytest.mark.parametrize("outputs", [1, 3])
def test_on_a_quadratic_the_loss_along_the_gradient_is_its_parabola(outputs):
    found, start, g, hessian = regression(RNG.standard_normal((4, outputs)))
    t = np.array(STEPS)
    loss = start - t * np.sum(g**2) + t**2 / 2 * np.sum(g * (hessian @ g))
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["start"], start, rtol=1e-5)
    np.testing.assert_allclose(found["lowest"], loss.min(), rtol=1e-5)
    np.testing.assert_allclose(found["highest"], loss.max(), rtol=1e-5)
    np.testing.assert_array_equal(found["step"], np.float32(STEPS))

    size, curved = np.linalg.norm(g), np.linalg.norm(hessian @ g)
    np.testing.assert_allclose(found["gradient_norm"], size, rtol=1e-5)
    np.testing.assert_allclose(found["gradient_change"], t * curved, rtol=1e-4)
    np.testing.assert_allclose(found["smoothness"], np.full(4, curved / size), rtol=1e-4)
    np.testing.assert_allclose(found["beta"], curved / size, rtol=1e-4)


@pytest.mark.parametrize("which", [0, 3])
def test_along_an_eigenvector_the_smoothness_is_its_eigenvalue(which):
    """The gradient at a point moved from the optimum along an eigenvector is along it too."""
    x = with_singular_values(SINGULAR, rows=ROWS)
    values, vectors = np.linalg.eigh(x.T @ x / ROWS)
    kernel = RNG.standard_normal((4, 1))
    moved = kernel + vectors[:, [which]]
    found = linear_look(Landscape(steps=(0.2, 1.0 / values[which])), [moved], x, x @ kernel)
    np.testing.assert_allclose(found["smoothness"], np.full(2, values[which]), rtol=1e-3)
    np.testing.assert_allclose(found["loss"][1], 0, atol=1e-5)  # the step 1/eigenvalue arrives


def test_where_the_gradient_is_zero_nothing_is_undefined():
    x, kernel = np.eye(4), np.zeros((4, 1))
    found = linear_look(Landscape(), [kernel], x, np.zeros((4, 1)))
    assert float(found["beta"]) == float(found["gradient_norm"]) == float(found["highest"]) == 0


@pytest.mark.parametrize("steps", [(), (0.1, 0.0), (-0.1,)])
def test_steps_that_do_not_go_down_are_refused(steps):
    with pytest.raises(UserError, match="steps"):
        Landscape(steps=steps)
