"""Shares the parts of a kernel to XLA's threads.

A kernel has a fixed number of parts, so its sums have the same order whatever the number of
threads. Parts are called by their address. Otherwise every function on the way to them would be
compiled with all of their code in it.
"""

from typing import Any

from llvmlite import ir
from numba import int64, types

from normlab.ops.native.calls import (
    API,
    CONTEXT,
    NUMBER_OF_THREADS,
    SCHEDULE,
    WORD,
    add_at,
    allocate,
    call_at,
    compiled,
    free,
    give_way,
    intrinsic,
    put,
    word,
)

NEXT, DONE, USERS, PARTS, WORK, FRAME, SCRATCH, CALL = range(0, 8 * WORD, WORD)
THREADS, BLOCK_SIZE = CALL + 5 * WORD, CALL + 6 * WORD
"""Offsets in the block of words that the threads of one kernel share."""


def _address(context: Any, builder: Any, function: Any, *more: Any) -> Any:
    """The address of a C function of words, which calls a compiled one of words and types."""
    words = function.py_func.__code__.co_argcount - len(more)
    signature = types.void(*[int64] * words, *more)
    found = function.get_compile_result(signature)
    context.active_code_library.add_linking_library(found.library)
    module, word = builder.module, ir.IntType(64)
    kind = ir.FunctionType(ir.VoidType(), [word] * words)
    outer = ir.Function(module, kind, module.get_unique_name("called_by_address"))
    outer.linkage = "internal"
    inner = ir.IRBuilder(outer.append_basic_block())
    arguments = [*outer.args, *[context.get_dummy_value()] * len(more)]
    context.call_internal_no_propagate(inner, found.fndesc, signature, arguments)
    inner.ret_void()
    return builder.ptrtoint(outer, word)


@intrinsic
def part_of(context: Any, function: Any, dtype: Any) -> Any:
    """Return the address of `function(frame, scratch, part, dtype)`, for `share`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _address(context, builder, function.dispatcher, dtype)

    return int64(function, dtype), generate


@intrinsic
def _call_part(context: Any, work: Any, frame: Any, scratch: Any, part: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 3).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])
        return context.get_dummy_value()

    return types.void(int64, int64, int64, int64), generate


@compiled
def _take_parts(block: int) -> None:
    parts, work = word(block, PARTS), word(block, WORK)
    frame, scratch = word(block, FRAME), word(block, SCRATCH)
    part = add_at(block + NEXT, 1)
    while part < parts:
        _call_part(work, frame, scratch, part)
        add_at(block + DONE, 1)
        part = add_at(block + NEXT, 1)


@compiled
def _leave(block: int) -> None:
    """Let go of the block; the last to do so frees it."""
    if add_at(block + USERS, -1) == 1:
        free(block)


@compiled
def _help(block: int) -> None:
    """Do what another thread does with a block."""
    _take_parts(block)
    _leave(block)


@intrinsic
def _helper(context: Any) -> Any:
    """Return the address of `_help`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _address(context, builder, _help)

    return int64(), generate


@compiled
def share(work: int, frame: int, scratch: int, parts: int) -> None:
    """Call a function for each part, with the help of XLA's threads.

    The calling thread works too, and takes parts until none is left. It then waits for parts that
    another thread has begun, never for one that has not begun, so full threads cannot lock it out.
    XLA may start a helper when nothing is left to do, so the block outlives the call.

    Args:
        work: the address of the function, from `part_of`.
        frame: XLA's call frame.
        scratch: where the parts leave what they have for each other.
        parts: their number.
    """
    block = allocate(BLOCK_SIZE)
    put(block, NEXT, 0)
    put(block, DONE, 0)
    put(block, PARTS, parts)
    put(block, WORK, work)
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
    put(call, 3 * WORD, _helper())
    put(call, 4 * WORD, block)
    for _ in range(helpers):
        if call_at(word(api, SCHEDULE), call) != 0:
            _leave(block)
    _take_parts(block)
    while add_at(block + DONE, 0) < parts:
        give_way()
    _leave(block)
