"""Every entry of the catalogue under jax's transformations: the same numbers, and true derivatives.

Derivatives are held against those of the float64 equations in reference.py.
"""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import snake_case
from normlab.errors import ShapeError
from tests.shared.thorough import mostly_thorough

from .conftest import NAMES, assert_trees_close, make, sample, with_values
from .reference import REFERENCES, expected, gradient, gradient_along

FEW = ["batch_norm", "group_norm", "decorrelated_batch_norm"]

SHAPE = (4, 3, 5, 16)
SMALL = (4, 2, 2, 16)
"""Small enough to differentiate the reference by each of its elements."""
TIGHT = {"rtol": 2e-6, "atol": 2e-6}
CONDITION = {"decorrelated_batch_norm": 20, "mode_norm": 10}
"""How much of float32 the entry itself loses: to the root of a matrix whose eigenvalues lie far
apart, and to a softmax of sums."""
DETACHED = {"batch_renorm", "population_norm"}
"""Their second derivatives hold statistics fixed, which differences of gradients do not."""


def tight(norm):
    factor = CONDITION.get(snake_case(type(norm).__name__), 1)
    return {key: factor * value for key, value in TIGHT.items()}


@pytest.fixture
def setup(norm):
    params, state = norm.init(16)
    return with_values(params), state, jnp.asarray(sample((3, *SHAPE), mean=1, std=2))


def apply(norm, params, state, x, train=True):
    return norm.apply(params, state, x, train=train)


@pytest.mark.parametrize("train", [True, False])
def test_jit_and_vmap_give_the_eager_result(norm, setup, train):
    params, state, xs = setup
    call = partial(apply, norm, params, state, train=train)
    eager = [call(x) for x in xs]
    compiled = jax.jit(call)
    for x, one in zip(xs, eager, strict=True):
        assert_trees_close(compiled(x), one, **tight(norm), err_msg="jit")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *eager)
    shared = None if not train else 0
    mapped = jax.vmap(call, out_axes=(0, shared))(xs)
    if shared is None:
        stacked = (stacked[0], state)
    assert_trees_close(mapped, stacked, **tight(norm), err_msg="vmap")


def test_scan_carries_the_state_as_a_loop_does(norm, setup):
    params, state, xs = setup
    carried, ys = jax.lax.scan(lambda s, x: apply(norm, params, s, x)[::-1], state, xs)
    for x, y in zip(xs, ys, strict=True):
        eager, state = apply(norm, params, state, x)
        np.testing.assert_allclose(y, eager, **tight(norm))
    assert_trees_close(carried, state, **tight(norm))


@pytest.mark.parametrize("name", mostly_thorough(NAMES, FEW))
def test_recomputation_changes_no_output_no_gradient_and_moves_the_state_once(norm, setup):
    params, state, xs = setup

    def loss(forward, params, x):
        y, moved = forward(params, state, x)
        return (y**3).sum(), (y, moved)

    plain, factor = partial(apply, norm), tight(norm)["rtol"] / TIGHT["rtol"]
    once, again = (
        jax.jit(jax.value_and_grad(partial(loss, f), argnums=(0, 1), has_aux=True))(params, xs[0])
        for f in (plain, jax.checkpoint(plain))
    )
    summed = float(jnp.abs(once[0][1][0] ** 3).sum())  # by the loss, and by gradients of gates
    assert_trees_close(again, once, rtol=tight(norm)["rtol"], atol=5e-8 * summed * factor)
    assert_trees_close(again[0][1], apply(norm, params, state, xs[0]), **tight(norm))


def test_the_state_keeps_its_structure_and_may_be_donated(norm, setup):
    params, state, xs = setup
    shapes = jax.eval_shape(partial(apply, norm), params, state, xs[0])
    given = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (xs[0], state))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == given
    kept = apply(norm, params, apply(norm, params, state, xs[0])[1], xs[1])
    kept = jax.tree.map(jnp.copy, kept)  # a state that stood still is the one donated below

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, x):
        y, state = apply(norm, params, state, x)
        return params, state, y

    # Donating fails where two leaves of `init` are one buffer.
    first = step(params, state, xs[0])
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    _, state, y = step(*first[:2], xs[1])
    assert_trees_close((y, state), kept, **tight(norm))


def test_forward_and_reverse_derivatives_agree(norm, setup):
    if norm.facts.backward_state:
        pytest.skip("its backward is its own, and there is no forward derivative")
    params, state, xs = setup
    v, dy = jnp.asarray(sample(SHAPE, seed=5)), jnp.asarray(sample(SHAPE, seed=6))

    @jax.jit
    def both(x):
        def call(x):
            return apply(norm, params, state, x)[0]

        return jax.jvp(call, (x,), (v,))[1], jax.vjp(call, x)[1](dy)[0]

    tangent, cotangent = both(xs[0])
    assert float((tangent * dy).sum()) == pytest.approx(
        float((cotangent * v).sum()), rel=2e-5, abs=2e-5
    )


