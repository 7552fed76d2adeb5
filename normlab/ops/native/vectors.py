"""Short vectors of float32 for kernels: loaded from any dtype, added, multiplied, and stored.

A kernel that is written in vectors is vector code on every processor: LLVM takes as many registers
for one as it needs. Products and sums are rounded one by one, so results are those of float32
arithmetic in the written order. Sums over many vectors are kept in float64 (`Doubles`).
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import float32, int16, int64, types, uint16
from numba.core import cgutils
from numba.extending import models, overload, register_model

from normlab.ops.native.calls import compiled, intrinsic

LANES = 32
"""Values in a vector: two registers of AVX512, so that sums need not wait for one another."""

PAST_CACHES = 1 << 24
"""An output of so many bytes is written past the caches, in which it would not stay."""

BFLOAT16, FLOAT16 = uint16, int16
"""What tells numba these dtypes, which it does not have itself."""

_bit, _word, _index = ir.IntType(1), ir.IntType(64), ir.IntType(32)


def _of(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


_floats, _doubles, _bits = _of(ir.FloatType()), _of(ir.DoubleType()), _of(_index)
_in_memory = {float32: _floats, BFLOAT16: _of(ir.IntType(16)), FLOAT16: _of(ir.HalfType())}
_bytes = {float32: 4, BFLOAT16: 2, FLOAT16: 2}


class Lanes(types.Type):
    """The type of a vector of float32."""


class Doubles(types.Type):
    """The type of a vector of float64."""


_lanes, _wide = Lanes("Lanes"), Doubles("Doubles")


def _is_kept_as(of: type, kept: ir.Type) -> None:
    class Model(models.PrimitiveModel):
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, kept)

    register_model(of)(Model)


_is_kept_as(Lanes, _floats)
_is_kept_as(Doubles, _doubles)


def _has_operator(symbol: Callable[..., Any], instruction: str) -> None:
    @intrinsic
    def apply(context: Any, one: Any, other: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return one(one, other), generate

    @overload(symbol)
    def _(one, other):  # numba wants it written as the lambda is
        if isinstance(one, Lanes | Doubles) and one == other:
            return lambda one, other: apply(one, other)
        return None


_has_operator(operator.add, "fadd")
_has_operator(operator.sub, "fsub")
_has_operator(operator.mul, "fmul")


def _repeated(builder: Any, value: Any) -> Any:
    """A vector whose values are all `value`."""
    vector = _of(value.type)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _index(0))
    first = ir.Constant(_bits, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), first)


@intrinsic
def repeat(context: Any, value: Any) -> Any:
    """Make a vector of one value."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _repeated(builder, arguments[0])

    return {float32: _lanes, types.float64: _wide}[value](value), generate


@intrinsic
def widen(context: Any, vector: Any) -> Any:
    """Convert to float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(arguments[0], _doubles)

    return _wide(vector), generate


@intrinsic
def narrow(context: Any, vector: Any) -> Any:
    """Round to float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptrunc(arguments[0], _floats)

    return _lanes(vector), generate


