"""The compiled kernels against float64, and against JAX where both compute the same function."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import normlab
from normlab.ops import kernels, native
from normlab.ops.layouts import Channels, Rows

pytest.importorskip("numba", reason="the kernels are compiled by numba: install normlab[native]")

EPS = 1e-5
CASES = [
    ((64, 8, 8, 32), Rows()),
    ((64, 8, 8, 32), Rows(centred=False)),
    ((20000, 7), Rows()),
    ((4999, 16), Rows()),
    ((17, 1001), Rows()),
    ((64, 16, 8, 32), Channels((1, 2), 8)),
    ((64, 16, 8, 32), Channels((1, 2), 1)),
    ((64, 16, 8, 32), Channels((1, 2), 32)),
    ((3, 701, 12), Channels((1,), 3)),
    ((64, 16, 8, 32), Channels((0, 1, 2), 32)),
    ((64, 16, 8, 32), Channels((0, 1, 2), 32, centred=False)),
    ((20000, 7), Channels((0,), 7)),
    ((9, 40, 300), Channels((0, 1), 300)),
]


@pytest.fixture(autouse=True)
def in_use(monkeypatch):
    """These tests have eight devices, of which the arrays here use one."""
    monkeypatch.setattr(native, "_on_one_cpu", lambda: True)
    native.use()
    yield
    native.use(False)


def drawn(shape, dtype=jnp.float32, mean=0.0, deviation=2.0, seed=0):
    rng = np.random.default_rng(seed)
    x, dy = (rng.standard_normal(shape) for _ in range(2))
    scale, bias = rng.uniform(0.5, 1.5, shape[-1]), rng.standard_normal(shape[-1])
    x = jnp.asarray(mean + deviation * x, dtype)
    return (x, *(jnp.asarray(values, jnp.float32) for values in (scale, bias))), jnp.asarray(
        dy, dtype
    )


def with_gradients(layout):
    def both(arguments, dy):
        y, back, statistics = jax.vjp(
            lambda *given: kernels.normalised(layout, EPS, *given), *arguments, has_aux=True
        )
        return (y, *back(dy)), statistics

    return jax.jit(both)


def truth(layout, arguments, dy):
    x, scale, bias, dy = (np.asarray(a.astype(jnp.float32), np.float64) for a in (*arguments, dy))
    grouped, axes = x, (x.ndim - 1,)
    if isinstance(layout, Channels):
        grouped = x.reshape(*x.shape[:-1], layout.groups, -1)
        axes = (*layout.axes, x.ndim)
    mean = grouped.mean(axes, keepdims=True) if layout.centred else 0.0
    root = 1 / np.sqrt(((grouped - mean) ** 2).mean(axes, keepdims=True) + EPS)
    z, g = (grouped - mean) * root, (dy * scale).reshape(grouped.shape)
    level = g.mean(axes, keepdims=True) if layout.centred else 0.0
    dx = root * (g - level - z * (g * z).mean(axes, keepdims=True))
    z = z.reshape(x.shape)
    over = tuple(range(x.ndim - 1))
    return z * scale + bias, dx.reshape(x.shape), (dy * z).sum(over), dy.sum(over)


@pytest.mark.parametrize(
    ("dtype", "mean", "deviation"),
    # 16 bits have no digits for small deviations from a large mean.
    [
        (jnp.bfloat16, 0.5, 2.0),
        (jnp.float16, 0.5, 2.0),
        (jnp.float32, 0.0, 1e-4),
        (jnp.float32, 1e4, 1.0),
        (jnp.float32, -3e5, 30.0),
    ],
)
@pytest.mark.parametrize(("shape", "layout"), CASES)
def test_output_and_gradients_are_those_of_float64(shape, layout, dtype, mean, deviation):
    arguments, dy = drawn(shape, dtype, mean, deviation)
    assert native.serves(layout, arguments[0])
    found, _ = with_gradients(layout)(arguments, dy)
    precision = {jnp.bfloat16: 5e-3, jnp.float16: 6e-4, jnp.float32: 1e-6}[dtype]
    # dscale and dbias are sums in float32 or wider, whatever the dtype.
    for got, true, line in zip(
        found, truth(layout, arguments, dy), (precision, precision, 1e-6, 1e-6), strict=True
    ):
        assert np.abs(np.asarray(got, np.float64) - true).max() <= line * np.abs(true).max()


HOSTILE = {
    "a small deviation from a large mean": ((500, 257), Rows(), jnp.float32, 1e4, 1e-2),
    "the same, rows that share a vector": ((5001, 16), Rows(), jnp.float32, 1e4, 1e-2),
    "the same over the batch": ((9001, 3), Channels((0,), 3), jnp.float32, 1e4, 1e-2),
    "the same over an image": ((3, 601, 17), Channels((1,), 1), jnp.float32, 1e4, 1e-2),
    "squares that overflow float16": ((9, 64, 32), Channels((1,), 4), jnp.float16, 0.0, 1.5e4),
    "the same in rows": ((2001, 17), Rows(), jnp.float16, 2e4, 8e3),
    "denormal numbers": ((3000, 8), Rows(), jnp.float32, 0.0, 1e-40),
    "denormal numbers over the batch": ((9001, 3), Channels((0,), 3), jnp.float32, 0.0, 1e-40),
    "channels of one": ((20000, 1), Channels((0,), 1), jnp.bfloat16, 3.0, 1.0),
    "rows of three": ((7001, 3), Rows(), jnp.bfloat16, 3.0, 1.0),
    "rows of two, uneven": ((9999, 2), Rows(centred=False), jnp.float32, 1.0, 1.0),
    "one row": ((1, 20011), Rows(), jnp.float32, 1e3, 1.0),
    "one example": ((1, 129, 257), Channels((1,), 257), jnp.float32, 1e3, 1.0),
}

TAKEN_AS_ZERO = 1e-35
"""XLA's threads take denormal numbers as zero; divided by the root of eps they are so large."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_inputs_are_as_near_to_float64(name):
    shape, layout, dtype, mean, deviation = HOSTILE[name]
    arguments, dy = drawn(shape, dtype, mean, deviation)
    assert native.serves(layout, arguments[0])
    found, _ = with_gradients(layout)(arguments, dy)
    precision = {jnp.bfloat16: 5e-3, jnp.float16: 6e-4, jnp.float32: 1e-6}[dtype]
    lines = precision, precision, 1e-6, 1e-6
    for got, true, line in zip(found, truth(layout, arguments, dy), lines, strict=True):
        error, largest = np.abs(np.asarray(got, np.float64) - true).max(), np.abs(true).max()
        assert error <= line * largest + TAKEN_AS_ZERO


