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

from normlab.ops import kernels, native
from normlab.ops.layouts import Channels, Rows

pytest.importorskip("numba", reason="the kernels are compiled by numba: install normlab[native]")

EPS = 1e-5
CASES = [
    ((64, 8, 8, 32), Rows()),
    ((64, 8, 8, 32), Rows(centred=False)),
    ((20000, 7), Rows()),
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


@pytest.mark.parametrize(("shape", "layout"), CASES[4:])
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


@pytest.mark.parametrize(("shape", "layout"), [CASES[0], CASES[4], CASES[8]])
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


@pytest.mark.parametrize(("shape", "layout"), [CASES[0], CASES[1], CASES[4], CASES[8], CASES[10]])
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
    (x, *learnt), dy = drawn(CASES[4][0])
    given = x, learnt[0] if scale else None, learnt[1] if bias else None
    (y, dx, *gradients), _ = with_gradients(CASES[4][1])(given, dy)
    full = x, learnt[0] if scale else 0 * learnt[0] + 1, learnt[1] if bias else 0 * learnt[1]
    for got, true in zip((y, dx), truth(CASES[4][1], full, dy)[:2], strict=True):
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
    layout, (x, scale, bias) = Channels((1, 2), 8), drawn(CASES[4][0])[0]

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
