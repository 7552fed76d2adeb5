"""Every entry of the catalogue keeps this contract; a new file in normlab/norms is held to it.

Its derivatives and its behaviour under jax's transformations are in test_transformations.py, its
masks in test_masks.py. A new entry needs its equation in reference.py, and nothing else here.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.core import INVARIANCES, Facts
from normlab.ops.moments import ShapeError
from tests.shared.thorough import mostly_thorough

from .conftest import CENTRING, NAMES, UNIT, make, sample, with_values
from .reference import REFERENCES, expected, per_example

pytestmark = pytest.mark.usefixtures("as_users_compile")

SHAPES = [(6, 16), (4, 5, 16), (4, 3, 5, 16)]
SPATIAL = (4, 3, 5, 16)
REFERENCED = [name for name in NAMES if name in REFERENCES]


@partial(jax.jit, static_argnames=("norm", "train"))
def output(norm, params, state, x, train=True, mask=None):
    return norm.apply(params, state, x, train=train, mask=mask)[0]


def test_every_entry_has_an_independent_reference():
    missing = sorted(set(NAMES) - set(REFERENCES))
    assert not missing, f"write the equations of {missing} in tests/norms/reference.py"
    assert set(REFERENCES) <= set(NAMES), "a reference without an entry"


def test_a_description_is_a_value(norm):
    again = dataclasses.replace(norm)
    assert norm == again and hash(norm) == hash(again) and type(norm).__name__ in repr(norm)
    for field in dataclasses.fields(norm):
        assert f"{field.name}=" in repr(norm)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(norm, field.name, None)


def test_another_field_is_another_value(norm):
    numbers = [f.name for f in dataclasses.fields(norm) if isinstance(getattr(norm, f.name), float)]
    for field in numbers:
        other = dataclasses.replace(norm, **{field: getattr(norm, field) / 2})
        assert other != norm and repr(other) != repr(norm)


def test_facts_are_stated(norm):
    assert isinstance(norm.facts, Facts) and norm.facts.paper
    assert norm.facts.invariant_to <= INVARIANCES


def test_init_is_float32_numbers_the_same_each_time(norm):
    first, again = norm.init(16), norm.init(16)
    for name in ("scale", "bias", "mean", "variance"):
        leaf = {**first[0], **first[1]}.get(name)
        assert leaf is None or leaf.shape in {(16,), ()} or leaf.shape[1:] == (16,)
    assert {leaf.dtype for leaf in jax.tree.leaves(first)} <= {jnp.dtype("float32")}
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, again))


@pytest.mark.parametrize(
    "dtype", mostly_thorough(["float32", "float16", "bfloat16"], ["float32", "bfloat16"])
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REFERENCED)
def test_output_is_the_equation_in_the_inputs_dtype(name, shape, dtype):
    norm = make(name)
    x = jnp.asarray(sample(shape, mean=2, std=3)).astype(dtype)
    params, state = norm.init(16)
    params = with_values(params)
    try:
        y = output(norm, params, state, x)
    except ShapeError as error:
        assert len(shape) == 2 and "one value" in str(error)
        pytest.skip("needs positions, and says so")
    assert y.shape == x.shape and y.dtype == x.dtype
    true = expected(name, norm, params, np.asarray(x, np.float64))
    tolerance = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[dtype]
    if name == "decorrelated_batch_norm":  # six values of four channels: eigenvalues far apart
        tolerance = max(tolerance, 5e-5)
    np.testing.assert_allclose(np.asarray(y, np.float64), true, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", REFERENCED)
def test_wide_input_is_not_narrowed(name):
    norm = make(name)
    with jax.enable_x64(True):
        x = jnp.asarray(sample(SPATIAL, mean=3, dtype=np.float64))
        params, state = norm.init(16)
        y = output(norm, params, state, x)
        assert y.dtype == jnp.float64
        true = expected(name, norm, params, np.asarray(x))
        # What normalises by a running statistic has one that is kept in float32.
        tolerance = 1e-6 if name == "population_norm" else 1e-12
        np.testing.assert_allclose(y, true, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mean", [30, -100])
@pytest.mark.parametrize("name", UNIT)
def test_narrow_input_has_float32_statistics(name, mean):
    """The mean square in bfloat16, whose step near 100 is 0.5, would have no digit left."""
    norm = make(name)
    x = jnp.asarray(sample((16, 8, 8, 32), mean)).astype(jnp.bfloat16)
    y = output(norm, *norm.init(32), x)
    assert float(np.asarray(y, np.float64).std()) == pytest.approx(1, abs=0.01)
    assert float(np.asarray(y, np.float64).mean()) == pytest.approx(0, abs=0.003)


@pytest.mark.parametrize(
    "constant", [0.0, 1.0, -3.7, 0.1, 1e4, 1e6, -123456.7, 1e30, 1e-30, -3e38, 1e-42]
)
@pytest.mark.parametrize("name", CENTRING)
def test_a_constant_gives_exactly_the_bias(name, constant):
    norm = make(name)
    params, state = norm.init(16)
    params = with_values(params)
    x = jnp.full(SPATIAL, constant, jnp.float32)
    biases = per_example(name, params, "bias", 0.0, np.empty(SPATIAL)).astype(np.float32)
    want = jnp.broadcast_to(biases, SPATIAL)
    for mask in (None, jnp.asarray(sample((4, 3, 5, 1)) > 0)):
        y = output(norm, params, state, x, mask=mask)
        np.testing.assert_array_equal(y, want if mask is None else jnp.where(mask, want, 0))


def test_whole_numbers_are_refused(norm):
    with pytest.raises(ShapeError, match="floating"):
        output(norm, *norm.init(16), jnp.ones(SPATIAL, jnp.int32))


@pytest.mark.parametrize("name", CENTRING)
def test_one_value_a_statistic_is_refused_with_a_reason(name):
    norm = make(name, groups=1, domains=1)
    with pytest.raises(ShapeError, match="one value"):
        output(norm, *norm.init(1), jnp.ones((1, 1, 1, 1)))


def changed(x, change):
    """`x` with a random positive factor or an offset for each unit of the declared kind."""
    unit, what = change.split()
    units = {"channel": (1, 1, 1, x.shape[-1]), "example": (x.shape[0], 1, 1, 1)}
    rng = np.random.default_rng(11)
    drawn = rng.uniform(0.5, 4, units.get(unit, (*x.shape[:-1], 1))).astype(np.float32)
    return x * drawn if what == "scale" else x + drawn


UNDECLARED = {
    "averaged_batch_norm": ("channel", "only the first step is normalised by its own statistics"),
    "mode_norm": ("channel", "its gates see the change, but mix modes that hardly differ at first"),
    "moving_average_batch_norm": ("channel", "only its warm-up uses the batch's own statistics"),
    "online_norm": ("scale", "its averages have hardly moved from zero and one at first"),
    "population_norm": ("channel", "only the first step is normalised by its own statistics"),
    "seed_norm": ("scale", "beta is zero at first, and what comes in does not matter then"),
    "taper_norm": ("scale", "it is RMS normalisation until it fades"),
    "power_norm": ("channel", "only its warm-up uses the batch's own statistics"),
}


@pytest.mark.parametrize("change", sorted(INVARIANCES))
@pytest.mark.parametrize("name", NAMES)
def test_invariances_are_those_declared_and_no_others(name, change):
    norm = make(name, eps=1e-12)
    x = sample(SPATIAL)
    before = output(norm, *norm.init(16), jnp.asarray(x))
    after = output(norm, *norm.init(16), jnp.asarray(changed(x, change)))
    # A change of each position holds that of each example: the same for all its positions.
    implying = {change, change.replace("example", "position")}
    if implying & norm.facts.invariant_to:
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    elif name not in UNDECLARED or UNDECLARED[name][0] not in change:
        assert float(jnp.abs(after - before).max()) > 0.1


def test_examples_meet_only_where_facts_say_so(norm):
    params, state = norm.init(16)
    x = sample(SPATIAL)
    other = x.copy()
    other[:-1] = 7 * other[:-1] + 3  # those before the last, for what goes from one to the next
    first, second = (output(norm, params, state, jnp.asarray(a))[-1] for a in (x, other))
    assert bool((first == second).all()) != norm.facts.uses_batch
    first, second = (output(norm, params, state, jnp.asarray(a), False)[-1] for a in (x, other))
    np.testing.assert_array_equal(first, second)


def test_what_is_the_identity_says_so(norm):
    x = jnp.asarray(sample(SPATIAL, mean=2, std=3))
    params, state = norm.init(16)
    params = with_values(params)
    same = [bool((output(norm, params, state, x, train=train) == x).all()) for train in (1, 0)]
    assert all(same) == norm.facts.identity


LINEAR_IN_EPS = [name for name in NAMES if make(name).facts.eps_is != "in the root"]
KEEPS_SIZE = {"global_response_norm"}
BY_OTHER_LAWS = {"batch_renorm", "evo_norm_b0", "mode_norm", "online_norm"}
BY_OTHER_LAWS |= {"progressive_batch_norm", "seed_norm"}
BY_OTHER_LAWS |= {name for name in NAMES if name.startswith("normality")}
"""Their output for a first batch depends on the size of the input in other ways too."""


@pytest.mark.parametrize(
    "name", [n for n in NAMES if hasattr(make(n), "eps") and n not in BY_OTHER_LAWS]
)
def test_eps_has_the_unit_that_facts_say(name):
    """In the root eps goes with the square of the input, elsewhere with the input itself."""

    def response(factor, eps):
        norm = dataclasses.replace(make(name), eps=eps)
        params, state = norm.init(16)
        params = {**with_values(params), **({"v": params["v"] / factor} if "v" in params else {})}
        powers = {"mean": factor, "variance": factor**2}
        state = {key: leaf * powers.get(key, 1.0) for key, leaf in state.items()}
        y = output(norm, params, state, factor * jnp.asarray(sample(SPATIAL, mean=0.5)))
        bias = np.asarray(params["bias"]) if name in KEEPS_SIZE else 0.0
        return (np.asarray(y, np.float64) - bias) / (factor if name in KEEPS_SIZE else 1)

    eps = 20.0 if name == "scale_norm" else 0.25  # its limit is one of whole vectors
    power = 1 if name in LINEAR_IN_EPS else 2
    true = response(1.0, eps)
    np.testing.assert_allclose(response(4.0, 4.0**power * eps), true, rtol=2e-4, atol=2e-5)
    assert np.abs(response(4.0, 4.0 ** (3 - power) * eps) - true).max() > 1e-3