def test_a_row_of_one_number_becomes_the_bias():
    arguments, dy = drawn((20000, 1), mean=3.0)
    (y, dx, dscale, _), _ = with_gradients(Rows())(arguments, dy)
    assert (np.asarray(y) == np.asarray(arguments[2])).all() and (dscale == 0).all()
    # The gradient is a difference of equal numbers of the size of dy / sqrt(eps).
    assert np.abs(dx).max() <= 1e-6 * np.abs(dy).max() / np.sqrt(EPS)


@pytest.mark.parametrize("layout", [Rows(), Channels((0,), 16)])
def test_an_array_that_is_far_off_at_its_beginning_keeps_its_digits(layout):
    """The value about which sums are taken is no good there, so they are taken anew."""
    (x, scale, bias), dy = drawn((4096, 48 if isinstance(layout, Rows) else 16))
    moved = x.at[:64].add(3e4) if isinstance(layout, Channels) else x.at[:, 0].add(3e4)
    for given in (moved, jnp.flip(moved)):
        found, _ = with_gradients(layout)((given, scale, bias), dy)
        for got, true in zip(found, truth(layout, (given, scale, bias), dy), strict=True):
            assert np.abs(np.asarray(got, np.float64) - true).max() <= 1e-6 * np.abs(true).max()


def test_an_array_that_does_not_lie_in_order():
    layout, (arguments, dy) = Channels((1,), 4), drawn((8, 96, 32))
    turned = jnp.asarray(np.asfortranarray(arguments[0]).T)
    (y, *_), _ = jax.jit(lambda x, *more: with_gradients(layout)((x.T, *more), dy))(
        turned, *arguments[1:]
    )
    np.testing.assert_array_equal(y, with_gradients(layout)(arguments, dy)[0][0])


