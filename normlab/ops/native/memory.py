"""Loads vectors of float32 from values of any dtype, and stores them rounded to it."""

from typing import Any

from llvmlite import ir
from numba import float32, int16, int64, types, uint16
from numba.core import cgutils

from normlab.ops.native.calls import compiled, intrinsic
from normlab.ops.native.vectors import (
    BITS,
    DOUBLES,
    FLOATS,
    INDEX,
    LANES,
    VECTOR,
    WIDE,
    repeated,
    vector_of,
    widen,
)

PAST_CACHES = 1 << 24
"""An output of so many bytes is written past the caches, in which it would not stay."""

BFLOAT16, FLOAT16 = uint16, int16
"""What tells numba these dtypes, which it does not have itself."""

_word = ir.IntType(64)
_in_memory = {
    float32: FLOATS,
    BFLOAT16: vector_of(ir.IntType(16)),
    FLOAT16: vector_of(ir.HalfType()),
}
_bytes = {float32: 4, BFLOAT16: 2, FLOAT16: 2}


def _place(builder: Any, address: Any, index: Any, dtype: Any) -> Any:
    moved = builder.add(address, builder.mul(index, _word(_bytes[dtype])))
    return builder.inttoptr(moved, _in_memory[dtype].as_pointer())


def _first(builder: Any, count: Any) -> Any:
    """Which lanes are the first `count`."""
    lanes = ir.Constant(BITS, [*range(LANES)])
    return builder.icmp_signed("<", lanes, repeated(builder, builder.trunc(count, INDEX)))


def _masked(builder: Any, name: str, kind: Any, result: Any, *arguments: Any) -> Any:
    element = kind.element.intrinsic_name
    signature = ir.FunctionType(result, [one.type for one in arguments])
    name = f"llvm.masked.{name}.v{LANES}{element}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def _from_memory(builder: Any, values: Any, dtype: Any) -> Any:
    if dtype == BFLOAT16:
        upper = builder.shl(builder.zext(values, BITS), ir.Constant(BITS, [16] * LANES))
        return builder.bitcast(upper, FLOATS)
    return builder.fpext(values, FLOATS) if dtype == FLOAT16 else values


def _to_memory(builder: Any, values: Any, dtype: Any) -> Any:
    """Round to the nearest, or else the even one."""
    if dtype == FLOAT16:
        return builder.fptrunc(values, _in_memory[dtype])
    if dtype == BFLOAT16:

        def number(value: int) -> Any:
            return ir.Constant(BITS, [value] * LANES)

        exact = builder.bitcast(values, BITS)
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

    return VECTOR(int64, int64, dtype), generate


@intrinsic
def _load_some(context: Any, address: Any, index: Any, count: Any, dtype: Any, other: Any) -> Any:
    kind = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given, memory = _first(builder, arguments[2]), _in_memory[kind]
        place, nothing = (
            _place(builder, arguments[0], arguments[1], kind),
            ir.Constant(memory, ir.Undefined),
        )
        align = INDEX(_bytes[kind])
        found = _masked(builder, "load", memory, memory, place, align, given, nothing)
        return builder.select(given, _from_memory(builder, found, kind), arguments[4])

    return VECTOR(int64, int64, int64, dtype, other), generate


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
        function = ir.FunctionType(ir.VoidType(), [place, INDEX, INDEX, INDEX])
        prefetch = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        for line in range(0, LANES * _bytes[kind], 64):
            there = builder.inttoptr(builder.add(address, _word(line)), place)
            builder.call(prefetch, [there, INDEX(0), INDEX(3), INDEX(1)])  # to read, soon, data
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
                written.set_metadata("nontemporal", builder.module.add_metadata([INDEX(1)]))
            with cached:
                builder.store(kept, place, align=_bytes[kind])
        return context.get_dummy_value()

    return types.void(int64, int64, dtype, vector, types.boolean), generate


@intrinsic
def _store_some(context: Any, address: Any, index: Any, count: Any, dtype: Any, vector: Any) -> Any:
    kind = dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(builder, arguments[0], arguments[1], kind)
        kept, align = _to_memory(builder, arguments[4], kind), INDEX(_bytes[kind])
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
        return builder.load(builder.inttoptr(moved, DOUBLES.as_pointer()), align=8)

    return WIDE(int64, int64), generate


@intrinsic
def store_doubles(context: Any, address: Any, index: Any, vector: Any) -> Any:
    """Store a vector of float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        moved = builder.add(arguments[0], builder.mul(arguments[1], _word(8)))
        builder.store(arguments[2], builder.inttoptr(moved, DOUBLES.as_pointer()), align=8)
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
            upper = builder.shl(builder.zext(found, INDEX), INDEX(16))
            return builder.bitcast(upper, ir.FloatType())
        return builder.fpext(found, ir.FloatType()) if kind == FLOAT16 else found

    return float32(int64, int64, dtype), generate
