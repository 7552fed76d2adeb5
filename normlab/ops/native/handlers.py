"""The compiled kernels as functions that XLA calls, and the sharing of their parts to its threads.

A kernel has a fixed number of parts, so that its sums have the same order whatever the number of
threads.
"""

from typing import Any

from llvmlite import ir
from numba import cfunc, float32, int64, types

from normlab.ops.native import image_gradients, images, kernel_gradients, rows
from normlab.ops.native.calls import (
    API,
    CONTEXT,
    KERNEL,
    NUMBER_OF_THREADS,
    SCHEDULE,
    WORD,
    add_at,
    allocate,
    asks_for_version,
    call_at,
    compiled,
    free,
    give_way,
    intrinsic,
    put,
    setting,
    size,
    word,
)
from normlab.ops.native.vectors import BFLOAT16, FLOAT16

ROWS_FORWARD, ROWS_BACKWARD, IMAGES_FORWARD, IMAGES_BACKWARD, KERNEL_GRADIENT = range(5)
"""Kernels."""

SUMS, OUTPUT, WHOLE = range(3)
"""What a part is: the sums of a block, the output of a block, or all of one `outer` (or of some
rows). For a kernel gradient: the sums of some images, or the output of a row of the kernel."""


@compiled
def _sums(kernel: int, frame: int, scratch: int, outer: int, block: int, dtype: Any) -> None:
    if kernel == IMAGES_FORWARD:
        images.moments(frame, scratch, outer, block, dtype)
    else:
        image_gradients.products_and_sums(frame, scratch, outer, block, dtype)


@compiled
def _merge(kernel: int, frame: int, scratch: int, outer: int) -> None:
    if kernel == IMAGES_FORWARD:
        images.merge(frame, scratch, outer)
    else:
        image_gradients.combine(frame, scratch, outer)


@compiled
def _output(kernel: int, frame: int, scratch: int, outer: int, block: int, dtype: Any) -> None:
    if kernel == IMAGES_FORWARD:
        images.normalise(frame, outer, block, dtype)
    else:
        image_gradients.gradients(frame, scratch, outer, block, dtype)


