"""Transforms have the properties that their papers state, and agree with numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.errors import FieldError
from normlab.weights import (
    CentredWeightNorm,
    ScaledWeightStandardisation,
    SpectralNorm,
    WeightNorm,
    WeightStandardisation,
)
from normlab.weights.centred_weight_norm import centred_weight_norm
from normlab.weights.scaled_weight_standardisation import scaled_weight_standardisation
from normlab.weights.spectral_norm import power_iteration, spectral_norm
from normlab.weights.weight_norm import weight_norm
from normlab.weights.weight_standardisation import weight_standardisation

from .conftest import sample

K = sample((3, 3, 8, 5), std=0.1)
KERNEL = jnp.asarray(K)
DY = jnp.asarray(sample(KERNEL.shape, seed=2))
UNITS = (0, 1, 2)
PLAIN = WeightStandardisation()
PAPER = WeightStandardisation(unbiased=False, eps_in_variance=True)
TIMM = WeightStandardisation(unbiased=False, eps_in_variance=True, eps=1e-6)


def used(transform, kernel, key=0):
    params, state = transform.init(jax.random.key(key), kernel)
    return transform.apply(params, state, kernel, train=False)[0]


def gradient(transform, kernel=KERNEL, dy=DY):
    params, state = transform.init(jax.random.key(0), KERNEL)
    return jax.grad(lambda k: (dy * transform.apply(params, state, k, train=False)[0] ** 2).sum())(
        kernel
    )


CENTRED = [CentredWeightNorm(), PLAIN, PAPER, ScaledWeightStandardisation()]


@pytest.mark.parametrize("transform", CENTRED, ids=repr)
def test_a_centred_kernel_has_units_of_mean_zero(transform):
    y = used(transform, KERNEL)
    assert np.abs(y.mean(UNITS)).max() < 1e-6 * np.abs(y).max()


def test_a_standardised_kernel_has_units_of_deviation_one():
    tiny = {"eps": 1e-9}
    y = np.asarray(used(WeightStandardisation(**tiny), KERNEL), np.float64)
    np.testing.assert_allclose(y.std(UNITS, ddof=1), 1, rtol=1e-6)
    y = np.asarray(used(WeightStandardisation(unbiased=False, **tiny), KERNEL), np.float64)
    np.testing.assert_allclose(y.std(UNITS), 1, rtol=1e-6)


@pytest.mark.parametrize("transform", CENTRED, ids=repr)
def test_the_gradient_of_a_centred_kernel_is_orthogonal_to_ones_and_to_the_kernel(transform):
    g = np.asarray(gradient(transform), np.float64)
    size = np.sqrt((g**2).sum(UNITS))
    assert np.abs(g.sum(UNITS)).max() < 1e-5 * size.max()
    along = (g * (K - K.mean(UNITS))).sum(UNITS)
    bound = 1e-5 if getattr(transform, "eps", 0) == 0 else 3e-3  # eps leaves a little along it
    assert np.abs(along).max() < bound * size.max()


SCALE_INVARIANT = [
    WeightNorm(),
    CentredWeightNorm(),
    ScaledWeightStandardisation(),
    WeightStandardisation(eps=1e-9),
]


@pytest.mark.parametrize("transform", SCALE_INVARIANT, ids=repr)
def test_the_gradient_falls_as_the_kernel_grows(transform):
    """<w, gradient> = 0 and gradient(c w) = gradient(w) / c (van Laarhoven 2017)."""
    g = gradient(transform)
    along = np.abs((g * KERNEL).sum(UNITS)) / np.sqrt((g**2).sum(UNITS))
    assert along.max() < 1e-5
    np.testing.assert_allclose(gradient(transform, KERNEL * 4) * 4, g, rtol=1e-4, atol=1e-5)


def test_the_gradients_of_weight_norm_are_the_papers_equation_3():
    v, g = np.asarray(KERNEL, np.float64), np.linspace(0.5, 2, 5)
    of_v, of_g = jax.grad(lambda k, gain: (DY * weight_norm(k, gain)).sum(), argnums=(0, 1))(
        KERNEL, jnp.asarray(g, jnp.float32)
    )
    length, dw = np.sqrt((v**2).sum(UNITS)), np.asarray(DY, np.float64)
    dg = (dw * v).sum(UNITS) / length
    np.testing.assert_allclose(of_g, dg, rtol=1e-5)
    np.testing.assert_allclose(of_v, g / length * dw - g * dg / length**2 * v, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transform", [WeightNorm(), CentredWeightNorm()], ids=repr)
def test_a_layer_with_a_learnt_length_starts_as_it_was_initialised(transform):
    kernel = jnp.asarray(K - K.mean(UNITS)) if isinstance(transform, CentredWeightNorm) else KERNEL
    np.testing.assert_allclose(used(transform, kernel), kernel, rtol=1e-5, atol=1e-6)


def test_a_start_fixes_the_length_where_no_gain_is_learnt():
    for kind in (WeightNorm, CentredWeightNorm):
        transform = kind(start=1.5, use_gain=False)
        assert transform.init(jax.random.key(0), KERNEL) == ({}, {})
        lengths = np.sqrt((np.asarray(used(transform, KERNEL)) ** 2).sum(UNITS))
        np.testing.assert_allclose(lengths, 1.5, rtol=1e-6)
        with pytest.raises(FieldError, match="start must be a number where use_gain is false"):
            kind(use_gain=False)


def test_numbers_to_check_on_paper():
    """A unit of 1, 2, 6: mean 3, distances -2, -1, 3, their squares 14 in sum."""
    kernel, gain = jnp.array([[1.0], [2.0], [6.0]]), jnp.array([2.0])
    d = np.array([[-2.0], [-1.0], [3.0]])
    for found, wanted in (
        (weight_norm(kernel, gain), 2 * np.asarray(kernel) / np.sqrt(41)),
        (centred_weight_norm(kernel, gain), 2 * d / np.sqrt(14)),
        (weight_standardisation(kernel, eps=0.5), d / (np.sqrt(7) + 0.5)),
        (weight_standardisation(kernel, eps=0.5, unbiased=False), d / (np.sqrt(14 / 3) + 0.5)),
        (
            weight_standardisation(kernel, eps=1.0, unbiased=False, eps_in_variance=True),
            d / np.sqrt(14 / 3 + 1),
        ),
        (scaled_weight_standardisation(kernel, gain, gamma=3.0), 6 * d / np.sqrt(14)),
        (scaled_weight_standardisation(kernel, floor=100.0), d / 10),
        (scaled_weight_standardisation(kernel, floor=0.0, eps=2.0), d / np.sqrt(20)),
        # v = (0, 1, 0), u = (1): W / 2.
        (spectral_norm(kernel, jnp.array([1.0]), jnp.array([0.0, 1.0, 0.0])), kernel / 2),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(("inputs", "apart"), [(9, 0.057), (27, 0.019)])
def test_the_authors_formula_and_the_papers_are_so_far_apart(inputs, apart):
    """1 - sqrt((n - 1) / n): 5.7% at 9 inputs a unit, 1.9% at 27."""
    kernel = jnp.asarray(sample((inputs, 4)))
    less = 1 - np.asarray(used(PLAIN, kernel) / used(PAPER, kernel))
    np.testing.assert_allclose(less, apart, atol=5e-4)


def test_where_weights_are_small_the_formulas_differ_most():
    """A unit whose deviation is 1e-3 exactly; DeepMind's floor takes hold at 27 inputs."""
    signs = np.where(np.arange(26) % 2, 1.0, -1.0)
    kernel = jnp.asarray(1e-3 * signs[:, None], jnp.float32)
    deviations = {
        "paper, 1e-5": (PAPER, (1 + 10) ** -0.5),
        "timm": (TIMM, 2**-0.5),
        "authors": (PLAIN, 1 / (np.sqrt(26 / 25) + 0.01)),
        "nfnets": (ScaledWeightStandardisation(), 0.1),
    }
    for name, (transform, wanted) in deviations.items():
        found = np.asarray(used(transform, kernel), np.float64).std()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=name)


