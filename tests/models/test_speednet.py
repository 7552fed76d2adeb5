"""The speed network has the published initialisation, whitening, pooling and size."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.errors import FieldError
from normlab.models.slots import NORM_STATE, halve
from normlab.models.speednet import (
    WHITENING,
    Speednet,
    both_signs,
    partial_identity,
    whitening_kernel,
)
from normlab.norms import BatchNorm, Identity
from tests.peers import goldens, speednet

PUBLISHED_NORM = BatchNorm(momentum=0.6, eps=1e-12, use_scale=False, unbiased_running_variance=True)


def convolved(x, kernel, padding="VALID"):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def correlated_images(n=64, size=12):
    """Make images whose neighbouring pixels and channels are correlated, with non-zero means."""
    noise = np.random.default_rng(0).standard_normal((n, size + 2, size + 2, 3))
    smooth = noise[:, :-2, 1:-1] + noise[:, 2:, 1:-1] + 2 * noise[:, 1:-1, :-2]
    mixed = smooth @ np.array([[1, 0.9, 0.5], [0, 0.3, 0.2], [0, 0, 1]]) + [0.5, -1, 2]
    return jnp.asarray(mixed, jnp.float32)


def second_moments(x):
    flat = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return flat.T @ flat / len(flat)


@pytest.mark.parametrize(("patch", "count"), [(2, 12), (3, 27)])
def test_whitened_patches_have_the_identity_as_second_moments(patch, count):
    images = correlated_images()
    kernel = whitening_kernel(images, patch, eps=1e-12)
    assert kernel.shape == (patch, patch, 3, 2 * count) and kernel.dtype == jnp.float32
    seen = convolved(images, kernel)
    np.testing.assert_allclose(second_moments(seen[..., :count]), np.eye(count), atol=2e-3)
    np.testing.assert_array_equal(seen[..., count:], -seen[..., :count])


def test_eps_shrinks_a_direction_by_its_share_and_the_largest_comes_first():
    images, eps = correlated_images(), 0.1
    kernel = whitening_kernel(images, 2, eps=eps)
    seen = second_moments(convolved(images, kernel))[:12, :12]
    views = [np.asarray(images)[:, i : 11 + i, j : 11 + j] for i in (0, 1) for j in (0, 1)]
    eigenvalues = np.linalg.eigvalsh(second_moments(np.concatenate(views, axis=-1)))[::-1]
    np.testing.assert_allclose(np.diag(seen), eigenvalues / (eigenvalues + eps), rtol=2e-4)
    np.testing.assert_allclose(seen - np.diag(np.diag(seen)), 0, atol=1e-4)


def test_whitening_images_of_one_colour_is_finite():
    kernel = whitening_kernel(jnp.full((4, 6, 6, 3), 2.0))
    assert np.isfinite(kernel).all()
    assert float(jnp.abs(convolved(jnp.full((1, 6, 6, 3), 2.0), kernel)).max()) < 1.01


def test_the_first_layer_starts_orthonormal_and_with_both_signs():
    kernel = both_signs(jax.random.key(0), (2, 2, 3, 24)).reshape(12, 24)
    np.testing.assert_allclose(kernel[:, :12].T @ kernel[:, :12], np.eye(12), atol=1e-5)
    np.testing.assert_array_equal(kernel[:, 12:], -kernel[:, :12])


@pytest.mark.parametrize("outputs", [2, 4, 7])
def test_a_kernel_starts_by_copying_its_inputs_and_draws_the_rest_as_torch_does(outputs):
    kernel = partial_identity(jax.random.key(0), (3, 3, 4, outputs))
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
    kept = min(4, outputs)
    y = convolved(x, kernel, "SAME")
    np.testing.assert_allclose(y[..., :kept], x[..., :kept], rtol=1e-6)
    if outputs > 4:
        drawn = np.abs(kernel[..., 4:])
        assert 0.8 / 6 < drawn.max() <= 1 / 6  # 1 / sqrt(9 * 4)


@pytest.mark.parametrize("shape", [(2, 6, 6, 3), (2, 7, 5, 3)])
def test_halve_is_the_maximum_pooling_of_flax_in_value_and_gradient(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    ours, theirs = jax.vjp(halve, x), jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
    np.testing.assert_array_equal(ours[0], theirs[0])
    dy = jax.random.normal(jax.random.key(1), ours[0].shape)
    np.testing.assert_array_equal(ours[1](dy)[0], theirs[1](dy)[0])


def test_the_number_of_parameters_is_the_published_one():
    """It is checked by hand, by torch's count, and by the "2M parameters" of the authors' code."""
    made = Speednet(PUBLISHED_NORM, classes=10)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    found = jax.eval_shape(lambda x: made.init(jax.random.key(0), x, train=False)["params"], x)
    count = sum(leaf.size for leaf in jax.tree.leaves(found))
    pairs = [(24, 64), (64, 64), (64, 256), (256, 256), (256, 256), (256, 256)]
    biases = 24 + 2 * 64 + 4 * 256
    assert count == 12 * 24 + sum(9 * a * b for a, b in pairs) + biases + 2560 == 1_971_640
    scales = 2 * 64 + 4 * 256  # of torch's norms, which are frozen at one
    assert found[WHITENING]["kernel"].shape == (2, 2, 3, 24)
    assert count + scales == goldens.load(speednet.NAME)["count"]


def test_logits_are_those_of_torch_with_the_same_weights():
    kept = goldens.load(speednet.NAME)
    params, state = speednet.as_variables(
        {k.removeprefix("before/"): jnp.asarray(v) for k, v in kept.items() if "before/" in k}
    )
    made = Speednet(PUBLISHED_NORM, classes=speednet.CLASSES, widths=speednet.WIDTHS)
    x = jnp.asarray(speednet.data()[0])
    start = jax.eval_shape(lambda: made.init(jax.random.key(0), x, train=False))
    both = {"params": params, NORM_STATE: state}
    assert jax.tree.map(jnp.shape, both) == jax.tree.map(lambda leaf: leaf.shape, dict(start))
    found = jax.jit(lambda x: made.apply(both, x, train=False))(x)
    np.testing.assert_allclose(found, kept["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({}, 8, "have 9 pixels a side"),
        ({"widths": (4,), "patch": 4}, 4, "have 5 pixels a side"),
        ({"widths": ()}, 8, "widths must be"),
        ({"patch": 0}, 8, "patch must be"),
        ({"logit_scale": 0.0}, 8, "logit_scale must be"),
    ],
)
def test_a_shape_that_cannot_work_is_named(settings, size, message):
    with pytest.raises(FieldError, match=message):
        Speednet(Identity(), 3, **settings).init(
            jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False
        )
