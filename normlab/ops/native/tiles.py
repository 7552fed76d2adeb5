"""The small matrix product of which convolutions are made, and the copies of images that it reads.

A tile has some values on its left and some vectors on its right. Its sums, of each value times each
vector, stay in registers while two loops go over what is summed.
"""

from typing import Any

from llvmlite import binding, ir
from numba import float32, int64, types
from numba.core import cgutils

from normlab.ops.native.calls import argument, compiled, floats, intrinsic, size
from normlab.ops.native.memory import load, store
from normlab.ops.native.vectors import LANES as VALUES
from normlab.ops.native.vectors import repeat

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers in a vector of this processor; one with shorter vectors takes several in their place."""

REGISTERS = 32 if LANES == 16 else 16
"""Vectors that the processor holds at once, of which a few are for the right and the left."""


def tile_of(values: int, vectors: int) -> Any:
    """Make the function that sums a tile.

    Its arguments are: addresses of the left, the right and the sums; the numbers of rows and
    columns to sum over; and bytes from one value of the left to the next, from one row and one
    column of the left to the next, the same for the right, and from one value's sums to the next.
    What it sums is added to the sums in memory at the end, so that errors stay small.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, sums, rows, columns, apart, left_row, left_column = arguments[:8]
        right_row, right_column, line = arguments[8:]
        number = ir.FloatType()
        vector = ir.VectorType(number, LANES)
        unset, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0.0] * LANES)
        first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)

        def moved(address: Any, step: Any, count: Any) -> Any:
            return builder.add(address, builder.mul(step, count))

        def place(address: Any, index: int) -> Any:
            address = builder.add(address, address.type(4 * LANES * index))
            return builder.inttoptr(address, vector.as_pointer())

        def everywhere(address: Any) -> Any:
            one = builder.load(builder.inttoptr(address, number.as_pointer()))
            return builder.shuffle_vector(
                builder.insert_element(unset, one, ir.IntType(32)(0)), unset, first
            )

        lines = [moved(sums, line, line.type(i)) for i in range(values)]
        steps = [builder.mul(apart, apart.type(i)) for i in range(values)]
        places = [(i, k) for i in range(values) for k in range(vectors)]
        held = {each: cgutils.alloca_once(builder, vector) for each in places}
        for each in places:
            builder.store(zeros, held[each])
        with cgutils.for_range(builder, rows) as row:
            left_start = moved(left, left_row, row.index)
            right_start = moved(right, right_row, row.index)
            with cgutils.for_range(builder, columns) as column:
                left_now = moved(left_start, left_column, column.index)
                right_now = moved(right_start, right_column, column.index)
                factors = [builder.load(place(right_now, k), align=4) for k in range(vectors)]
                for i in range(values):
                    one = everywhere(builder.add(left_now, steps[i]))
                    for k in range(vectors):
                        # Product and sum may be rounded as one.
                        product = builder.fmul(one, factors[k], flags=["contract"])
                        total = builder.fadd(builder.load(held[i, k]), product, flags=["contract"])
                        builder.store(total, held[i, k])
        for i, k in places:
            target = place(lines[i], k)
            total = builder.fadd(builder.load(target, align=4), builder.load(held[i, k]))
            builder.store(total, target, align=4)
        return context.get_dummy_value()

    def tile(
        context: Any, left: Any, right: Any, sums: Any, rows: Any, columns: Any, apart: Any,
        left_row: Any, left_column: Any, right_row: Any, right_column: Any, line: Any,
    ) -> Any:  # fmt: skip
        return types.void(*[int64] * 11), generate

    return intrinsic(tile)


@compiled
def rounded_up(count: int, unit: int) -> int:
    """Return the first multiple of `unit` that is not less."""
    return (count + unit - 1) // unit * unit


@compiled
def line_of(features: int) -> int:
    """Return for how many output channels there are sums: one vector, or pairs of vectors."""
    return rounded_up(features, LANES if features <= LANES else 2 * LANES)


@compiled
def geometry(frame: int) -> Any:
    """Return the strides of rows and columns, and the padding before the first ones.

    They are argument 2 of every call, float32.
    """
    given = floats(argument(frame, 2), 0, 4)
    return int64(given[0]), int64(given[1]), int64(given[2]), int64(given[3])


@compiled
def copy(source: int, index: int, count: int, target: int, dtype: Any) -> None:
    """Copy values as float32."""
    zero = repeat(float32(0))
    for j in range(0, count, VALUES):
        found = load(source, index + j, count - j, dtype, zero)
        store(target, j, count - j, float32, found, False)


@compiled
def copy_image(frame: int, image: int, before: int, seen: int, target: int, dtype: Any) -> None:
    """Copy an image of argument 0 as rows of `seen` pixels, of which `before` are padding.

    The padding must be zero already; it may be negative, which crops.
    """
    rows, columns, channels = size(frame, 0, 1), size(frame, 0, 2), size(frame, 0, 3)
    start, stop = max(0, before), min(seen, before + columns)
    if start >= stop:
        return
    for row in range(rows):
        source = ((image * rows + row) * columns + start - before) * channels
        place = target + 4 * (row * seen + start) * channels
        copy(argument(frame, 0), source, (stop - start) * channels, place, dtype)