def test_a_scaled_standardised_layer_keeps_the_variance_of_its_input():
    kernel = jnp.asarray(sample((512, 256), mean=0.2, std=3))
    x = np.asarray(sample((2000, 512), mean=0.0))
    y = x @ np.asarray(used(ScaledWeightStandardisation(), kernel))
    np.testing.assert_allclose(y.var(0).mean(), x.var(), rtol=0.01)
    relu, gamma = np.maximum(x, 0), float(np.sqrt(2 / (1 - 1 / np.pi)))
    y = relu @ np.asarray(used(ScaledWeightStandardisation(gamma=gamma), kernel))
    np.testing.assert_allclose(y.var(0).mean(), 1.0, rtol=0.02)


def test_a_spectrally_normalised_kernel_stretches_nothing():
    largest = np.linalg.svd(np.asarray(KERNEL, np.float64).reshape(-1, 5), compute_uv=False)[0]
    transform = SpectralNorm()
    params, state = transform.init(jax.random.key(0), KERNEL)
    for _ in range(30):
        y, state = transform.apply(params, state, KERNEL, train=True)
    np.testing.assert_allclose(y, np.asarray(KERNEL) / largest, rtol=1e-5)
    assert np.linalg.norm(state["u"]) == pytest.approx(1) == np.linalg.norm(state["v"])


