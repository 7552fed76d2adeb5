"""The compiled gradient of a convolution's kernel against float64, by itself and in a network."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from normlab.models.convolution import LAYOUT, convolve
from normlab.ops import native

pytest.importorskip("numba", reason="the kernels are compiled by numba: install normlab[native]")

# images (N, H, W, C), kernel (h, w) and features, strides, padding
CASES = {
    "3x3, one vector": ((9, 16, 16, 16), (3, 3, 16), (1, 1), ((1, 1), (1, 1))),
    "3x3, several vectors": ((17, 8, 8, 64), (3, 3, 64), (1, 1), ((1, 1), (1, 1))),
    "the first layer": ((20, 32, 32, 3), (3, 3, 16), (1, 1), ((1, 1), (1, 1))),
    "stride 2, odd": ((20, 15, 17, 12), (3, 3, 24), (2, 2), ((1, 1), (1, 1))),
    "one feature": ((64, 16, 16, 32), (3, 3, 1), (1, 1), ((1, 1), (1, 1))),
    "more channels than a part takes": ((16, 9, 9, 8), (3, 3, 150), (1, 1), ((1, 1), (1, 1))),
    "all uneven": ((33, 19, 16, 7), (5, 4, 10), (3, 2), ((2, 1), (0, 3))),
    "padded beyond the kernel": ((40, 9, 10, 6), (2, 2, 40), (1, 2), ((3, 2), (2, 4))),
    "cropped": ((40, 12, 13, 6), (3, 3, 12), (1, 1), ((-2, -1), (-1, -3))),
    "one image": ((1, 64, 64, 8), (3, 3, 16), (1, 1), ((0, 0), (0, 0))),
}


@pytest.fixture(autouse=True)
def in_use(monkeypatch):
    """These tests have eight devices, of which the arrays here use one."""
    monkeypatch.setattr(native, "_on_one_cpu", lambda: True)
    monkeypatch.setattr(native, "LEAST_PRODUCTS", 1)
    native.use()
    yield
    native.use(False)


def operands(case, dtype):
    shape, (height, width, features), strides, padding = CASES[case]
    draw = np.random.default_rng(0)
    where = {"window_strides": strides, "padding": padding, "dimension_numbers": LAYOUT}
    kernel = jnp.zeros((height, width, shape[-1], features))
    y = jax.eval_shape(
        lambda x: lax.conv_general_dilated(x, kernel, **where), jax.ShapeDtypeStruct(shape, "f")
    )
    x, dy = (jnp.asarray(draw.standard_normal(size), dtype) for size in (shape, y.shape))
    return x, kernel.astype(dtype), dy, strides, padding


def gradient(conv, x, kernel, dy, strides, padding):
    return jax.jit(jax.grad(lambda k: jnp.vdot(conv(x, k, strides, padding), dy)))(kernel)


def plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def distance(found, expected):
    found = np.asarray(found.astype(jnp.float32), np.float64)
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("case", CASES)
def test_it_is_as_near_to_float64_as_lax(case, dtype):
    x, kernel, dy, *where = operands(case, dtype)
    found, in_jax = (gradient(conv, x, kernel, dy, *where) for conv in (convolve, plain))
    with jax.enable_x64(True):
        wide = (a.astype(jnp.float64) for a in (x, kernel, dy))
        expected = np.asarray(gradient(plain, *wide, *where))
    assert found.shape == kernel.shape and found.dtype == dtype
    rounding = {jnp.float32: 4e-7, jnp.bfloat16: 4e-3, jnp.float16: 5e-4}[dtype]
    assert distance(found, expected) <= max(rounding, distance(in_jax, expected))


def test_a_program_calls_it_and_keeps_every_transformation():
    x, kernel, _, *where = operands("3x3, one vector", jnp.float32)

    def loss(kernel, x, conv):
        return (conv(x, kernel, *where) ** 3).sum() / x.size

    def several(conv):
        first = jax.grad(loss)
        return [
            first(kernel, x, conv),
            jax.vmap(first, (0, None, None))(jnp.stack([kernel, 1 + kernel]), x, conv),
            jax.jvp(lambda k: first(k, x, conv), (kernel,), (jnp.ones_like(kernel),))[1],
            jax.grad(lambda k: (first(k, x, conv) ** 2).sum())(kernel),
            lax.map(lambda k: first(k, x, conv), jnp.stack([kernel, 1 + kernel])),
        ]

    kernel = kernel + jnp.linspace(-0.1, 0.1, kernel.size).reshape(kernel.shape)
    for one, other in zip(several(convolve), several(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * float(jnp.abs(other).max()))
    text = jax.jit(lambda k: jax.grad(loss)(k, x, convolve)).lower(kernel).as_text()
    assert native.TARGET in text


@pytest.mark.parametrize("case", ["3x3, one vector", "stride 2, odd"])
@pytest.mark.parametrize("runs", [1, 2])
def test_an_exported_program_asks_for_no_kernel(case, runs):
    x, kernel, dy, *where = operands(case, jnp.float32)

    def loss(kernel, x, conv=convolve):
        return (conv(x, kernel, *where) * dy).mean()

    gradient = jax.jit(jax.vmap(jax.grad(loss)))
    kernels, images = (jnp.stack([(i + 1) * a for i in range(runs)]) for a in (kernel, x))
    assert native.TARGET in gradient.lower(kernels, images).as_text()
    exported = jax.export.export(gradient)(kernels, images)
    assert native.TARGET not in exported.mlir_module()
    found = exported.call(kernels, images)
    for i in range(runs):
        expected = jax.grad(loss)(kernels[i], images[i], plain)
        for one in (found[i], gradient(kernels, images)[i]):
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("case", ["3x3, one vector", "stride 2, odd"])
def test_a_program_for_any_number_of_images_is_exported(case):
    x, kernel, dy, *where = operands(case, jnp.float32)

    def loss(kernel, x, dy, conv):
        return (conv(x, kernel, *where) * dy).mean()

    scope = jax.export.SymbolicScope()
    shapes = (
        jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, ...", scope=scope, like=a.shape), "f")
        for a in (x, dy)
    )
    gradient = jax.jit(jax.grad(lambda *given: loss(*given, convolve)))
    exported = jax.export.export(gradient)(kernel, *shapes)
    assert native.TARGET not in exported.mlir_module()
    for images in (x.shape[0], 2):
        given = kernel, x[:images], dy[:images]
        expected = jax.grad(loss)(*given, plain)
        found = exported.call(*given)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("why", ["two dtypes", "few products", "not in use"])
def test_what_it_is_not_made_for_is_left_to_xla(why, monkeypatch):
    x, _, dy, *_ = operands("3x3, one vector", jnp.float32)
    if why == "two dtypes":
        dy = dy.astype(jnp.bfloat16)
    if why == "few products":
        monkeypatch.undo()
        monkeypatch.setattr(native, "_on_one_cpu", lambda: True)
        x, dy = x[:1, :2], dy[:1, :2]
    if why == "not in use":
        native.use(False)
    assert not native.serves_kernel_gradient(x, dy)