def test_nothing_and_what_is_masked_are_left_to_jax():
    assert not native.serves(Rows(), jnp.ones((0, 32)))
    assert normlab.layer_norm(jnp.ones((0, 32))).shape == (0, 32)
    x, scale, bias = drawn((64, 16, 16, 8))[0]
    y = normlab.batch_norm(x, scale, bias, mask=jnp.zeros((64, 1, 1, 1), bool))
    assert np.isfinite(y).all()


@pytest.mark.parametrize(("shape", "layout"), CASES[5:])
def test_statistics_are_those_of_jax(shape, layout):
    arguments, _ = drawn(shape, mean=3.0)
    y, found = kernels.normalised(layout, EPS, *arguments)
    with native.only_if(False):
        expected_y, expected = kernels.normalised(layout, EPS, *arguments)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
    mean, expected_mean = (s.shift + s.offset for s in (found, expected))
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=2e-6)
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "layout"), [case for case in CASES if case[1].centred])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, 12345.678, -3e37])
def test_a_constant_becomes_exactly_the_bias(shape, layout, value):
    (_, scale, bias), _ = drawn(shape)
    y, statistics = kernels.normalised(layout, EPS, jnp.full(shape, value), scale, bias)
    assert (np.asarray(y) == np.asarray(bias)).all() and (statistics.variance == 0).all()


@pytest.mark.parametrize(("shape", "layout"), [CASES[0], CASES[5], CASES[9]])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_spreads_where_jax_lets_it(shape, layout, value):
    (x, scale, bias), dy = drawn(shape)
    given = x.at[1, 2].set(value), scale, bias
    (y, dx, *_), _ = with_gradients(layout)(given, dy)
    with native.only_if(False):
        (expected_y, expected_dx, *_), _ = with_gradients(layout)(given, dy)
    # Squares that overflow float32 fit into the kernels' float64, but not into the variance.
    assert (np.isfinite(y) == np.isfinite(expected_y)).all()
    assert (np.isfinite(dx) == np.isfinite(expected_dx)).all()


@pytest.mark.parametrize(
    ("shape", "layout"), [CASES[0], CASES[3], CASES[1], CASES[5], CASES[9], CASES[11]]
)
def test_gradients_that_enter_by_the_statistics(shape, layout):
    arguments, _ = drawn(shape, mean=2.0)

    def loss(x):
        y, statistics = kernels.normalised(layout, EPS, x, *arguments[1:])
        mean = statistics.shift + statistics.offset
        return (y**3).mean() + (mean**2).sum() + (statistics.variance**2).sum()

    found = jax.grad(loss)(arguments[0])
    with native.only_if(False):
        expected = jax.grad(loss)(arguments[0])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_every_transformation_gives_what_jax_gives():
    layout = Channels((1, 2), 4)
    arguments, dy = drawn((8, 16, 16, 16), mean=1.0)

    def output(x):
        return kernels.normalised(layout, EPS, x, *arguments[1:])[0]

    def loss(x):
        return (output(x) * dy).sum() + (output(x) ** 4).mean()

    def every(x):
        tangent = jnp.cos(x)
        return {
            "forward mode": jax.jvp(output, (x,), (tangent,))[1],
            "forward over reverse": jax.jvp(jax.grad(loss), (x,), (tangent,))[1],
            "reverse over reverse": jax.grad(lambda x: (jax.grad(loss)(x) * tangent).sum())(x),
            "vmap": jax.vmap(jax.grad(loss))(jnp.stack([x, 2 * x])),
            "scan": jax.lax.scan(lambda x, _: (output(x), None), x, length=3)[0],
            "remat": jax.grad(jax.checkpoint(loss))(x),
        }

    found = jax.jit(every)(arguments[0])
    with native.only_if(False):
        expected = jax.jit(every)(arguments[0])
    for name, one in found.items():
        line = 1e-5 * np.abs(expected[name]).max()
        np.testing.assert_allclose(one, expected[name], rtol=1e-4, atol=line, err_msg=name)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_without_scale_or_bias(scale, bias):
    (x, *learnt), dy = drawn(CASES[5][0])
    given = x, learnt[0] if scale else None, learnt[1] if bias else None
    (y, dx, *gradients), _ = with_gradients(CASES[5][1])(given, dy)
    full = x, learnt[0] if scale else 0 * learnt[0] + 1, learnt[1] if bias else 0 * learnt[1]
    for got, true in zip((y, dx), truth(CASES[5][1], full, dy)[:2], strict=True):
        np.testing.assert_allclose(got, true, rtol=1e-5, atol=1e-5)
    assert [gradient is not None for gradient in gradients] == [scale, bias]


