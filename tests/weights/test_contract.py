"""Every kernel transform keeps this contract; a new file in normlab/weights is held to it.

A new entry needs its equation in reference.py, and nothing else here.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.core import KERNEL_INVARIANCES, KernelFacts, kernel_transform
from normlab.errors import KernelError

from .conftest import NAMES, SHAPES, make, sample, started
from .reference import REFERENCES, expected, gradient, gradient_along

CENTRING = [name for name in NAMES if "unit shift" in make(name).facts.invariant_to]
SCALES = {"unit scale", "kernel scale"}
SCALE_FREE = [name for name in NAMES if SCALES & make(name).facts.invariant_to]
HAS_EPS = {"weight_standardisation", "scaled_weight_standardisation"}
"""They lose their kernel where it is small, which is what eps is for."""


KERNEL = jnp.asarray(sample(SHAPES[-1]))


def used(transform, params, state, kernel, train=False):
    return transform.apply(params, state, kernel, train=train)[0]


def test_every_entry_has_an_independent_reference():
    missing = sorted(set(NAMES) - set(REFERENCES))
    assert not missing, f"write the equations of {missing} in tests/weights/reference.py"
    assert set(REFERENCES) <= set(NAMES), "a reference without an entry"


def test_a_description_is_a_value_with_its_facts(transform):
    again = dataclasses.replace(transform)
    assert transform == again and hash(transform) == hash(again)
    for field in dataclasses.fields(transform):
        assert f"{field.name}=" in repr(transform)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(transform, field.name, None)
    assert isinstance(transform.facts, KernelFacts) and transform.facts.paper
    assert transform.facts.invariant_to <= KERNEL_INVARIANCES


def test_an_invariance_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="unknown invariances"):
        kernel_transform(paper="none", invariant_to=("scale",))


def test_init_depends_on_key_and_kernel_alone_and_is_float32(transform, kernel):
    first, again = (transform.init(jax.random.key(3), kernel) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert {leaf.dtype for leaf in jax.tree.leaves(first)} <= {jnp.dtype("float32")}


def test_the_kernel_that_is_used_is_that_of_the_reference(name, transform, kernel):
    params, state = started(transform, kernel)
    found = used(transform, params, state, kernel)
    wanted = expected(name, transform, params, state, np.asarray(kernel))
    np.testing.assert_allclose(found, wanted, rtol=3e-6, atol=3e-7)


def test_vjp_and_jvp_are_those_of_the_reference(name, transform, kernel):
    params, state = started(transform, kernel)
    dy, along = sample(kernel.shape, seed=5), sample(kernel.shape, seed=6)

    def loss(tree):
        rest = {key: value for key, value in tree.items() if key != "kernel"}
        return (dy * expected(name, transform, rest, state, tree["kernel"])).sum()

    wanted = gradient(loss, {"kernel": np.asarray(kernel), **jax.device_get(params)})
    of_kernel, of_params = jax.vjp(lambda k, p: used(transform, p, state, k), kernel, params)[1](
        jnp.asarray(dy)
    )
    for key, found in {"kernel": of_kernel, **of_params}.items():
        scale = np.abs(wanted[key]).max()
        np.testing.assert_allclose(found, wanted[key], rtol=1e-5, atol=3e-6 * scale, err_msg=key)
    _, tangent = jax.jvp(
        lambda k: used(transform, params, state, k), (kernel,), (jnp.asarray(along),)
    )
    terms = dy * np.asarray(tangent, np.float64)
    np.testing.assert_allclose(
        terms.sum(), (wanted["kernel"] * along).sum(), rtol=1e-5, atol=1e-5 * np.abs(terms).max()
    )


def test_hessian_vector_products_are_those_of_the_reference(name, transform):
    with jax.enable_x64(True):
        kernel = sample((2, 2, 3, 3), dtype=np.float64)
        params, state = started(transform, kernel)
        dy, along = (sample(kernel.shape, seed=s, dtype=np.float64) for s in (5, 6))

        def squared(k):
            return (dy * used(transform, params, state, k) ** 2).sum()

        def reference(k):
            return (dy * expected(name, transform, params, state, k) ** 2).sum()

        found = jax.jvp(jax.grad(squared), (jnp.asarray(kernel),), (jnp.asarray(along),))[1]
        wanted = gradient_along(reference, kernel, along)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_just_the_declared_invariances_hold(name, transform, kernel):
    params, state = started(transform, kernel)
    before = used(transform, params, state, kernel)
    factors, offsets = sample(5, mean=2, std=0.2), sample(5, mean=-0.5, std=0.2)
    ones = (1,) * (kernel.ndim - 1)
    changed = {
        "unit scale": kernel * factors.reshape(*ones, 5),
        "unit shift": kernel + offsets.reshape(*ones, 5),
        "kernel scale": kernel * 3,
        "kernel shift": kernel + 0.7,
    }
    declared = transform.facts.invariant_to
    for change, other in changed.items():
        holds = np.allclose(used(transform, params, state, other), before, rtol=1e-4, atol=1e-4)
        assert holds == (change in declared or change.replace("kernel", "unit") in declared), change


def test_evaluation_leaves_the_state_alone_and_training_keeps_its_structure(transform, kernel):
    params, state = started(transform, kernel)
    _, same = transform.apply(params, state, kernel, train=False)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    _, moved = transform.apply(params, state, kernel, train=True)
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, state)


def test_jit_vmap_and_scan_give_the_eager_result(transform):
    kernel = KERNEL
    params, state = started(transform, kernel)
    kernels = jnp.stack([kernel, kernel * 2 + 1, kernel[..., ::-1]])

    def step(state, k):
        y, moved = transform.apply(params, state, k, train=True)
        return moved, y

    eager, states, carried = [], [], state
    for k in kernels:
        states.append(carried)
        carried, y = step(carried, k)
        eager.append(y)
    close = {"rtol": 2e-6, "atol": 2e-6}
    found, ys = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(state, kernels)
    np.testing.assert_allclose(ys, jnp.stack(eager), **close)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), found, carried)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    np.testing.assert_allclose(jax.vmap(step)(stacked, kernels)[1], jnp.stack(eager), **close)


def test_state_and_kernel_can_be_donated(transform):
    kernel = KERNEL
    params, state = started(transform, kernel)
    wanted, moved = transform.apply(params, state, kernel, train=True)
    donating = jax.jit(
        lambda s, k: transform.apply(params, s, k, train=True), donate_argnums=(0, 1)
    )
    found, kept = donating(jax.tree.map(jnp.copy, state), jnp.copy(kernel))
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6), kept, moved)


def test_a_bfloat16_kernel_is_transformed_in_float32_and_rounded_once(transform):
    narrow = KERNEL.astype("bfloat16")
    params, state = started(transform, narrow)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} <= {jnp.dtype("float32")}
    found, moved = transform.apply(params, state, narrow, train=True)
    wanted, _ = transform.apply(params, state, narrow.astype(jnp.float32), train=True)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, wanted.astype("bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} <= {jnp.dtype("float32")}


@pytest.mark.parametrize("value", [0.0, -3.7e7])
def test_a_constant_kernel_gives_numbers_and_so_does_its_gradient(name, transform, value):
    kernel = jnp.full((3, 3, 4, 5), value)
    params, state = transform.init(jax.random.key(0), kernel)

    @jax.jit
    def both(k, p):
        def loss(k, p):
            y, moved = transform.apply(p, state, k, train=True)
            return (y * sample(y.shape)).sum(), (y, moved)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(k, p)

    grads, (y, moved) = both(kernel, params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, y, moved)))
    if value == 0 or name in CENTRING:
        np.testing.assert_array_equal(y, np.zeros_like(y))


def test_a_transform_goes_on_after_a_kernel_of_zeros(transform):
    kernel = KERNEL
    params, state = started(transform, kernel)
    _, after = transform.apply(params, state, jnp.zeros_like(kernel), train=True)
    y, _ = transform.apply(params, after, kernel, train=True)
    wanted, _ = transform.apply(params, state, kernel, train=True)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CENTRING)
@pytest.mark.parametrize(("mean", "std"), [(1e4, 1e-2), (1e6, 1.0), (-1e3, 1e-3)])
def test_a_large_mean_costs_no_digits(name, mean, std):
    transform, kernel = make(name), sample((3, 3, 8, 5), mean=mean, std=std)
    params, state = started(transform, kernel)
    found = used(transform, params, state, jnp.asarray(kernel))
    wanted = expected(name, transform, params, state, kernel)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("name", sorted(set(SCALE_FREE) - HAS_EPS))
@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_no_scale_of_the_kernel_is_too_small_or_too_large(name, factor):
    transform, kernel = make(name), jnp.asarray(sample((3, 3, 4, 5)))
    params, state = started(transform, kernel)
    wanted = used(transform, params, state, kernel, train=True)
    found = used(transform, params, state, kernel * factor, train=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CENTRING)
def test_a_unit_of_one_number_has_no_mean_to_take(name):
    transform, kernel = make(name), jnp.ones((1, 1, 1, 4))
    with pytest.raises(KernelError, match=r"\(1, 1, 1, 4\).*one number for each output"):
        transform.apply(*transform.init(jax.random.key(0), kernel), kernel, train=True)


@pytest.mark.parametrize("kernel", [jnp.ones((3, 3), jnp.int32), jnp.ones((3,))], ids=str)
def test_what_is_no_kernel_is_refused(transform, kernel):
    with pytest.raises(KernelError, match="needs floating-point numbers"):
        transform.init(jax.random.key(0), kernel)
        transform.apply({"gain": jnp.ones(3)}, {}, kernel, train=True)
