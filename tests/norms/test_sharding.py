"""Every entry gives on a mesh what it gives on one device: outputs, states and gradients.

Explicit axes (`jax.make_mesh` makes them today) and automatic ones, with the batch, the channels or
both spread, and `shard_map`. What is compared to is the same entry on one device, which the other
files of this folder hold to its equation.
"""

import dataclasses
import importlib
import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from normlab.catalogue import KERNELS, NORMS
from normlab.errors import UserError
from tests.shared.thorough import mostly_thorough

from .conftest import NAMES, make, sample, with_values

FEW = ["batch_norm", "group_norm", "online_norm"]
SHAPE, CHANNELS = (4, 4, 3, 16), 16
LAYOUTS = {
    "batch": P("four"),
    "batch and channels": P("two", None, None, "four"),
    "positions and channels": P(None, "two", None, "four"),
}
GROUPS = 2  # of eight channels, each over two devices
TOLERANCE = {"mode_norm": 5e-5, "proxy_group_norm": 5e-6, "scale_norm": 1e-5}
"""Relative to the largest of an array. The gradients of mode_norm's gates, of scale_norm's one
scale and of a proxy's parameters are small differences of large sums, which are summed in another
order here. In float64 they differ by no more than its rounding, which a test below shows."""


def mesh_of(kind):
    return jax.make_mesh((4, 2), ("four", "two"), axis_types=(kind,) * 2)


EXPLICIT, AUTO = mesh_of(AxisType.Explicit), mesh_of(AxisType.Auto)


def place(mesh, spec, tree):
    """Spread arrays with the channels last as the input's channels; leave the rest whole."""

    def put(leaf):
        if leaf.ndim == len(SHAPE):
            whole = (*spec, *(None,) * (leaf.ndim - len(spec)))
            own = P(*(None if n == 1 else s for n, s in zip(leaf.shape, whole, strict=True)))
        elif leaf.ndim and leaf.shape[-1] == CHANNELS and len(spec) == len(SHAPE):
            own = P(*(None,) * (leaf.ndim - 1), spec[-1])
        else:
            own = P()
        return jax.device_put(leaf, NamedSharding(mesh, own))

    return jax.tree.map(put, tree)


def step(norm, train, params, state, x, mask, dy):
    """Output, next state, and the gradients of parameters and input."""

    def call(params, x):
        return norm.apply(params, state, x, train=train, mask=mask)

    y, pull, moved = jax.vjp(call, params, x, has_aux=True)
    return y, moved, pull(dy)


def arguments(norm, dtype=jnp.float32, masked=False):
    params, state = norm.init(CHANNELS)
    x, dy = (
        jnp.asarray(sample(SHAPE, mean, 2, seed)).astype(dtype) for mean, seed in ((1, 0), (0, 5))
    )
    mask = jnp.asarray(sample((*SHAPE[:-1], 1), seed=3) > -0.5) if masked else None
    return with_values(params), state, x.astype(dtype), mask, dy.astype(dtype)