@intrinsic
def total(context: Any, vector: Any) -> Any:
    """Add up the values of a vector: halves to each other, down to one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (values,), count = arguments, LANES
        while count > 1:
            count //= 2
            half = ir.VectorType(_index, count)
            low, high = (
                builder.shuffle_vector(
                    values, values, ir.Constant(half, [*range(first, first + count)])
                )
                for first in (0, count)
            )
            values = builder.fadd(low, high)
        return builder.extract_element(values, _index(0))

    return float32(vector), generate


def _place(builder: Any, address: Any, index: Any, dtype: Any) -> Any:
    moved = builder.add(address, builder.mul(index, _word(_bytes[dtype])))
    return builder.inttoptr(moved, _in_memory[dtype].as_pointer())


def _first(builder: Any, count: Any) -> Any:
    """Which lanes are the first `count`."""
    lanes = ir.Constant(_bits, [*range(LANES)])
    return builder.icmp_signed("<", lanes, _repeated(builder, builder.trunc(count, _index)))


def _masked(builder: Any, name: str, kind: Any, result: Any, *arguments: Any) -> Any:
    element = kind.element.intrinsic_name
    signature = ir.FunctionType(result, [one.type for one in arguments])
    name = f"llvm.masked.{name}.v{LANES}{element}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def _from_memory(builder: Any, values: Any, dtype: Any) -> Any:
    if dtype == BFLOAT16:
        upper = builder.shl(builder.zext(values, _bits), ir.Constant(_bits, [16] * LANES))
        return builder.bitcast(upper, _floats)
    return builder.fpext(values, _floats) if dtype == FLOAT16 else values


def _to_memory(builder: Any, values: Any, dtype: Any) -> Any:
    """Round to the nearest, or else the even one."""
    if dtype == FLOAT16:
        return builder.fptrunc(values, _in_memory[dtype])
    if dtype == BFLOAT16:

        def number(value: int) -> Any:
            return ir.Constant(_bits, [value] * LANES)

        exact = builder.bitcast(values, _bits)
        last = builder.and_(builder.lshr(exact, number(16)), number(1))
        up = builder.add(builder.add(exact, number(0x7FFF)), last)
        quiet = builder.or_(exact, number(0x400000))
        kept = builder.select(builder.fcmp_unordered("uno", values, values), quiet, up)
        return builder.trunc(builder.lshr(kept, number(16)), _in_memory[dtype])
    return values


@intrinsic
def _load(context: Any, address: Any, index: Any, dtype: Any) -> Any:
    kind = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(builder, arguments[0], arguments[1], kind)
        return _from_memory(builder, builder.load(place, align=_bytes[kind]), kind)

    return _lanes(int64, int64, dtype), generate


@intrinsic
def _load_some(context: Any, address: Any, index: Any, count: Any, dtype: Any, other: Any) -> Any:
    kind = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given, memory = _first(builder, arguments[2]), _in_memory[kind]
        place, nothing = (
            _place(builder, arguments[0], arguments[1], kind),
            ir.Constant(memory, ir.Undefined),
        )
        align = _index(_bytes[kind])
        found = _masked(builder, "load", memory, memory, place, align, given, nothing)
        return builder.select(given, _from_memory(builder, found, kind), arguments[4])

    return _lanes(int64, int64, int64, dtype, other), generate


@compiled
def load(address: int, index: int, count: int, dtype: Any, other: Any) -> Any:
    """Load the vector from the value at `index` on; the lanes past the last value hold `other`."""
    if count >= LANES:
        return _load(address, index, dtype)
    return _load_some(address, index, count, dtype, other)


@intrinsic
def _fetch(context: Any, address: Any, index: Any, dtype: Any) -> Any:
    kind = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.add(arguments[0], builder.mul(arguments[1], _word(_bytes[kind])))
        place = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [place, _index, _index, _index])
        prefetch = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        for line in range(0, LANES * _bytes[kind], 64):
            there = builder.inttoptr(builder.add(address, _word(line)), place)
            builder.call(prefetch, [there, _index(0), _index(3), _index(1)])  # to read, soon, data
        return context.get_dummy_value()

    return types.void(int64, int64, dtype), generate


@compiled
def load_early(address: int, index: int, count: int, dtype: Any, other: Any, early: int) -> Any:
    """Load as `load` does, and begin to fetch what lies `early` values behind."""
    _fetch(address, index + early, dtype)
    return load(address, index, count, dtype, other)


@intrinsic
def _store(context: Any, address: Any, index: Any, dtype: Any, vector: Any, past: Any) -> Any:
    kind = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(builder, arguments[0], arguments[1], kind)
        kept = _to_memory(builder, arguments[3], kind)
        with builder.if_else(arguments[4]) as (streamed, cached):
            with streamed:
                written = builder.store(kept, place, align=64)
                written.set_metadata("nontemporal", builder.module.add_metadata([_index(1)]))
            with cached:
                builder.store(kept, place, align=_bytes[kind])
        return context.get_dummy_value()

    return types.void(int64, int64, dtype, vector, types.boolean), generate


@intrinsic
def _store_some(context: Any, address: Any, index: Any, count: Any, dtype: Any, vector: Any) -> Any:
    kind = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(builder, arguments[0], arguments[1], kind)
        kept, align = _to_memory(builder, arguments[4], kind), _index(_bytes[kind])
        mask = _first(builder, arguments[2])
        _masked(builder, "store", _in_memory[kind], ir.VoidType(), kept, place, align, mask)
        return context.get_dummy_value()

    return types.void(int64, int64, int64, dtype, vector), generate


@compiled
def store(address: int, index: int, count: int, dtype: Any, vector: Any, past: bool) -> None:
    """Store a vector, or its first `count` values.

    Args:
        address, index: where; if `past`, it is a multiple of 64 bytes.
        count: how many values may be written there.
        dtype: what they are rounded to.
        vector: values.
        past: whether they go past the caches, which need not read the place first.
    """
    if count >= LANES:
        _store(address, index, dtype, vector, past)
    else:
        _store_some(address, index, count, dtype, vector)


@intrinsic
def load_doubles(context: Any, address: Any, index: Any) -> Any:
    """Load the float64 from the value at `index` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        moved = builder.add(arguments[0], builder.mul(arguments[1], _word(8)))
        return builder.load(builder.inttoptr(moved, _doubles.as_pointer()), align=8)

    return _wide(int64, int64), generate


