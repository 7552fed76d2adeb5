"""`convolve` equals `lax.conv_general_dilated` in values, derivatives and under `vmap`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from normlab.models.convolution import LAYOUT, convolve

# images (N, H, W, C), kernel (h, w) and features, strides, padding
CASES = {
    "3x3": ((3, 8, 8, 4), (3, 3, 5), (1, 1), ((1, 1), (1, 1))),
    "stride 2, odd": ((2, 7, 9, 3), (3, 3, 4), (2, 2), ((1, 1), (1, 1))),
    "1x1": ((3, 5, 6, 4), (1, 1, 5), (1, 1), ((0, 0), (0, 0))),
    "1x1, padded": ((2, 5, 6, 2), (1, 1, 3), (2, 1), ((1, 2), (0, 1))),
    "all uneven": ((2, 9, 8, 3), (4, 3, 2), (3, 2), ((2, 1), (0, 2))),
    "padded beyond the kernel": ((2, 4, 5, 2), (2, 2, 3), (1, 2), ((3, 2), (2, 4))),
    "rows are left over": ((2, 8, 9, 2), (3, 3, 3), (3, 4), ((0, 0), (0, 0))),
    "patches": ((2, 8, 8, 3), (4, 4, 6), (4, 4), ((0, 0), (0, 0))),
}


def plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def operands(shape, size, dtype, seed=0):
    draw = np.random.default_rng(seed)
    kernel = (*size[:2], shape[-1], size[2])
    return tuple(jnp.asarray(draw.standard_normal(s), dtype) for s in (shape, kernel))


def close(found, expected, dtype):
    tolerance = {jnp.float32: 1e-5, jnp.float64: 1e-12, jnp.bfloat16: 3e-2}[dtype]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype == dtype
        scale = float(jnp.abs(other).max()) + 1e-30
        one, other = (np.asarray(a, np.float64) for a in (one, other))
        np.testing.assert_allclose(one, other, atol=tolerance * scale, rtol=0)


def derivatives(conv, x, kernel, **where):
    """Compute the value, both gradients, a tangent, and a Hessian-vector product in two ways."""
    dx, dk = operands(x.shape, (*kernel.shape[:2], kernel.shape[3]), x.dtype, seed=1)
    act = partial(conv, **where)

    def loss(x, kernel):
        # Its third derivatives are not zero.
        return (act(x, kernel) ** 3).sum() / x.size

    gradient = jax.grad(loss, argnums=(0, 1))

    def along(x, kernel):
        return sum(jnp.vdot(a, b) for a, b in zip(gradient(x, kernel), (dx, dk), strict=True))

    return {
        "value": act(x, kernel),
        "gradient": gradient(x, kernel),
        "tangent": jax.jvp(act, (x, kernel), (dx, dk))[1],
        "forward over reverse": jax.jvp(gradient, (x, kernel), (dx, dk))[1],
        "reverse over reverse": jax.grad(along, argnums=(0, 1))(x, kernel),
    }


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_are_those_of_lax(case):
    shape, size, strides, padding = CASES[case]
    with jax.enable_x64(True):
        x, kernel = operands(shape, size, jnp.float64)
        find = jax.jit(partial(derivatives, strides=strides, padding=padding), static_argnums=0)
        close(find(convolve, x, kernel), find(plain, x, kernel), jnp.float64)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_other_precisions_are_kept(dtype):
    shape, size, strides, padding = CASES["stride 2, odd"]
    x, kernel = operands(shape, size, dtype)
    where = {"strides": strides, "padding": padding}

    def find(conv):
        y, back = jax.vjp(partial(conv, **where), x, kernel)
        return y, back(jnp.ones_like(y))

    close(find(convolve), find(plain), dtype)


def test_vmap_over_images_kernels_and_both_and_within_one_another():
    shape, size, strides, padding = CASES["stride 2, odd"]
    with jax.enable_x64(True):
        one, two = (operands(shape, size, jnp.float64, seed) for seed in range(2))
        xs, kernels = (jnp.stack(pair) for pair in zip(one, two, strict=True))

        def find(conv):
            act = partial(conv, strides=strides, padding=padding)
            both = jax.grad(lambda x, kernel: (act(x, kernel) ** 3).sum(), argnums=(0, 1))
            return [
                *(jax.vmap(act, axes)(xs, kernels[0]) for axes in [(0, None)]),
                jax.vmap(act, (None, 0), out_axes=2)(xs[0], kernels),
                jax.vmap(act, (1, 3))(jnp.moveaxis(xs, 0, 1), jnp.moveaxis(kernels, 0, 3)),
                jax.vmap(lambda x: jax.vmap(lambda k: act(x, k))(kernels))(xs),
                *jax.vmap(both, (0, None))(xs, kernels[0]),
                *jax.vmap(both, (None, 0))(xs[0], kernels),
                *jax.vmap(both)(xs, kernels),
                *jax.grad(lambda x, k: (jax.vmap(act)(x, k) ** 3).sum(), argnums=(0, 1))(
                    xs, kernels
                ),
            ]

        close(find(convolve), find(plain), jnp.float64)


def gradient_of_layers(conv, wrap=lambda layer: layer):
    """Compute the gradient of two layers in a scan, with respect to images and both kernels."""

    def loss(x, kernels):
        def layer(x, kernel):
            y = conv(x, kernel, (1, 1), ((1, 1), (1, 1)))
            return jnp.tanh(y), None

        return (lax.scan(wrap(layer), x, kernels)[0] ** 2).sum()

    return jax.grad(loss, argnums=(0, 1))


def test_within_scan_and_remat():
    with jax.enable_x64(True):
        x, kernel = operands((2, 6, 6, 3), (3, 3, 3), jnp.float64)
        kernels = jnp.stack([kernel, -kernel[::-1]])
        expected = gradient_of_layers(plain)(x, kernels)
        close(gradient_of_layers(convolve)(x, kernels), expected, jnp.float64)
        again = jax.jit(gradient_of_layers(convolve, jax.checkpoint))(x, kernels)
        close(again, expected, jnp.float64)


def test_on_a_cpu_every_pass_is_in_the_layout_of_the_fast_kernels():
    """Autodiff's gradients are not, which makes them tens of times slower within a loop."""
    x, kernel = operands((2, 8, 8, 32), (3, 3, 32), jnp.float32)
    kernels = jnp.stack([kernel, kernel])

    def layouts(conv):
        traced = jax.jit(gradient_of_layers(conv)).trace(x, kernels)
        text = traced.lower(lowering_platforms=("cpu",)).as_text()
        return {part.split(", window")[0] for part in text.split("dim_numbers = ")[1:]}

    fast = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    assert layouts(convolve) == {fast}
    assert layouts(plain) != {fast}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_other_backends_it_is_lax_and_its_autodiff(platform):
    x, kernel = operands((2, 8, 8, 4), (3, 3, 4), jnp.float32)

    def convolutions(conv):
        def both(x, kernel):
            y, back = jax.vjp(partial(conv, strides=(2, 2), padding=((1, 1), (1, 1))), x, kernel)
            return back(y)

        text = jax.jit(both).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        found = [line.split("stablehlo.convolution")[1] for line in text.splitlines()
                 if "stablehlo.convolution" in line]  # fmt: skip
        return sorted(line.split(")", 1)[1] for line in found)

    assert convolutions(convolve) == convolutions(plain)


@pytest.mark.parametrize(
    "more",
    [
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1)},
        {"precision": "highest"},
        {"dimension_numbers": ("NHWC", "HWOI", "NHWC")},
        {"padding": "SAME"},
        {"feature_group_count": 2},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_it_is_not_made_for_is_left_to_lax(more):
    groups = more.get("feature_group_count", 1)
    x, kernel = operands((2, 8, 8, 4), (3, 3, 4), jnp.float32)
    padding = more.pop("padding", ((1, 1), (1, 1)))
    more = {"dimension_numbers": LAYOUT, **more}

    def primitives(conv):
        traced = jax.make_jaxpr(lambda x, k: conv(x, k, (1, 1), padding, **more))
        return [str(equation) for equation in traced(x, kernel[:, :, : 4 // groups]).eqns]

    assert primitives(convolve) == primitives(lax.conv_general_dilated)
