"""Defines the convolution of every model: a bilinear operation with three fast passes.

A convolution, the gradient of its input and the gradient of its kernel are the three faces of one
trilinear form. Each is a JAX primitive here, and the derivatives of any of the three are the other
two. Therefore `grad`, `jvp`, higher derivatives, `vmap`, `scan` and `remat` all end in these three,
and each backend lowers them in the way that is fastest there.

On a CPU, autodiff's gradients of `lax.conv_general_dilated` do not have the layout that XLA's fast
kernels need. XLA converts them outside of loops but not inside, where a training step in `lax.scan`
is tens of times slower (jax-ml/jax#12868). `passes.py` replaces them, as measured in
`experiments/speed/NOTES.md`. On other backends the passes are autodiff's.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from normlab.core import Array
from normlab.models import passes
from normlab.models.passes import LAYOUT, Padding, Pair
from normlab.sharding import is_on_explicit


def convolve(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **others: Any) -> Array:
    """Convolve `x` `(N, H, W, C)` with `kernel` `(h, w, C, D)`; a fast `conv_general_dilated`.

    Flax takes it as `nn.Conv(..., conv_general_dilated=convolve)`. With dilation, groups, a
    precision, another layout, or within `shard_map`, it calls `lax.conv_general_dilated`.

    Args:
        x: images of a floating dtype.
        kernel: the kernel, of the same dtype.
        strides: strides of both spatial dimensions.
        padding: a pair (before, after) for each spatial dimension, or any value that `lax` accepts.
        others: the other arguments of `lax.conv_general_dilated`.

    Returns:
        `(N, H', W', D)` in the dtype of `x`.

    >>> x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 1))
    >>> convolve(x, kernel, (1, 1), ((1, 1), (1, 1)))[0, :, :, 0].tolist()[0]
    [8.0, 12.0, 12.0, 8.0]
    """
    if _is_plain(x, kernel, padding, others):
        padding = tuple((int(low), int(high)) for low, high in padding)
        strides = tuple(int(stride) for stride in strides)
        where = {"strides": strides, "padding": padding}
        return convolution.bind(x[None], kernel[None], **where)[0]
    others = {"dimension_numbers": LAYOUT, **others}
    return lax.conv_general_dilated(x, kernel, tuple(strides), padding, **others)


def _is_plain(x: Array, kernel: Array, padding: Any, others: dict[str, Any]) -> bool:
    layout = others.get("dimension_numbers")
    if layout is not None:
        layout = lax.conv_dimension_numbers(x.shape, kernel.shape, layout)
    return (
        x.ndim == kernel.ndim == 4
        and jnp.issubdtype(x.dtype, jnp.floating)
        and x.dtype == kernel.dtype
        and x.shape[3] == kernel.shape[2]
        and not isinstance(padding, str)
        and layout in (None, lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT))
        and all(set(others.get(name) or [1]) == {1} for name in ("lhs_dilation", "rhs_dilation"))
        and others.get("feature_group_count", 1) == others.get("batch_group_count", 1) == 1
        and others.get("precision") is None
        and others.get("preferred_element_type") is None
        and not is_on_explicit(x)  # nor of explicit axes
        # Within `shard_map` an array's type says over which devices it varies. The shape rules of
        # the primitives do not.
        and jax.sharding.get_abstract_mesh().empty
    )


# The three passes. All arrays have a leading axis of runs: of `vmap`'s length, or of length one.


def _output_shape(x: Any, kernel: Any, *, strides: Pair, padding: Padding) -> ShapedArray:
    spatial = passes.both(
        lambda total, pads, width, stride: (total + sum(pads) - width) // stride + 1,
        x.shape[2:4], padding, kernel.shape[1:3], strides,
    )  # fmt: skip
    return ShapedArray((*x.shape[:2], *spatial, kernel.shape[4]), x.dtype)


def _input_shape(
    dy: Any, kernel: Any, *, strides: Pair, padding: Padding, size: Pair
) -> ShapedArray:
    return ShapedArray((*dy.shape[:2], *size, kernel.shape[3]), dy.dtype)


def _kernel_shape(x: Any, dy: Any, *, strides: Pair, padding: Padding, size: Pair) -> ShapedArray:
    return ShapedArray((x.shape[0], *size, x.shape[4], dy.shape[4]), x.dtype)


convolution = Primitive("convolution")
input_gradient = Primitive("convolution_input_gradient")
kernel_gradient = Primitive("convolution_kernel_gradient")


# Derivatives: each pass is linear in each argument, and its transpose is another of the three.

ad.defbilinear(
    convolution,
    lambda dy, x, kernel, **where: input_gradient.bind(dy, kernel, size=x.aval.shape[2:4], **where),
    lambda dy, x, kernel, **where: kernel_gradient.bind(
        x, dy, size=kernel.aval.shape[1:3], **where
    ),
)
ad.defbilinear(
    input_gradient,
    lambda dx, dy, kernel, size, **where: convolution.bind(dx, kernel, **where),
    lambda dx, dy, kernel, size, **where: kernel_gradient.bind(
        dx, dy, size=kernel.aval.shape[1:3], **where
    ),
)
ad.defbilinear(
    kernel_gradient,
    lambda dk, x, dy, size, **where: input_gradient.bind(dy, dk, size=x.aval.shape[2:4], **where),
    lambda dk, x, dy, size, **where: convolution.bind(x, dk, **where),
)


# How the primitives are evaluated, lowered and mapped.

Pass = Callable[..., Array]


def _define(primitive: Primitive, shape: Callable[..., ShapedArray], plain: Pass, cpu: Pass):
    @cache
    def compiled(**where: Any) -> Any:
        return jax.jit(partial(primitive.bind, **where))

    primitive.def_impl(lambda one, two, **where: compiled(**where)(one, two))
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(_each_run(plain, jax.vmap), False))
    mlir.register_lowering(
        primitive, mlir.lower_fun(_each_run(cpu, _one_by_one), False), platform="cpu"
    )


def _each_run(one_run: Pass, mapped: Callable[[Pass], Pass]) -> Pass:
    def all_runs(one: Array, two: Array, **where: Any) -> Array:
        act = partial(one_run, **where)
        return act(one[0], two[0])[None] if len(one) == 1 else mapped(act)(one, two)

    return all_runs


def _one_by_one(act: Pass) -> Pass:
    return lambda one, two: lax.map(lambda pair: act(*pair), (one, two))


def _batch_with_images(
    primitive: Primitive, operands: Sequence[Array], axes: Sequence[int | None], **where: Any
) -> tuple[Array, int]:
    """Batch `convolution` or `input_gradient`, whose second operand is a kernel."""
    images, kernel = operands
    if axes[1] is None:
        # All share one kernel, so they are simply more images.
        images = jnp.moveaxis(images, axes[0] or 0, 1)
        runs, mapped, batch = images.shape[:3]
        y = primitive.bind(images.reshape(runs, mapped * batch, *images.shape[3:]), kernel, **where)
        return y.reshape(runs, mapped, batch, *y.shape[2:]), 1
    return _batch_all(primitive, operands, axes, **where)


def _batch_all(
    primitive: Primitive, operands: Sequence[Array], axes: Sequence[int | None], **where: Any
) -> tuple[Array, int]:
    """Merge the mapped axis into the axis of runs."""
    mapped = next(
        operand.shape[axis]
        for operand, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
    one, two = (
        jnp.broadcast_to(operand, (mapped, *operand.shape))
        if axis is None
        else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    )
    one, two = (operand.reshape(-1, *operand.shape[2:]) for operand in (one, two))
    y = primitive.bind(one, two, **where)
    return y.reshape(mapped, -1, *y.shape[1:]), 0


_define(convolution, _output_shape, passes.lax_convolution, passes.cpu_convolution)
_define(input_gradient, _input_shape, passes.lax_input_gradient, passes.cpu_input_gradient)
_define(kernel_gradient, _kernel_shape, passes.lax_kernel_gradient, passes.cpu_kernel_gradient)
batching.primitive_batchers[convolution] = partial(_batch_with_images, convolution)
batching.primitive_batchers[input_gradient] = partial(_batch_with_images, input_gradient)
batching.primitive_batchers[kernel_gradient] = partial(_batch_all, kernel_gradient)