def relative_error(found, true):
    true = np.asarray(true)
    if not true.size:
        return 0.0
    largest = np.abs(true).max()
    return np.abs(np.asarray(found, np.float64) - true).max() / (largest if largest else 1.0)


@partial(jax.jit, static_argnums=0)
def pulled_back(norm, params, state, x, dy):
    """The gradients of parameters and input, of the cotangent `dy`."""
    return jax.vjp(lambda p, x: apply(norm, p, state, x)[0], params, x)[1](dy)


@pytest.mark.usefixtures("as_users_compile")
@pytest.mark.parametrize("mean", [1.0, 1e4])
@pytest.mark.parametrize("name", REFERENCES)
def test_gradients_are_those_of_the_equation(name, mean):
    norm = make(name)
    if name == "online_norm":
        pytest.skip("its backward is not a derivative: see test_backward_state.py")
    if mean > 1 and name == "mode_norm":
        pytest.skip("its gates are decided by the mean, whose last digit then counts")
    params, state = norm.init(16)
    params = with_values(params)
    x, dy = sample(SMALL, mean, 2), sample(SMALL, seed=5)
    d_params, d_x = pulled_back(norm, params, state, x, dy)

    def loss(tree):
        return (expected(name, norm, tree, tree["x"]) * dy).sum()

    true = gradient(loss, {"x": x, **{k: np.asarray(v) for k, v in params.items()}})
    for key, found in {"x": d_x, **d_params}.items():
        assert relative_error(found, true[key]) < tight(norm)["rtol"], key


@pytest.mark.usefixtures("as_users_compile")
@pytest.mark.parametrize("name", mostly_thorough(REFERENCES, FEW))
def test_second_derivatives_are_those_of_the_equation(name):
    """Hessian-vector products by both routes: what a probe of sharpness computes."""
    norm = make(name)
    if norm.facts.backward_state:
        pytest.skip("its backward holds statistics fixed: see test_backward_state.py")
    params, state = norm.init(16)
    params = with_values(params)
    x, v, w = sample(SMALL, 1, 2), sample(SMALL, seed=5), sample(SMALL, seed=6)

    def loss(x):
        return (apply(norm, params, state, x)[0] ** 3 * w).sum()

    slope = jax.grad(loss)

    @jax.jit
    def by_both_routes(x, v):
        return jax.jvp(slope, (x,), (v,))[1], jax.grad(lambda x: (slope(x) * v).sum())(x)

    forward_over_reverse, reverse_over_reverse = by_both_routes(x, v)
    close = 2.5 * tight(norm)["rtol"]
    if name in DETACHED:
        assert relative_error(forward_over_reverse, reverse_over_reverse) < close
        return
    true = gradient_along(lambda x: (expected(name, norm, params, x) ** 3 * w).sum(), x, v)
    assert relative_error(forward_over_reverse, true) < close
    assert relative_error(reverse_over_reverse, true) < close


EXPORTED = ["batch_norm", "group_norm", "instance_norm", "layer_norm_image"]


@pytest.mark.parametrize(
    "name", mostly_thorough([one for one in NAMES if one != "split_batch_norm"], EXPORTED)
)
def test_a_program_is_exported_for_images_of_any_size(name):
    norm = make(name, groups=2)
    params, state = norm.init(8)

    def call(x):
        return norm.apply(params, state, x, train=True)[0]

    at_least_two = ["b >= 2", "h >= 2", "w >= 2"]
    shape = jax.export.symbolic_shape("b, h, w, 8", constraints=at_least_two)
    exported = jax.export.export(jax.jit(call))(jax.ShapeDtypeStruct(shape, jnp.float32))
    for sizes in ((2, 3, 2), (4, 5, 6)):
        x = jnp.asarray(sample((*sizes, 8), 5, 2))
        np.testing.assert_allclose(exported.call(x), call(x), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_exported_says_why():
    norm = make("split_batch_norm")
    params, state = norm.init(8)
    shape = jax.export.symbolic_shape("b, h, w, 8")
    call = jax.jit(lambda x: norm.apply(params, state, x, train=True)[0])
    with pytest.raises(ShapeError, match="b examples cannot be split into 2 equal parts"):
        jax.export.export(call)(jax.ShapeDtypeStruct(shape, jnp.float32))
