"""The same kernels as torch, timm and flax make, conventions converted in tests/peers/weights.py.

From stored numbers everywhere; where the libraries are installed, these are made anew and compared.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.weights import (
    ScaledWeightStandardisation,
    SpectralNorm,
    WeightNorm,
    WeightStandardisation,
)
from tests.peers import goldens, weights

GOLDEN = goldens.load("weights")
KERNEL = jnp.asarray(GOLDEN["kernel"])
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


@pytest.mark.parametrize("maker", weights.MAKERS)
def test_the_stored_numbers_are_those_of_the_installed_libraries(maker):
    for library in {"torch", "timm"} & {maker.split()[0]}:
        pytest.importorskip(library)
    importlib.import_module("flax")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        found = weights.MAKERS[maker](weights.inputs())
    for key, value in found.items():
        np.testing.assert_allclose(value, GOLDEN[key], **CLOSE, err_msg=key)


def test_the_file_names_what_it_was_made_with():
    assert set(goldens.versions("weights")) == set(weights.LIBRARIES)
    for key, value in weights.inputs().items():
        np.testing.assert_array_equal(value, GOLDEN[key])


def used_and_gradients(transform, params):
    def loss(kernel, params):
        y = transform.apply(params, {}, kernel, train=True)[0]
        return (y * GOLDEN["dy"]).sum(), y

    return jax.grad(loss, argnums=(0, 1), has_aux=True)(KERNEL, params)


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        ("weight_norm", WeightNorm()),
        (
            "standardised",
            WeightStandardisation(eps=1e-6, unbiased=False, eps_in_variance=True),
        ),
        ("scaled", ScaledWeightStandardisation(gamma=1.5, floor=0.0, eps=1e-6)),
    ],
)
def test_kernel_and_gradients_are_those_of_torch_and_timm(name, transform):
    params, _ = transform.init(jax.random.key(0), KERNEL)
    params = {key: jnp.asarray(GOLDEN["gain"]) for key in params}
    (of_kernel, of_params), y = used_and_gradients(transform, params)
    np.testing.assert_allclose(y, GOLDEN[f"{name}/used"], **CLOSE)
    np.testing.assert_allclose(of_kernel, GOLDEN[f"{name}/of_kernel"], rtol=1e-4, atol=1e-5)
    for leaf in of_params.values():
        np.testing.assert_allclose(leaf, GOLDEN[f"{name}/of_gain"], **CLOSE)


def test_the_first_gain_is_torchs_and_with_a_start_of_one_flaxs():
    params, _ = WeightNorm().init(jax.random.key(0), KERNEL)
    np.testing.assert_allclose(params["gain"], GOLDEN["weight_norm/first_gain"], rtol=1e-6)
    params, _ = WeightNorm(start=1.0).init(jax.random.key(0), KERNEL)
    np.testing.assert_array_equal(params["gain"], GOLDEN["flax/first_gain"])


def test_weight_norm_is_flaxs_for_the_same_gain():
    y, _ = WeightNorm().apply({"gain": jnp.asarray(GOLDEN["gain"])}, {}, KERNEL, train=True)
    np.testing.assert_allclose(y, GOLDEN["flax/weight_norm"], **CLOSE)


def trained(kernel, dy):
    """The kernels used in steps of gradient descent from torch's and flax's u, and the end."""
    transform, kernel = SpectralNorm(), jnp.asarray(kernel)
    state = {"u": jnp.asarray(GOLDEN["u"]), "v": jnp.zeros(kernel.size // 5)}

    @jax.jit
    def step(kernel, state):
        def loss(kernel):
            y, moved = transform.apply({}, state, kernel, train=True)
            return (y * dy).sum(), (y, moved)

        gradient, (y, moved) = jax.grad(loss, has_aux=True)(kernel)
        return kernel - weights.RATE * gradient, moved, y

    kernels = []
    for _ in range(weights.STEPS):
        kernel, state, y = step(kernel, state)
        kernels.append(y)
    evaluated, same = transform.apply({}, state, kernel, train=False)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    return np.stack([*kernels, evaluated]), state


def test_spectral_norm_is_torchs_over_steps_of_training_and_in_evaluation():
    found, state = trained(GOLDEN["matrix"], GOLDEN["dy_matrix"])
    np.testing.assert_allclose(found, GOLDEN["spectral_norm/torch"], rtol=1e-4, atol=1e-5)
    for key, vector in state.items():
        np.testing.assert_allclose(vector, GOLDEN[f"spectral_norm/{key}"], rtol=1e-4, atol=1e-5)


def test_spectral_norm_of_a_convolution_is_flaxs_over_steps_of_training():
    found, state = trained(GOLDEN["kernel"], GOLDEN["dy"])
    np.testing.assert_allclose(found[:-1], GOLDEN["flax/spectral_norm"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["u"], GOLDEN["flax/u"], rtol=1e-4, atol=1e-5)