@compiled
def _work(kernel: int, phase: int, frame: int, scratch: int, part: int, dtype: Any) -> None:
    if kernel == ROWS_FORWARD:
        rows.forward(frame, scratch, part, dtype)
        return
    if kernel == ROWS_BACKWARD:
        rows.backward(frame, scratch, part, dtype)
        return
    if kernel == KERNEL_GRADIENT:
        if phase == SUMS:
            kernel_gradients.sums(frame, scratch, part)
        else:
            kernel_gradients.total(frame, scratch, part)
        return
    blocks = images.blocks_of(size(frame, 0, 1), size(frame, 0, 2))
    if phase == SUMS:
        _sums(kernel, frame, scratch, part // blocks, part % blocks, dtype)
    elif phase == OUTPUT:
        _output(kernel, frame, scratch, part // blocks, part % blocks, dtype)
    else:
        for block in range(blocks):
            _sums(kernel, frame, scratch, part, block, dtype)
        _merge(kernel, frame, scratch, part)
        for block in range(blocks):
            _output(kernel, frame, scratch, part, block, dtype)


NEXT, DONE, USERS, PARTS, WHICH, PHASE, FRAME, SCRATCH, CALL = range(0, 9 * WORD, WORD)
THREADS, BLOCK_SIZE = CALL + 5 * WORD, CALL + 6 * WORD
"""Offsets in the block of words that the threads of one kernel share."""


@compiled
def _take_parts(block: int, dtype: Any) -> None:
    parts, kernel, phase = word(block, PARTS), word(block, WHICH), word(block, PHASE)
    frame, scratch = word(block, FRAME), word(block, SCRATCH)
    part = add_at(block + NEXT, 1)
    while part < parts:
        _work(kernel, phase, frame, scratch, part, dtype)
        add_at(block + DONE, 1)
        part = add_at(block + NEXT, 1)


@compiled
def _leave(block: int) -> None:
    """Let go of the block; the last to do so frees it."""
    if add_at(block + USERS, -1) == 1:
        free(block)


def _help_in_float32(block: int) -> None:
    _take_parts(block, float32)
    _leave(block)


def _help_in_bfloat16(block: int) -> None:
    _take_parts(block, BFLOAT16)
    _leave(block)


def _help_in_float16(block: int) -> None:
    _take_parts(block, FLOAT16)
    _leave(block)


_helpers = {float32: _help_in_float32, BFLOAT16: _help_in_bfloat16, FLOAT16: _help_in_float16}


@intrinsic
def _helper(context: Any, dtype: Any) -> Any:
    """The address of one of `_helpers` as a C function, which is compiled into the same program."""
    helper = _helpers[dtype.dtype]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = context.compile_subroutine(builder, helper, types.void(int64))
        module = builder.module
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        function = ir.Function(module, kind, module.get_unique_name("help_out"))
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block())
        context.call_internal_no_propagate(inner, found.fndesc, found.signature, function.args)
        inner.ret_void()
        return builder.ptrtoint(function, ir.IntType(64))

    return int64(dtype), generate


@compiled
def _share(kernel: int, phase: int, frame: int, scratch: int, parts: int, dtype: Any) -> None:
    """Call `_work` for each part, with the help of XLA's threads.

    The calling thread works too, and takes parts until none is left. It then waits for parts that
    another thread has begun, never for one that has not begun, so full threads cannot lock it out.
    XLA may start a helper when nothing is left to do, so the block outlives the call.
    """
    block = allocate(BLOCK_SIZE)
    put(block, NEXT, 0)
    put(block, DONE, 0)
    put(block, PARTS, parts)
    put(block, WHICH, kernel)
    put(block, PHASE, phase)
    put(block, FRAME, frame)
    put(block, SCRATCH, scratch)
    # Both functions take their arguments' size, no extension, the context, and what is asked.
    api, call = word(frame, API), block + CALL
    put(call, 0, 4 * WORD)
    put(call, WORD, 0)
    put(call, 2 * WORD, word(frame, CONTEXT))
    put(call, 3 * WORD, block + THREADS)
    threads = 1
    if parts > 1 and call_at(word(api, NUMBER_OF_THREADS), call) == 0:
        threads = word(block, THREADS)
    helpers = min(threads, parts) - 1
    put(block, USERS, 1 + helpers)
    put(call, 0, 5 * WORD)
    put(call, 3 * WORD, _helper(dtype))
    put(call, 4 * WORD, block)
    for _ in range(helpers):
        if call_at(word(api, SCHEDULE), call) != 0:
            _leave(block)
    _take_parts(block, dtype)
    while add_at(block + DONE, 0) < parts:
        give_way()
    _leave(block)


@compiled
def _rows(kernel: int, frame: int, dtype: Any) -> None:
    positions, channels = size(frame, 0, 0), size(frame, 0, 1)
    parts = rows.parts_of(positions, channels)
    scratch = allocate(rows.scratch_bytes(positions, channels))
    _share(kernel, WHOLE, frame, scratch, parts, dtype)
    if kernel == ROWS_BACKWARD:
        rows.backward_sums(frame, scratch)
    free(scratch)


@compiled
def _images(kernel: int, frame: int, dtype: Any) -> None:
    outers, channels = size(frame, 0, 0), size(frame, 0, 2)
    blocks = outers * images.blocks_of(size(frame, 0, 1), channels)
    # Where along and level lie, a group has two numbers, and there are at most C groups.
    scratch = allocate(16 * blocks * channels + 8 * outers * channels)
    if outers >= images.MANY:
        _share(kernel, WHOLE, frame, scratch, outers, dtype)
    else:
        _share(kernel, SUMS, frame, scratch, blocks, dtype)
        for outer in range(outers):
            _merge(kernel, frame, scratch, outer)
        _share(kernel, OUTPUT, frame, scratch, blocks, dtype)
    if kernel == IMAGES_BACKWARD:
        image_gradients.params(frame, scratch)
    free(scratch)


@compiled
def _kernel_gradient(kernel: int, frame: int, dtype: Any) -> None:
    scratch = allocate(kernel_gradients.scratch_size(frame))
    _share(kernel, SUMS, frame, scratch, kernel_gradients.parts_of(frame), dtype)
    _share(kernel, OUTPUT, frame, scratch, kernel_gradients.rows_of(frame), dtype)
    free(scratch)


@compiled
def _run(frame: int, dtype: Any) -> int:
    """Run the kernel that the settings name."""
    if asks_for_version(frame):
        return 0
    kernel = int(setting(frame, KERNEL))
    if kernel <= ROWS_BACKWARD:
        _rows(kernel, frame, dtype)
    elif kernel == KERNEL_GRADIENT:
        _kernel_gradient(kernel, frame, dtype)
    else:
        _images(kernel, frame, dtype)
    return 0


# numba keeps what it compiled under a function's name, so each dtype has one.


def _run_float32(frame: int) -> int:
    return _run(frame, float32)


def _run_bfloat16(frame: int) -> int:
    return _run(frame, BFLOAT16)


def _run_float16(frame: int) -> int:
    return _run(frame, FLOAT16)


RUN = {"float32": _run_float32, "bfloat16": _run_bfloat16, "float16": _run_float16}


def compile_kernels(dtype: str, keep: bool) -> Any:
    """Compile the kernels of a dtype as a C function.

    Args:
        dtype: one of `RUN`.
        keep: whether to read it from numba's cache, or to write it there.
    """
    return cfunc(int64(int64), error_model="numpy", cache=keep)(RUN[dtype])