def test_what_xla_does_better_is_left_to_it():
    layout, x = Channels((1, 2), 8), jnp.ones((64, 16, 8, 32))
    assert native.serves(layout, x) and "custom_call" in str(lowered(x, layout))
    assert not native.serves(layout, x[:2])
    assert not native.serves(Channels((1,), 8), x)  # between other axes
    with native.only_if(False):
        assert not native.serves(layout, x)
        assert native.chosen() == "" and native.TARGET not in str(lowered(x, layout))


def test_an_exported_program_asks_for_no_kernel():
    layout, (x, scale, bias) = Channels((1, 2), 8), drawn(CASES[5][0])[0]

    def loss(*given):
        return (kernels.normalised(layout, EPS, *given)[0] ** 3).sum()

    both = jax.jit(jax.value_and_grad(loss))
    exported = jax.export.export(both)(x, scale, bias)
    assert native.TARGET not in exported.mlir_module()
    found = exported.call(x, scale, bias)
    np.testing.assert_allclose(found[0], both(x, scale, bias)[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], both(x, scale, bias)[1], rtol=1e-4, atol=1e-4)


def lowered(x, layout):
    return jax.jit(lambda x: kernels.normalised(layout, EPS, x, None, None)[0]).lower(x).as_text()


def test_an_array_on_several_devices_is_left_to_xla(monkeypatch):
    monkeypatch.undo()
    assert jax.device_count() == 8 and native.chosen() == ""
    assert not native.serves(Rows(), jnp.ones((64, 16, 8, 32)))


DIGEST = """
    import hashlib, os
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])
    import jax, jax.numpy as jnp
    import normlab
    from normlab.models.convolution import convolve
    from normlab.ops import native
    native.use()
    x = 1 + 2 * jax.random.normal(jax.random.key(0), (64, 16, 16, 24))
    def loss(x, scale, norm):
        return (norm(x, scale) ** 3).sum()
    digest = hashlib.sha256()
    for norm in (normlab.batch_norm, normlab.layer_norm, normlab.instance_norm):
        found = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)(x, jnp.ones(24), norm)
        for leaf in jax.tree.leaves(found[1]):
            digest.update(leaf.tobytes())
    def loss_of_kernel(kernel):
        return (convolve(x, kernel, (1, 1), ((1, 1), (1, 1))) ** 2).sum()
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 24, 40))
    gradient = jax.jit(jax.grad(loss_of_kernel)).lower(kernel)
    assert native.TARGET in gradient.as_text()
    digest.update(gradient.compile()(kernel).tobytes())
    print(native.chosen(), digest.hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_no_bit_depends_on_the_number_of_threads():
    def said(cores):
        code = textwrap.dedent(DIGEST.format(cores=cores))
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        return done.stdout

    assert said(1).startswith("numba ") and said(1) == said(2)


def test_what_is_kept_is_found_again(monkeypatch, tmp_path):
    from numba import config

    from normlab.ops.native.handlers import compile_kernel

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    first, again = (compile_kernel("rows_forward", "float32", keep=True) for _ in range(2))
    other = compile_kernel("rows_forward", "bfloat16", keep=True)
    assert (first.cache_hits, again.cache_hits, other.cache_hits) == (0, 1, 0)


def test_compiled_code_is_kept_where_nobody_else_can_write(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMLAB_CACHE", str(tmp_path))
    folder = native._cache_folder()
    assert folder is not None and folder.is_relative_to(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    assert native._cache_folder() is None
    monkeypatch.setenv("NORMLAB_CACHE", str(tmp_path / "file" / "a"))
    (tmp_path / "file").write_text("")
    assert native._cache_folder() is None
