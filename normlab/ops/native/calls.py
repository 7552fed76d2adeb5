"""The part of XLA's C interface that the compiled kernels need, for numba.

XLA calls a compiled function with the address of a call frame, which names the arrays and their
sizes (`xla/ffi/api/c_api.h`, which jaxlib ships; `jax.ffi.include_dir()` says where). The layout of
the frame belongs to the stable interface. The numbers below are offsets in bytes on a 64-bit
machine.
"""

from typing import Any

from llvmlite import ir
from numba import (
    carray,  # pyright: ignore[reportPrivateImportUsage]
    float32,
    float64,
    int64,
    njit,
    types,
)
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

API, CONTEXT, ARGUMENTS, RESULTS = 16, 24, 72, 112
"""In a call frame: the interface, the call's context, and the arrays of arguments and results."""

EXTENSION, METADATA, API_VERSION = 8, 24, 32
"""XLA asks once for the version that a function was made for, by an extension of the frame."""

SCHEDULE, NUMBER_OF_THREADS = 136, 144
"""Functions of the interface."""

DATA, SIZES = 24, 40
"""In a buffer: where its values lie, and the sizes of its axes."""

EPS, CENTRED = range(2)
"""In the settings."""

WORD = 8
_word, _nothing = ir.IntType(64), ir.VoidType()
intrinsic: Any = _intrinsic
"""Make a function of numba's out of one that writes LLVM's instructions; the caller does not pass
`context`, so its type would be wrong."""

_njit: Any = njit
compiled: Any = _njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Compile a function of a kernel; division by zero gives infinity."""


@intrinsic
def _pointer(context: Any, address: Any, kind: Any) -> Any:
    """Take an address as that of values of a type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(kind.dtype)(address, kind), generate


@intrinsic
def add_at(context: Any, address: Any, amount: Any) -> Any:
    """Add to the word at an address, which other threads may do too; return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _word.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return int64(int64, int64), generate


@intrinsic
def call_at(context: Any, function: Any, argument: Any) -> Any:
    """Call the C function at an address with one address; zero says that it succeeded."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_word, [_word]).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), [arguments[1]])

    return int64(int64, int64), generate


def _from_c(name: str, result: Any, *given: Any) -> Any:
    """A function of the C library, by name: an address would not outlive this process."""
    ctypes = {int64: _word, types.void: _nothing}

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ctypes[result], [ctypes[one] for one in given])
        found = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
        return context.get_dummy_value() if result is types.void else found

    def of_one(context: Any, argument: Any) -> Any:
        return result(*given), generate

    def of_none(context: Any) -> Any:
        return result(), generate

    return intrinsic(of_one if given else of_none)


allocate = _from_c("malloc", int64, int64)
free = _from_c("free", types.void, int64)
give_way = _from_c("sched_yield", types.void)


@intrinsic
def _load(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _word.as_pointer()))

    return int64(int64), generate


@intrinsic
def _store(context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], _word.as_pointer()))
        return context.get_dummy_value()

    return types.void(int64, int64), generate


@compiled
def word(address: int, offset: int) -> int:
    """Read a word."""
    return _load(address + offset)


@compiled
def put(address: int, offset: int, value: int) -> None:
    """Write a word."""
    _store(address + offset, value)


@compiled
def floats(address: int, index: int, count: int) -> Any:
    """View `count` numbers of type float32, from the one at `index` on."""
    return carray(_pointer(address + 4 * index, float32), count)


@compiled
def doubles(address: int, index: int, count: int) -> Any:
    """View `count` numbers of type float64, from the one at `index` on."""
    return carray(_pointer(address + 8 * index, float64), count)


@compiled
def argument(frame: int, index: int) -> int:
    """Return where the values of an argument lie."""
    return word(word(word(frame, ARGUMENTS), WORD * index), DATA)


@compiled
def result(frame: int, index: int) -> int:
    """Return where the values of a result are to be written."""
    return word(word(word(frame, RESULTS), WORD * index), DATA)


@compiled
def size(frame: int, index: int, axis: int) -> int:
    """Return the size of an argument's axis."""
    return word(word(word(word(frame, ARGUMENTS), WORD * index), SIZES), WORD * axis)


@compiled
def setting(frame: int, index: int) -> float:
    """Return a number of the settings, which are argument 3 of every call, float32."""
    return floats(argument(frame, 3), index, 1)[0]


@compiled
def asks_for_version(frame: int) -> bool:
    """Answer with the running version, if that is all that XLA wants to know."""
    extension = word(frame, EXTENSION)
    if extension == 0:
        return False
    metadata = word(extension, METADATA)
    put(metadata, METADATA, word(word(frame, API), API_VERSION))
    put(metadata, METADATA + WORD, 0)
    return True