@intrinsic
def store_doubles(context: Any, address: Any, index: Any, vector: Any) -> Any:
    """Store a vector of float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        moved = builder.add(arguments[0], builder.mul(arguments[1], _word(8)))
        builder.store(arguments[2], builder.inttoptr(moved, _doubles.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(int64, int64, vector), generate


@compiled
def add_doubles(address: int, index: int, vector: Any) -> None:
    """Add a vector of float32 to the float64 from the one at `index` on."""
    store_doubles(address, index, load_doubles(address, index) + widen(vector))


@intrinsic
def bytes_of(context: Any, dtype: Any) -> Any:
    """Return the size of a value of that dtype."""
    return int64(dtype), lambda *_: _word(_bytes[dtype.dtype])


@intrinsic
def value(context: Any, address: Any, index: Any, dtype: Any) -> Any:
    """Load one value as float32."""
    kind = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(builder, arguments[0], arguments[1], kind)
        element = _in_memory[kind].element
        found = builder.load(builder.bitcast(place, element.as_pointer()), align=_bytes[kind])
        if kind == BFLOAT16:
            upper = builder.shl(builder.zext(found, _index), _index(16))
            return builder.bitcast(upper, ir.FloatType())
        return builder.fpext(found, ir.FloatType()) if kind == FLOAT16 else found

    return float32(int64, int64, dtype), generate


def _added_across(step: int) -> Any:
    """A function that adds to each value the one `step` lanes away, on the other side of a pair."""

    def add(context: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            lanes = ir.Constant(_bits, [lane ^ step for lane in range(LANES)])
            (values,) = arguments
            return builder.fadd(values, builder.shuffle_vector(values, values, lanes))

        return vector(vector), generate

    return intrinsic(add)


_across_1, _across_2, _across_4 = _added_across(1), _added_across(2), _added_across(4)
_across_8, _across_16 = _added_across(8), _added_across(16)


@compiled
def sums_within(vector: Any, width: int) -> Any:
    """Add up each `width` values, a power of two, and put the sum in the place of all of them.

    The sum of equal values is exact.
    """
    if width > 1:
        vector = _across_1(vector)
    if width > 2:
        vector = _across_2(vector)
    if width > 4:
        vector = _across_4(vector)
    if width > 8:
        vector = _across_8(vector)
    if width > 16:
        vector = _across_16(vector)
    return vector


@intrinsic
def exceeds(context: Any, one: Any, other: Any) -> Any:
    """Return whether a value of `one` is larger than that of `other`, or one of them is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        larger = builder.fcmp_unordered(">", *arguments)
        return builder.icmp_unsigned("!=", builder.bitcast(larger, _index), _index(0))

    return types.boolean(one, other), generate


@compiled
def padded(count: int) -> int:
    """Round a number of values up to whole vectors."""
    return (count + LANES - 1) // LANES * LANES
