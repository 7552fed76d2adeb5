"""Short vectors of float32 for kernels: added, multiplied and summed. `memory` loads and stores.

A kernel that is written in vectors is vector code on every processor: LLVM takes as many registers
for one as it needs. Products and sums are rounded one by one, so results are those of float32
arithmetic in the written order. Sums over many vectors are kept in float64 (`Doubles`).
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import float32, types
from numba.extending import models, overload, register_model

from normlab.ops.native.calls import compiled, intrinsic

LANES = 32
"""Values in a vector: two registers of AVX512, so that sums need not wait for one another."""

INDEX = ir.IntType(32)


def vector_of(element: ir.Type) -> ir.VectorType:
    """Make LLVM's type of a vector."""
    return ir.VectorType(element, LANES)


FLOATS, DOUBLES, BITS = vector_of(ir.FloatType()), vector_of(ir.DoubleType()), vector_of(INDEX)


class Lanes(types.Type):
    """The type of a vector of float32."""


class Doubles(types.Type):
    """The type of a vector of float64."""


VECTOR, WIDE = Lanes("Lanes"), Doubles("Doubles")
"""What tells numba these types."""


def _is_kept_as(of: type, kept: ir.Type) -> None:
    class Model(models.PrimitiveModel):
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, kept)

    register_model(of)(Model)


_is_kept_as(Lanes, FLOATS)
_is_kept_as(Doubles, DOUBLES)


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


def repeated(builder: Any, value: Any) -> Any:
    """Write the instructions for a vector whose values are all `value`."""
    vector = vector_of(value.type)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, INDEX(0))
    first = ir.Constant(BITS, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), first)


@intrinsic
def repeat(context: Any, value: Any) -> Any:
    """Make a vector of one value."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return repeated(builder, arguments[0])

    return {float32: VECTOR, types.float64: WIDE}[value](value), generate


@intrinsic
def widen(context: Any, vector: Any) -> Any:
    """Convert to float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(arguments[0], DOUBLES)

    return WIDE(vector), generate


@intrinsic
def narrow(context: Any, vector: Any) -> Any:
    """Round to float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptrunc(arguments[0], FLOATS)

    return VECTOR(vector), generate


@intrinsic
def total(context: Any, vector: Any) -> Any:
    """Add up the values of a vector: halves to each other, down to one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (values,), count = arguments, LANES
        while count > 1:
            count //= 2
            half = ir.VectorType(INDEX, count)
            low, high = (
                builder.shuffle_vector(
                    values, values, ir.Constant(half, [*range(first, first + count)])
                )
                for first in (0, count)
            )
            values = builder.fadd(low, high)
        return builder.extract_element(values, INDEX(0))

    return float32(vector), generate


def _added_across(step: int) -> Any:
    """A function that adds to each value the one `step` lanes away, on the other side of a pair."""

    def add(context: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            lanes = ir.Constant(BITS, [lane ^ step for lane in range(LANES)])
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
        return builder.icmp_unsigned("!=", builder.bitcast(larger, INDEX), INDEX(0))

    return types.boolean(one, other), generate


@compiled
def padded(count: int) -> int:
    """Round a number of values up to whole vectors."""
    return (count + LANES - 1) // LANES * LANES