def test_an_iteration_begins_with_u_and_one_of_two_is_two_of_one():
    u, v = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    kernel = jnp.array([[3.0, 0.0], [4.0, 5.0]])
    once = power_iteration(kernel, u, v, 1)
    # v = (3, 4) / 5; then u is along (3 * 3 + 4 * 4, 4 * 5) / 5 = (5, 4).
    np.testing.assert_allclose(once[1], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(once[0], np.array([5, 4]) / np.sqrt(41), rtol=1e-6)
    twice = power_iteration(kernel, *once, 1)
    for one, other in zip(power_iteration(kernel, u, v, 2), twice, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_start_of_spectral_norm_comes_from_the_key_and_is_near_its_end():
    one, other = (SpectralNorm().init(jax.random.key(k), KERNEL)[1]["u"] for k in (0, 1))
    assert not np.array_equal(one, other)
    assert abs(float(one @ other)) > 0.99  # but for the sign, both near the singular vector


def test_the_gradient_of_spectral_norm_takes_its_vectors_as_constants():
    transform = SpectralNorm()
    params, state = transform.init(jax.random.key(0), KERNEL)
    g = jax.grad(lambda k: (DY * transform.apply(params, state, k, train=True)[0]).sum())(KERNEL)
    moved = transform.apply(params, state, KERNEL, train=True)[1]
    fixed = jax.grad(lambda k: (DY * spectral_norm(k, moved["u"], moved["v"])).sum())(KERNEL)
    np.testing.assert_allclose(g, fixed, rtol=1e-5, atol=1e-6)
    of_state = jax.grad(lambda s: (DY * transform.apply({}, s, KERNEL, train=True)[0]).sum())(state)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_state))


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        (WeightNorm, {"start": 0.0}, "start"),
        (WeightStandardisation, {"eps": 0.0}, "eps"),
        (ScaledWeightStandardisation, {"floor": 0.0}, "floor"),
        (ScaledWeightStandardisation, {"floor": -1.0}, "floor"),
        (ScaledWeightStandardisation, {"eps": -1.0}, "eps"),
        (ScaledWeightStandardisation, {"gamma": 0.0}, "gamma"),
        (SpectralNorm, {"iterations": 0}, "iterations"),
    ],
)
def test_a_field_that_cannot_work_is_refused(kind, fields, field):
    with pytest.raises(FieldError) as error:
        kind(**fields)
    assert error.value.field == field