def assert_same(found, wanted, tolerance=2e-6):
    """Compare to rounding, relative to the largest: several devices sum in another order."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        one, other = (np.asarray(jax.device_get(a)).astype(np.float64) for a in (one, other))
        largest = np.abs(other).max(initial=1e-3)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * largest)


def assert_spread_alike(found, wanted):
    assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, wanted)


CASES = {  # what is spread; whether there is a mask; training or evaluation; the dtype
    "batch": ("batch", False, True, "float32"),
    "batch, narrow, evaluated": ("batch", False, False, "bfloat16"),
    "batch and channels": ("batch and channels", False, True, "float32"),
    "positions and channels, masked": ("positions and channels", True, True, "float32"),
}


def on_one_device(norm, cases):
    kinds = {case[1:] for case in cases}
    given = {k: arguments(norm, k[2], k[0]) for k in kinds}

    @jax.jit
    def run(given):
        return {k: step(norm, k[1], *given[k]) for k in kinds}

    return given, run(given)


@pytest.mark.parametrize("name", mostly_thorough(NAMES, FEW))
def test_explicit_axes_change_no_number_and_results_are_spread_as_their_inputs(name):
    norm = make(name, groups=GROUPS)
    given, wanted = on_one_device(norm, CASES.values())
    spread = {k: place(EXPLICIT, LAYOUTS[case[0]], given[case[1:]]) for k, case in CASES.items()}

    @jax.jit
    def run(spread):
        return {k: step(norm, CASES[k][2], *spread[k]) for k in CASES}

    for k, found in run(spread).items():
        tolerance = 1e-2 if CASES[k][3] == "bfloat16" else TOLERANCE.get(name, 2e-6)
        assert_same(found, wanted[CASES[k][1:]], tolerance)
        params, state, x, _, _ = spread[k]
        assert_spread_alike(found, (x, state, (params, x)))


@pytest.mark.parametrize("name", mostly_thorough(TOLERANCE, ["proxy_group_norm"]))
def test_where_the_tolerance_is_larger_the_difference_is_of_rounding_alone(name):
    norm = make(name, groups=GROUPS)
    with jax.enable_x64(True):
        given = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), arguments(norm, jnp.float64))
        run = jax.jit(partial(step, norm, True))
        wanted = run(*given)
        found = run(*place(EXPLICIT, LAYOUTS["batch and channels"], given))
        assert_same(found, wanted, 1e-13)


def in_shards(norm, params, state, x, mask, dy):
    """`step` within `shard_map`, the batch over four devices."""
    over = P("four")

    def one(params, state, x, mask, dy):
        y, moved, (d_params, dx) = step(norm, True, params, state, x, mask, dy)
        return y, moved, (d_params, dx)  # each gradient of params is already the sum over shards

    return jax.shard_map(
        one,
        mesh=AUTO,
        in_specs=(P(), P(), over, over, over),
        out_specs=(over, P(), (P(), over)),
    )(params, state, x, mask, dy)


@pytest.mark.parametrize("name", mostly_thorough(NAMES, FEW))
def test_automatic_axes_and_shard_map_change_no_number(name):
    norm = make(name, groups=GROUPS)
    if any(field.name == "axis_name" for field in dataclasses.fields(norm)):
        named = dataclasses.replace(norm, axis_name="four")
    else:
        named = norm
    given, whole = arguments(norm, masked=True), jax.jit(partial(step, norm, True))
    wanted, tolerance = whole(*given), TOLERANCE.get(name, 2e-6)
    spread = place(AUTO, LAYOUTS["batch and channels"], given)
    assert_same(whole(*spread), wanted, tolerance)
    with jax.set_mesh(AUTO):
        assert_same(whole(*spread), wanted, tolerance)
    shards = jax.jit(partial(in_shards, named))
    if name == "online_norm":
        with pytest.raises(UserError, match="one example after the other"):
            shards(*place(AUTO, LAYOUTS["batch"], given))
        return
    assert_same(shards(*place(AUTO, LAYOUTS["batch"], given)), wanted, tolerance)


@pytest.mark.parametrize(
    ("name", "of_runs"), [("layer_norm", "two"), ("layer_norm", None), ("batch_norm", None)]
)
def test_transformations_keep_the_numbers_on_explicit_axes(name, of_runs):
    """vmap, over an axis of the mesh and over none, of scan, of remat; and outside of jit."""
    norm = make(name)
    params, state, x, _, dy = arguments(norm)
    xs = jnp.stack([x, 2 * x + 1])

    def one(x):
        def again(state, _):
            norm_apply = jax.checkpoint(lambda p, x: norm.apply(p, state, x, train=True))
            y, pull, moved = jax.vjp(norm_apply, params, x, has_aux=True)
            return moved, (y, pull(dy))

        return jax.lax.scan(again, state, None, length=2)

    run = jax.jit(jax.vmap(one))
    spread = jax.device_put(xs, NamedSharding(EXPLICIT, P(of_runs, "four")))
    wanted = run(xs)
    with jax.set_mesh(EXPLICIT):
        assert_same(run(spread), wanted)
        outside = step(norm, True, params, state, place(EXPLICIT, P("four"), x), None, dy)
    assert_same(outside, step(norm, True, params, state, x, None, dy))


def functions_of(shelf):
    """Beside the entry `GroupNorm`, the function `group_norm` of the same file."""
    for name, entry in shelf.entries().items():
        file = importlib.import_module(entry.module)
        if hasattr(file, name):
            yield getattr(file, name)


ARGUMENTS = {"group_norm": {"groups": GROUPS}, "batch_renorm": {"r_max": 3.0, "d_max": 5.0}}


@pytest.mark.parametrize("function", list(functions_of(NORMS)), ids=lambda f: f.__name__)
def test_functions_take_explicit_axes_too(function):
    names = [n for n, p in inspect.signature(function).parameters.items() if p.default is p.empty]
    own = ARGUMENTS.get(function.__name__, {})
    x, channel = jnp.ones(SHAPE), jnp.ones(CHANNELS)
    more = {name: channel for name in names[1:] if name not in own}
    spread = place(EXPLICIT, LAYOUTS["positions and channels"], x)

    def gradient(x):
        y, pull = jax.vjp(lambda x: jax.tree.leaves(function(x, **more, **own))[0], x)
        return y, pull(y)[0]

    y, dx = jax.jit(gradient).trace(spread).out_avals
    assert y == dx == jax.typeof(spread)


@pytest.mark.parametrize("name", list(KERNELS.entries()))
def test_kernel_transforms_take_explicit_axes(name):
    transform = KERNELS.load(name)()
    kernel = jnp.asarray(sample((3, 3, 8, CHANNELS)))
    given = (
        *transform.init(jax.random.key(0), kernel),
        kernel,
        jnp.asarray(sample(kernel.shape, seed=5)),
    )

    @jax.jit
    def run(params, state, kernel, dy):
        def call(params, kernel):
            return transform.apply(params, state, kernel, train=True)

        y, pull, moved = jax.vjp(call, params, kernel, has_aux=True)
        return y, moved, pull(dy)

    for spec in (P(None, None, "four", "two"), P(None, None, None, ("four", "two"))):
        assert_same(run(*place(EXPLICIT, spec, given)), run(*given))
