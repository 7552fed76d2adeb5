"""No kernel does harm: zeros, NaN, too large a number, or nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.errors import FieldError, KernelError
from normlab.weights.scaled_weight_standardisation import scaled_weight_standardisation
from normlab.weights.spectral_norm import SpectralNorm, spectral_norm
from normlab.weights.weight_norm import weight_norm
from normlab.weights.weight_standardisation import weight_standardisation

from .conftest import sample, started
from .reference import expected


def used(transform, kernel):
    params, state = started(transform, sample(kernel.shape))
    found, after = transform.apply(params, state, jnp.asarray(kernel), train=True)
    return np.asarray(found, np.float64), after, params, state


def test_a_kernel_of_zeros_has_a_gradient_and_moves_no_state_to_where_it_is_lost(transform):
    kernel = np.zeros((4, 5), np.float32)
    found, after, params, state = used(transform, kernel)
    assert not found.any()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after))
    gradient = jax.grad(lambda k: transform.apply(params, state, k, train=True)[0].sum())(
        jnp.asarray(kernel)
    )
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_seen_and_leaves_the_state(transform, value):
    kernel = sample((4, 5))
    kernel[1, 2] = value
    found, after, _, state = used(transform, kernel)
    assert np.isnan(found[:, 2]).all()
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_what_is_too_large_is_right_or_not_a_number(name, transform):
    kernel = sample((4, 5))
    for exponent in (50, 70, 120):
        big = np.ldexp(kernel, exponent)
        found, _, params, state = used(transform, big)
        state = transform.apply(params, state, jnp.asarray(kernel), train=True)[1]
        wanted = expected(name, transform, params, state, big.astype(np.float64))
        known = ~np.isnan(found)
        np.testing.assert_allclose(found[known], wanted[known], rtol=1e-4, atol=1e-5)
        assert known.all() or exponent > 60


def test_a_spectral_norm_recovers_from_one_bad_step():
    transform, kernel = SpectralNorm(), jnp.asarray(sample((4, 5)))
    params, state = transform.init(jax.random.key(0), kernel)
    _, state = transform.apply(params, state, kernel.at[0, 0].set(jnp.nan), train=True)
    for _ in range(60):
        found, state = transform.apply(params, state, kernel, train=True)
    assert np.linalg.norm(np.asarray(found), 2) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (3, 3, 0, 5)], ids=str)
def test_a_kernel_of_nothing_comes_out_as_it_is_or_is_refused(transform, shape):
    kernel = jnp.zeros(shape)
    try:
        params, state = transform.init(jax.random.key(0), kernel)
        found, _ = transform.apply(params, state, kernel, train=True)
    except KernelError as error:
        assert "no number" in str(error) and 0 in shape[:-1]
    else:
        assert found.shape == shape


def test_whole_numbers_are_refused(transform):
    params, state = transform.init(jax.random.key(0), jnp.ones((4, 5)))
    with pytest.raises(KernelError, match="floating-point"):
        transform.apply(params, state, jnp.ones((4, 5), jnp.int32), train=True)


def test_functions_check_what_they_are_given_as_the_classes_do():
    kernel = jnp.asarray(sample((4, 5)))
    for eps in (0.0, -1.0, np.nan):
        with pytest.raises(FieldError, match="eps"):
            weight_standardisation(kernel, eps=eps)
    for wrong in ({"gamma": 0.0}, {"floor": 0.0}, {"floor": -1.0}, {"eps": np.nan}):
        with pytest.raises(FieldError):
            scaled_weight_standardisation(kernel, **wrong)
    with pytest.raises(KernelError, match="gain has shape"):
        weight_norm(kernel, 2.0)  # type: ignore[arg-type]
    with pytest.raises(KernelError, match="v has shape"):
        spectral_norm(kernel, jnp.ones(5), jnp.ones(5))
