"""The compiled kernels as functions that XLA calls, one for each form of a kernel and each dtype.

Each is compiled by itself, when it is first needed.
"""

from collections.abc import Callable
from typing import Any

from numba import cfunc, float32, int64

from normlab.ops.native import image_gradients, images, kernel_gradients, rows
from normlab.ops.native.calls import allocate, asks_for_version, free, size
from normlab.ops.native.memory import BFLOAT16, FLOAT16
from normlab.ops.native.parts import part_of, share

Handler = Callable[[int], int]
"""Runs a kernel on the arrays that a call frame of XLA's names; zero says that it succeeded."""


def rows_forward(dtype: Any) -> Handler:
    """Make the handler of `rows.forward`."""

    def run(frame):
        if asks_for_version(frame):
            return 0
        parts = rows.parts_of(size(frame, 0, 0), size(frame, 0, 1))
        share(part_of(rows.forward, dtype), frame, 0, parts)
        return 0

    return run


def rows_backward(dtype: Any) -> Handler:
    """Make the handler of `rows.backward`."""

    def run(frame):
        if asks_for_version(frame):
            return 0
        positions, channels = size(frame, 0, 0), size(frame, 0, 1)
        scratch = allocate(rows.scratch_bytes(positions, channels))
        share(part_of(rows.backward, dtype), frame, scratch, rows.parts_of(positions, channels))
        rows.backward_sums(frame, scratch)
        free(scratch)
        return 0

    return run


def images_forward(dtype: Any) -> Handler:
    """Make the handler of the kernels in `images`."""

    def run(frame):
        if asks_for_version(frame):
            return 0
        outers, blocks = size(frame, 0, 0), images.blocks_of(size(frame, 0, 1), size(frame, 0, 2))
        scratch = allocate(images.scratch_bytes(frame))
        if outers >= images.MANY:
            share(part_of(images.whole, dtype), frame, scratch, outers)
        else:
            share(part_of(images.moments, dtype), frame, scratch, outers * blocks)
            for outer in range(outers):
                images.merge(frame, scratch, outer)
            share(part_of(images.normalise, dtype), frame, scratch, outers * blocks)
        free(scratch)
        return 0

    return run


def images_backward(dtype: Any) -> Handler:
    """Make the handler of the kernels in `image_gradients`."""

    def run(frame):
        if asks_for_version(frame):
            return 0
        outers, blocks = size(frame, 0, 0), images.blocks_of(size(frame, 0, 1), size(frame, 0, 2))
        scratch = allocate(images.scratch_bytes(frame))
        if outers >= images.MANY:
            share(part_of(image_gradients.whole, dtype), frame, scratch, outers)
        else:
            sums = part_of(image_gradients.products_and_sums, dtype)
            share(sums, frame, scratch, outers * blocks)
            for outer in range(outers):
                image_gradients.combine(frame, scratch, outer)
            share(part_of(image_gradients.gradients, dtype), frame, scratch, outers * blocks)
        image_gradients.params(frame, scratch)
        free(scratch)
        return 0

    return run


def kernel_gradient(dtype: Any) -> Handler:
    """Make the handler of the kernels in `kernel_gradients`."""

    def run(frame):
        if asks_for_version(frame):
            return 0
        scratch, parts = allocate(kernel_gradients.scratch_bytes(frame)), kernel_gradients.parts_of
        share(part_of(kernel_gradients.sums, dtype), frame, scratch, parts(frame))
        rows_of = kernel_gradients.rows_of
        share(part_of(kernel_gradients.total, dtype), frame, scratch, rows_of(frame))
        free(scratch)
        return 0

    return run


FORMS: dict[str, Callable[[Any], Handler]] = {
    made.__name__: made
    for made in (rows_forward, rows_backward, images_forward, images_backward, kernel_gradient)
}
DTYPES = {"float32": float32, "bfloat16": BFLOAT16, "float16": FLOAT16}


def compile_kernel(form: str, dtype: str, keep: bool) -> Any:
    """Compile a kernel for a dtype as a C function.

    Args:
        form: one of `FORMS`.
        dtype: one of `DTYPES`.
        keep: whether to read it from numba's cache, or to write it there.
    """
    made = FORMS[form](DTYPES[dtype])
    return cfunc(int64(int64), error_model="numpy", cache=keep)(made)
