"""Forward kernels for statistics over positions: batch, group, instance norm, and over an image.

An input is seen as `(outer, inner, C)`: each of the `outer` (the examples, or the whole batch as
one) has statistics of its own for each group of channels, shared by `inner` positions. These are
taken in blocks that stay in the second-level cache. A block's mean and the squares about it are
taken in float64 and merged as in Chan, Golub and LeVeque (1983), in the order of the blocks.

Where there are many `outer`, one part does all of one while it is in a cache. Where there are few,
the blocks are the parts, first of the sums and then of the output.
"""

from typing import Any

from numba import float32, float64

from normlab.ops.native.calls import (
    CENTRED,
    EPS,
    allocate,
    argument,
    compiled,
    doubles,
    floats,
    free,
    kind,
    result,
    setting,
    size,
)
from normlab.ops.native.values import inverse_root, place, rounded, variance_to_divide_by, wide

BLOCK = 1 << 15
"""About so many values make a block."""

MANY = 8
"""From so many `outer` on, each is a part."""

STRETCH = 256
"""Narrow positions are taken several at once, as a stretch of about so many values."""


@compiled
def block_rows(channels: int) -> int:
    """Return the number of positions in a block."""
    return max(1, BLOCK // channels)


@compiled
def blocks_of(inner: int, channels: int) -> int:
    """Return the number of blocks of one `outer`."""
    rows = block_rows(channels)
    return (inner + rows - 1) // rows


@compiled
def values_of(inner: int, channels: int, outer: int, block: int) -> Any:
    """Return the index of a block's first value, and that behind its last."""
    start = block * block_rows(channels)
    stop = min(inner, start + block_rows(channels))
    return (outer * inner + start) * channels, (outer * inner + stop) * channels


@compiled
def stretch(channels: int) -> int:
    """Return the number of values in a stretch, a multiple of the channels."""
    return max(1, STRETCH // channels) * channels


@compiled
def fold(sums: Any, channels: int) -> None:
    """Add the sums of all positions of a stretch up, into those of the first."""
    for i in range(channels, sums.size, channels):
        for j in range(channels):
            sums[j] += sums[i + j]


@compiled
def tile(values: Any, channels: int) -> None:
    """Repeat what stands for the first position of a stretch for all others."""
    for j in range(channels, values.size):
        values[j] = values[j - channels]


@compiled
def moments(frame: int, scratch: int, outer: int, block: int) -> None:
    """Take the mean of each channel in a block, and the sum of the squares about it.

    Arguments of the call: x `(outer, inner, C)`; scale, bias `(C,)`; the settings; one number a
    group, which only says how many groups there are. Results: y as x; shift, offset, variance
    `(outer, groups)`, float32. The scratch space is `(outer, blocks, 2, C)`, float64.
    """
    inner, channels = size(frame, 0, 1), size(frame, 0, 2)
    dtype, x, width = kind(frame, 0), argument(frame, 0), stretch(channels)
    first, last = values_of(inner, channels, outer, block)
    positions = (last - first) // channels
    spare = allocate(24 * width)
    mean = floats(spare, width, width)
    sums, squares = doubles(spare, width, width), doubles(spare, 2 * width, width)
    sums[:] = 0
    squares[:] = 0
    if setting(frame, CENTRED) > 0:
        for i in range(first, last, width):
            count = min(width, last - i)
            row = wide(dtype, x, i, count, spare)
            for j in range(count):
                sums[j] += float64(row[j])
        fold(sums, channels)
    for j in range(channels):
        sums[j] /= positions
        mean[j] = sums[j]
    tile(mean, channels)
    for i in range(first, last, width):
        count = min(width, last - i)
        row = wide(dtype, x, i, count, spare)
        for j in range(count):
            distance = row[j] - mean[j]
            squares[j] += float64(distance * distance)
    fold(squares, channels)
    index = 2 * (outer * blocks_of(inner, channels) + block)
    means = doubles(scratch, index * channels, channels)
    about = doubles(scratch, (index + 1) * channels, channels)
    for j in range(channels):
        rounding = sums[j] - float64(mean[j])
        means[j], about[j] = sums[j], squares[j] - positions * rounding * rounding
    free(spare)


@compiled
def merge(frame: int, scratch: int, outer: int) -> None:
    """Merge the moments of the blocks of one `outer` to its statistics."""
    inner, channels, groups = size(frame, 0, 1), size(frame, 0, 2), size(frame, 4, 0)
    blocks, width = blocks_of(inner, channels), channels // groups
    rows = block_rows(channels)
    for group in range(groups):
        count, mean, squares = 0.0, 0.0, 0.0
        for block in range(blocks):
            new = float64(min(inner - block * rows, rows))
            index = 2 * (outer * blocks + block) * channels + group * width
            means, more = doubles(scratch, index, width), doubles(scratch, index + channels, width)
            for j in range(width):
                between = means[j] - mean
                total = count + new
                squares += more[j] + between * between * (count * new / total)
                mean += between * (new / total)
                count = total
        place = outer * groups + group
        shift = float32(mean)
        floats(result(frame, 1), place, 1)[0] = shift
        floats(result(frame, 2), place, 1)[0] = mean - float64(shift)
        floats(result(frame, 3), place, 1)[0] = variance_to_divide_by(squares / count)


@compiled
def normalise(frame: int, outer: int, block: int) -> None:
    """Write the output of a block."""
    inner, channels, groups = size(frame, 0, 1), size(frame, 0, 2), size(frame, 4, 0)
    dtype, x, y = kind(frame, 0), argument(frame, 0), result(frame, 0)
    eps = setting(frame, EPS)
    shifts = floats(result(frame, 1), outer * groups, groups)
    offsets = floats(result(frame, 2), outer * groups, groups)
    variances = floats(result(frame, 3), outer * groups, groups)
    scale, bias = floats(argument(frame, 1), 0, channels), floats(argument(frame, 2), 0, channels)
    width = stretch(channels)
    spare = allocate(16 * width)
    shift, slope = floats(spare, width, width), floats(spare, 2 * width, width)
    level = floats(spare, 3 * width, width)
    for j in range(channels):
        group = j // (channels // groups)
        shift[j] = shifts[group]
        slope[j] = float32(inverse_root(variances[group], eps)) * scale[j]
        level[j] = bias[j] - offsets[group] * slope[j]
    tile(shift, channels)
    tile(slope, channels)
    tile(level, channels)
    first, last = values_of(inner, channels, outer, block)
    for i in range(first, last, width):
        count = min(width, last - i)
        row = wide(dtype, x, i, count, spare)
        out = place(dtype, y, i, count, spare)
        for j in range(count):
            out[j] = (row[j] - shift[j]) * slope[j] + level[j]
        rounded(dtype, y, i, count, spare)
    free(spare)
