"""What every entry of the catalogue keeps; a new file in normlab/norms is held to it by itself."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import snake_case
from normlab.core import Facts
from normlab.norms.moments import ShapeError

from .conftest import NAMES, make, removes_the_mean, sample, with_values
from .reference import REFERENCES

SHAPES = [(6, 16), (4, 5, 16), (4, 3, 5, 16)]
SPATIAL = (4, 3, 5, 16)


def fits(norm, shape):
    return len(shape) > 2 or type(norm).__name__ != "InstanceNorm"


def apply(norm, params, state, x, train=True, mask=None):
    return norm.apply(params, state, x, train=train, mask=mask)


def output(norm, params, state, x, mask=None):
    return apply(norm, params, state, x, mask=mask)[0]


def expected(norm, params, x, mask=None):
    z = REFERENCES[snake_case(type(norm).__name__)](x, norm, mask)
    y = z * np.asarray(params.get("scale", 1.0)) + np.asarray(params.get("bias", 0.0))
    return y if mask is None else np.where(np.broadcast_to(mask, x.shape), y, 0)


def test_every_entry_has_an_independent_reference():
    assert set(REFERENCES) == set(NAMES), "write the equation of the new entry in reference.py"


def test_a_description_is_a_value(norm):
    again = type(norm)()
    assert norm == again and hash(norm) == hash(again) and type(norm).__name__ in repr(norm)
    assert isinstance(norm.facts, Facts) and norm.facts.paper
    for field in dataclasses.fields(norm):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(norm, field.name, None)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_is_the_equation_in_the_inputs_dtype(norm, shape, dtype):
    if not fits(norm, shape):
        pytest.skip("instance normalisation needs positions")
    x = jnp.asarray(sample(shape, mean=2, std=3)).astype(dtype)
    params, state = norm.init(16)
    params = with_values(params)
    y = output(norm, params, state, x)
    assert y.shape == x.shape and y.dtype == x.dtype
    true = expected(norm, params, np.asarray(x, np.float64))
    tolerance = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[dtype]
    np.testing.assert_allclose(np.asarray(y, np.float64), true, rtol=tolerance, atol=tolerance)


def test_jit_vmap_scan_and_remat_give_the_eager_result(norm):
    params, state = norm.init(16)
    params = with_values(params)
    xs = jnp.asarray(sample((3, *SPATIAL)))
    call = partial(output, norm, params, state)
    eager = jnp.stack([call(x) for x in xs])
    results = {
        "jit": jnp.stack([jax.jit(call)(x) for x in xs]),
        "vmap": jax.vmap(call)(xs),
        "scan": jax.lax.scan(lambda carry, x: (carry, call(x)), 0, xs)[1],
        "remat": jnp.stack([jax.checkpoint(call)(x) for x in xs]),
    }
    for name, result in results.items():
        np.testing.assert_allclose(result, eager, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_state_keeps_its_structure(norm):
    params, state = norm.init(16)
    _, moved = jax.jit(partial(apply, norm))(params, state, jnp.asarray(sample(SPATIAL)))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), moved) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )
    shapes = jax.eval_shape(partial(apply, norm), params, state, jnp.asarray(sample(SPATIAL)))
    assert shapes[0].shape == SPATIAL


def test_gradients_are_those_of_the_equation(norm):
    """Against central differences of the float64 reference, in every argument at once."""
    shape = (3, 2, 2, 8)
    x, dy = sample(shape, 1, 2), sample(shape, seed=5)
    params, state = norm.init(8)
    params = with_values(params)
    _, vjp = jax.vjp(lambda p, x: output(norm, p, state, x), params, jnp.asarray(x))
    d_params, d_x = vjp(jnp.asarray(dy))

    def loss(params, x):
        return float((expected(norm, params, x) * dy).sum())

    rng = np.random.default_rng(7)
    for _ in range(5):
        v = rng.standard_normal(shape)
        w = {k: rng.standard_normal(p.shape) for k, p in params.items()}
        numeric = {}
        for sign in (1, -1):
            h = sign * 1e-5
            shifted = {k: np.asarray(p, np.float64) + h * w[k] for k, p in params.items()}
            numeric[sign] = loss(shifted, x.astype(np.float64) + h * v)
        slope = (numeric[1] - numeric[-1]) / 2e-5
        found = float((np.asarray(d_x) * v).sum())
        found += sum(float((np.asarray(d_params[k]) * w[k]).sum()) for k in params)
        assert found == pytest.approx(slope, rel=2e-4, abs=2e-4)


def test_forward_and_reverse_derivatives_agree_and_a_second_one_exists(norm):
    x, v, dy = (jnp.asarray(sample(SPATIAL, seed=s)) for s in (0, 1, 2))
    params, state = norm.init(16)
    call = partial(output, norm, with_values(params), state)
    _, tangent = jax.jvp(call, (x,), (v,))
    (cotangent,) = jax.vjp(call, x)[1](dy)
    forward, reverse = float((tangent * dy).sum()), float((cotangent * v).sum())
    assert forward == pytest.approx(reverse, rel=1e-3, abs=1e-3)

    def loss(x):
        return (call(x) ** 3).sum()

    forward_over_reverse = jax.jvp(jax.grad(loss), (x,), (v,))[1]
    reverse_over_reverse = jax.grad(lambda x: (jax.grad(loss)(x) * v).sum())(x)
    np.testing.assert_allclose(forward_over_reverse, reverse_over_reverse, rtol=1e-3, atol=1e-3)
    h = 1e-2
    difference = (jax.grad(loss)(x + h * v) - jax.grad(loss)(x - h * v)) / (2 * h)
    scale = float(jnp.abs(difference).max())
    np.testing.assert_allclose(forward_over_reverse, difference, atol=0.02 * scale + 1e-3)


@pytest.mark.parametrize("constant", [0.0, 1.0, -3.7, 0.1, 1e4, 1e6, -123456.7, 1e30, 1e-30])
@pytest.mark.parametrize("name", [n for n in NAMES if removes_the_mean(make(n))])
def test_a_constant_gives_exactly_the_bias(name, constant):
    norm = make(name)
    params, state = norm.init(16)
    params = with_values(params)
    x = jnp.full(SPATIAL, constant, jnp.float32)
    want = jnp.broadcast_to(params["bias"].reshape(1, 1, 1, -1), SPATIAL)
    masks = [None, jnp.asarray(sample((4, 3, 5, 1)) > 0)]
    for mask in masks:
        y = jax.jit(partial(output, norm))(params, state, x, mask)
        kept = want if mask is None else jnp.where(mask, want, 0)
        np.testing.assert_array_equal(y, kept)


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30, -1e4])
@pytest.mark.parametrize("mask_shape", [(4, 3, 5, 1), (4, 1, 1, 1), (1, 3, 1, 1), SPATIAL], ids=str)
def test_masked_elements_count_for_nothing(norm, mask_shape, junk):
    rng = np.random.default_rng(3)
    mask = rng.random(mask_shape) < 0.7
    x = sample(SPATIAL, mean=3)
    params, state = norm.init(16)
    params = with_values(params)
    full = np.broadcast_to(mask, SPATIAL)
    spoilt = jnp.asarray(np.where(full, x, junk).astype(np.float32))
    y, moved = apply(norm, params, state, spoilt, mask=jnp.asarray(mask))
    np.testing.assert_allclose(y, expected(norm, params, x, mask), rtol=1e-5, atol=1e-5)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(moved))

    def loss(x):
        return (output(norm, params, state, x, mask=jnp.asarray(mask)) ** 2).sum()

    gradient = np.asarray(jax.grad(loss)(spoilt))
    assert np.isfinite(gradient).all() and (gradient[~full] == 0).all()
    clean = np.asarray(jax.grad(loss)(jnp.asarray(np.where(full, x, 0).astype(np.float32))))
    np.testing.assert_allclose(gradient, clean, rtol=1e-5, atol=1e-5)


def test_padding_tokens_changes_nothing(norm):
    """Examples of different lengths, padded to one: each valid token as without the padding."""
    x, longer = sample((3, 4, 16)), sample((3, 9, 16), mean=50)
    longer[:, :4] = x
    params, state = norm.init(16)
    mask = jnp.asarray((np.arange(9) < 4).reshape(1, 9, 1))
    padded = output(norm, params, state, jnp.asarray(longer), mask)
    alone = output(norm, params, state, jnp.asarray(x))
    np.testing.assert_allclose(padded[:, :4], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 16), (4,), (3, 5, 16), (4, 3, 5, 7), (2, 3, 5, 1)], ids=str)
def test_a_mask_that_does_not_fit_is_refused(norm, shape):
    params, state = norm.init(16)
    with pytest.raises(ShapeError, match="mask"):
        apply(norm, params, state, jnp.ones(SPATIAL), mask=jnp.ones(shape, bool))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "identity"])
def test_whole_numbers_are_refused(name):
    norm = make(name)
    params, state = norm.init(16)
    with pytest.raises(ShapeError, match="floating"):
        apply(norm, params, state, jnp.ones(SPATIAL, jnp.int32))


def _changes(change, shape):
    """A random positive factor or an offset for each unit of the declared kind."""
    unit, what = change.split()
    units = {"channel": (1, 1, 1, shape[-1]), "example": (shape[0], 1, 1, 1)}
    rng = np.random.default_rng(11)
    drawn = rng.uniform(0.5, 4, units.get(unit, (*shape[:-1], 1))).astype(np.float32)
    return (drawn, 0.0) if what == "scale" else (1.0, drawn)


@pytest.mark.parametrize(
    ("name", "change"), [(n, c) for n in NAMES for c in sorted(make(n).facts.invariant_to)]
)
def test_declared_invariances_hold(name, change):
    norm = dataclasses.replace(make(name), eps=1e-12)
    params, state = norm.init(16)
    x = sample(SPATIAL)
    factor, offset = _changes(change, SPATIAL)
    before = output(norm, params, state, jnp.asarray(x))
    after = output(norm, params, state, jnp.asarray(x * factor + offset))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_examples_meet_only_where_facts_say_so(norm):
    params, state = norm.init(16)
    x = sample(SPATIAL)
    other = x.copy()
    other[1:] = 7 * other[1:] + 3
    first = [output(norm, params, state, jnp.asarray(a))[0] for a in (x, other)]
    assert bool((first[0] == first[1]).all()) != norm.facts.uses_batch
    in_evaluation = [
        apply(norm, params, state, jnp.asarray(a), train=False)[0][0] for a in (x, other)
    ]
    np.testing.assert_array_equal(*in_evaluation)


@pytest.mark.parametrize("name", [n for n in NAMES if removes_the_mean(make(n))])
def test_one_value_a_statistic_is_refused_with_a_reason(name):
    norm = dataclasses.replace(make(name), groups=1) if name == "group_norm" else make(name)
    params, state = norm.init(1)
    with pytest.raises(ShapeError, match="one value"):
        apply(norm, params, state, jnp.ones((1, 1, 1, 1)))
