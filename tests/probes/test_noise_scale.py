"""`noise_scale` is right if the covariance of the examples' gradients is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.errors import UserError
from normlab.probes import NoiseScale
from normlab.probes.noise_scale import noise_scale

from .conftest import linear_look

MEAN = np.array([1.0, -0.5, 0.0, 0.25])
DEVIATIONS = np.array([2.0, 1.0, 0.5, 0.1])
TRACE, SQUARE = (DEVIATIONS**2).sum(), (MEAN**2).sum()


def examples(rng, *shape):
    """Make examples that are their own gradients: Gaussian, of known mean and covariance."""
    return MEAN + DEVIATIONS * rng.standard_normal((*shape, 4))


def mean_gradient(batch):
    return batch.mean(axis=0)


def mean_output(outputs, labels):
    """A loss whose gradient with respect to linear weights is the mean of the inputs."""
    return outputs.mean()


@pytest.mark.parametrize("parts", [12, 4, 2])
def test_it_is_the_sample_variance_of_the_parts_and_the_square_less_its_share(parts):
    x = examples(np.random.default_rng(0), 12)
    kernel = np.zeros((4, 1))
    found = linear_look(NoiseScale(parts=parts), [kernel], x, np.zeros(12), mean_output)
    means = x.reshape(parts, -1, 4).mean(axis=1)
    trace = 12 / parts * means.var(axis=0, ddof=1).sum()
    square = (x.mean(axis=0) ** 2).sum() - trace / 12
    np.testing.assert_allclose(found["trace"], trace, rtol=1e-4)
    np.testing.assert_allclose(found["square"], square, rtol=1e-4)
    np.testing.assert_allclose(found["noise_scale"], trace / square, rtol=1e-4)


def test_of_linear_regression_the_trace_is_that_of_the_examples_gradients():
    rng = np.random.default_rng(1)
    x, kernel = rng.standard_normal((16, 3)), rng.standard_normal((3, 1))
    y = x @ kernel + rng.standard_normal((16, 1)) + 1
    each = x * (x @ kernel - y)  # of half the squared distance
    trace = each.var(axis=0, ddof=1).sum()
    square = (each.mean(axis=0) ** 2).sum() - trace / 16
    found = linear_look(NoiseScale(parts=16), [kernel], x, y)
    np.testing.assert_allclose(found["trace"], trace, rtol=1e-4)
    np.testing.assert_allclose(found["square"], square, rtol=1e-4, atol=1e-4)


def test_from_many_examples_it_comes_within_its_standard_error_of_the_truth():
    count = 20_000
    x = jnp.asarray(examples(np.random.default_rng(2), count), jnp.float32)
    found = jax.jit(partial(noise_scale, mean_gradient, parts=count))(x)
    error = np.sqrt(2 * (DEVIATIONS**4).sum() / (count - 1))
    assert float(found.trace) == pytest.approx(TRACE, abs=2 * error)
    error_square = 2 * np.sqrt((MEAN**2 * DEVIATIONS**2).sum() / count)
    assert float(found.square) == pytest.approx(SQUARE, abs=2 * error_square)
    relative = np.hypot(error / TRACE, error_square / SQUARE)
    assert float(found.scale) == pytest.approx(TRACE / SQUARE, rel=2 * relative)


@pytest.mark.parametrize("parts", [2, 8])
def test_both_are_without_bias_from_small_batches(parts):
    """The mean of the estimates of 4000 batches of 8, within three standard errors."""
    batches = jnp.asarray(examples(np.random.default_rng(3), 4000, 8), jnp.float32)
    found = jax.jit(jax.vmap(partial(noise_scale, mean_gradient, parts=parts)))(batches)
    for values, truth in ((found.trace, TRACE), (found.square, SQUARE)):
        values = np.asarray(values, np.float64)
        error = values.std() / np.sqrt(len(values))
        assert values.mean() == pytest.approx(truth, abs=3 * error) and error < 0.05 * truth + 0.1


@pytest.mark.parametrize("parts", [8, 2])
def test_examples_that_are_all_alike_have_no_noise(parts):
    x = np.tile([[1.0, 2.0, -2.0]], (8, 1))
    found = linear_look(NoiseScale(parts=parts), [np.zeros((3, 1))], x, np.zeros(8), mean_output)
    assert float(found["trace"]) == pytest.approx(0, abs=1e-5)
    assert float(found["square"]) == pytest.approx(9, rel=1e-6)
    assert float(found["noise_scale"]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("parts", [3, 16])
def test_parts_that_do_not_divide_the_batch_are_refused(parts):
    x = np.ones((8, 3))
    with pytest.raises(UserError, match=rf"8 examples.*{parts} equal parts"):
        linear_look(NoiseScale(parts=parts), [np.zeros((3, 1))], x, np.zeros(8), mean_output)


def test_a_single_part_is_refused():
    with pytest.raises(UserError, match="parts"):
        NoiseScale(parts=1)
