"""Forward kernels for statistics over positions: batch, group, instance norm, and over an image.

An input is seen as `(outer, inner, C)`: each of the `outer` (the examples, or the whole batch as
one) has statistics of its own for each group of channels, shared by `inner` positions. These are
taken in blocks that stay in the second-level cache. Where there are many `outer`, one part does
all of one while it is in a cache. Where there are few, the blocks are the parts, first of the sums
and then of the output.

Narrow positions are taken several at once, as one wide one, whose vectors are then full. A block
is worked on in tiles that stay in the first-level cache, vector by vector: down the positions of a
tile, the sums of a vector stay in registers, in float32. No processor foresees these strides, so
each vector is fetched one tile early. A tile's mean and the squares about it are merged as in
Chan, Golub and LeVeque (1983), in float64 and in order; and so are blocks.
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
    result,
    setting,
    size,
)
from normlab.ops.native.memory import (
    PAST_CACHES,
    bytes_of,
    load,
    load_doubles,
    load_early,
    store,
    store_doubles,
    value,
)
from normlab.ops.native.values import FAR, inverse_root, variance_to_divide_by
from normlab.ops.native.vectors import (
    LANES,
    exceeds,
    narrow,
    padded,
    repeat,
    widen,
)

BLOCK = 1 << 15
"""About so many values make a block."""

TILE, TALLEST = 1 << 12, 64
"""About so many values make a tile, in at most so many wide positions."""

MANY = 8
"""From so many `outer` on, each is a part."""


@compiled
def together(channels: int) -> int:
    """Return the fewest positions whose values fill seven eighths of their vectors."""
    count = 1
    while 8 * count * channels < 7 * padded(count * channels):
        count += 1
    return count


@compiled
def width_of(channels: int) -> int:
    """Return the number of values in a wide position."""
    return together(channels) * channels


@compiled
def block_positions(channels: int) -> int:
    """Return the number of positions in a block."""
    return max(1, BLOCK // width_of(channels)) * together(channels)


@compiled
def blocks_of(inner: int, channels: int) -> int:
    """Return the number of blocks of one `outer`."""
    positions = block_positions(channels)
    return (inner + positions - 1) // positions


@compiled
def scratch_bytes(frame: int) -> int:
    """Return the size of the scratch space: two numbers a channel of each block, float64.

    Behind them lie the `coefficients` of each `outer`.
    """
    outers, inner, channels = size(frame, 0, 0), size(frame, 0, 1), size(frame, 0, 2)
    numbers = 4 * outers * padded(width_of(channels))
    return 16 * outers * blocks_of(inner, channels) * channels + 4 * numbers


@compiled
def coefficients(frame: int, scratch: int, outer: int) -> int:
    """Return where four numbers for each value of a wide position lie, float32.

    Each of the four begins `padded` values behind the one before.
    """
    outers, inner, channels = size(frame, 0, 0), size(frame, 0, 1), size(frame, 0, 2)
    sums = 16 * outers * blocks_of(inner, channels) * channels
    return scratch + sums + 16 * outer * padded(width_of(channels))


@compiled
def values_of(inner: int, channels: int, outer: int, block: int) -> Any:
    """Return the index of a block's first value, and that behind its last."""
    start = block * block_positions(channels)
    stop = min(inner, start + block_positions(channels))
    return (outer * inner + start) * channels, (outer * inner + stop) * channels


@compiled
def tallest(width: int) -> int:
    """Return the number of wide positions in a tile."""
    return max(1, min(TALLEST, TILE // width))


@compiled
def fold(sums: Any, channels: int) -> None:
    """Add the sums of all positions of a wide one up, into those of the first."""
    for i in range(channels, width_of(channels), channels):
        for j in range(channels):
            sums[j] += sums[i + j]


@compiled
def widened(values: Any, channels: int) -> None:
    """Repeat what stands for the first position of a wide one for all others."""
    for j in range(channels, width_of(channels)):
        values[j] = values[j - channels]


@compiled
def goes_past_caches(frame: int, width: int, dtype: Any) -> bool:
    """Return whether the result, shaped as x, is large, and each vector in it begins on a line."""
    itemsize = bytes_of(dtype)
    values = size(frame, 0, 0) * size(frame, 0, 1) * size(frame, 0, 2)
    aligned = result(frame, 0) % 64 == 0 and width * itemsize % 64 == 0
    whole = size(frame, 0, 1) * size(frame, 0, 2) * itemsize % 64 == 0
    return values * itemsize >= PAST_CACHES and aligned and whole


@compiled
def whole(frame: int, scratch: int, outer: int, dtype: Any) -> None:
    """Normalise one `outer`."""
    blocks = blocks_of(size(frame, 0, 1), size(frame, 0, 2))
    for block in range(blocks):
        moments(frame, scratch, outer * blocks + block, dtype)
    merge(frame, scratch, outer)
    for block in range(blocks):
        normalise(frame, scratch, outer * blocks + block, dtype)


@compiled
def moments(frame: int, scratch: int, part: int, dtype: Any) -> None:
    """Take the mean of each channel in a block, and the sum of the squares about it.

    Arguments of the call: x `(outer, inner, C)`; scale, bias `(C,)`; the settings; one number a
    group, which only says how many groups there are. Results: y as x; shift, offset, variance
    `(outer, groups)`, float32. The scratch space is `(outer, blocks, 2, C)`, float64.
    """
    inner, channels = size(frame, 0, 1), size(frame, 0, 2)
    x, centred, width = argument(frame, 0), setting(frame, CENTRED) > 0, width_of(channels)
    blocks = blocks_of(inner, channels)
    first, last = values_of(inner, channels, part // blocks, part % blocks)
    height, whole = tallest(width), (last - first) // width
    spare = allocate(16 * padded(width))
    squares = padded(width)  # begin there, behind the means
    doubles(spare, 0, 2 * squares)[:] = 0
    for begin in range(0, whole, height):
        count = min(height, whole - begin)
        for j in range(0, width, LANES):
            _add_tile(x, first + begin * width + j, count, begin, width, j, centred, spare, dtype)
    means, about = doubles(spare, 0, width), doubles(spare, squares, width)
    for j in range(last - first - whole * width):  # positions that fill no wide one
        mean = float64(value(x, first + whole * width + j, dtype)) if centred else 0.0
        square = 0.0 if centred else float64(value(x, first + whole * width + j, dtype)) ** 2
        between, share = mean - means[j], 1 / (whole + 1)
        means[j] += between * share
        about[j] += square + between * between * (whole * share)
    both = doubles(scratch, 2 * part * channels, 2 * channels)
    positions, together_ = (last - first) // channels, together(channels)
    both[:], before = 0, 0
    for k in range(together_):
        count = (positions - k + together_ - 1) // together_
        if count > 0:
            _merge_into(both, means[k * channels :], about[k * channels :], before, count)
            before += count
    free(spare)


@compiled
def _merge_into(both: Any, means: Any, squares: Any, before: int, count: int) -> None:
    """Merge moments of `count` positions to those of `before`, which lie behind each other."""
    channels = both.size // 2
    share = count / (before + count)
    for j in range(channels):
        between = means[j] - both[j]
        both[j] += between * share
        both[channels + j] += squares[j] + between * between * (before * share)


@compiled
def _add_tile(
    x: int, first: int, count: int, before: int, width: int, j: int, centred: bool, kept: int,
    dtype: Any,
) -> None:  # fmt: skip
    """Merge the moments of one vector's values, down `count` positions, to those of `before`.

    They are taken about the mean of those before, and anew where that is too far away.
    """
    there, zero, next_tile = width - j, repeat(float32(0)), tallest(width) * width
    behind, number = padded(width) + j, repeat(float64(count))
    mean, about, each = load_doubles(kept, j), load_doubles(kept, behind), repeat(1 / count)
    middle = narrow(mean) if centred else zero
    sums, squares = zero, zero
    if before > 0 or not centred:
        for i in range(count):
            distance = load_early(x, first + i * width, there, dtype, zero, next_tile) - middle
            squares = squares + distance * distance
            sums = sums + distance
    moved, new = widen(sums) * each, widen(squares)
    if not centred:
        moved = widen(zero)
    elif before == 0 or exceeds(moved * moved * (number * repeat(1 / FAR)), new):
        shift, sums = load(x, first, there, dtype, zero), zero
        for i in range(1, count):
            sums = sums + (load(x, first + i * width, there, dtype, zero) - shift)
        middle = shift + sums * repeat(float32(1 / count))
        sums, squares = zero, zero
        for i in range(count):
            distance = load_early(x, first + i * width, there, dtype, zero, next_tile) - middle
            squares = squares + distance * distance
            sums = sums + distance
        moved, new = widen(sums) * each, widen(squares)
    new, share = new - moved * moved * number, count / (before + count)
    between = (widen(middle) + moved) - mean
    store_doubles(kept, j, mean + between * repeat(share))
    store_doubles(kept, behind, about + new + between * between * repeat(before * share))


@compiled
def merge(frame: int, scratch: int, outer: int) -> None:
    """Merge the moments of the blocks of one `outer` to its statistics."""
    inner, channels, groups = size(frame, 0, 1), size(frame, 0, 2), size(frame, 4, 0)
    blocks, width, positions = (
        blocks_of(inner, channels),
        channels // groups,
        block_positions(channels),
    )
    first = 2 * outer * blocks * channels
    both = doubles(scratch, first, 2 * channels)
    for block in range(1, blocks):
        more = doubles(scratch, first + 2 * block * channels, 2 * channels)
        before = block * positions
        _merge_into(both, more, more[channels:], before, min(inner - before, positions))
    shifts = floats(result(frame, 1), outer * groups, groups)
    offsets = floats(result(frame, 2), outer * groups, groups)
    variances = floats(result(frame, 3), outer * groups, groups)
    for group in range(groups):
        mean, squares = 0.0, 0.0
        for j in range(group * width, (group + 1) * width):
            mean += both[j]
        mean /= width
        for j in range(group * width, (group + 1) * width):
            squares += both[channels + j] + inner * (both[j] - mean) ** 2
        shift = float32(mean)
        shifts[group], offsets[group] = shift, mean - float64(shift)
        variances[group] = variance_to_divide_by(squares / (inner * width))
    _set_coefficients(frame, coefficients(frame, scratch, outer), shifts, offsets, variances)


@compiled
def _set_coefficients(frame: int, kept: int, shifts: Any, offsets: Any, variances: Any) -> None:
    """Compute shift, slope and level for each value of a wide position."""
    channels, groups, eps = size(frame, 0, 2), size(frame, 4, 0), setting(frame, EPS)
    width, apart = width_of(channels), padded(width_of(channels))
    scale, bias = floats(argument(frame, 1), 0, channels), floats(argument(frame, 2), 0, channels)
    shift, slope = floats(kept, 0, width), floats(kept, apart, width)
    level = floats(kept, 2 * apart, width)
    roots = floats(kept, 3 * apart, groups)
    for group in range(groups):  # a loop of its own, which becomes vectors
        roots[group] = inverse_root(variances[group], eps)
    for group in range(groups):
        for j in range(group * (channels // groups), (group + 1) * (channels // groups)):
            shift[j], slope[j] = shifts[group], roots[group] * scale[j]
            level[j] = bias[j] - offsets[group] * slope[j]
    widened(shift, channels)
    widened(slope, channels)
    widened(level, channels)


@compiled
def normalise(frame: int, scratch: int, part: int, dtype: Any) -> None:
    """Write the output of a block."""
    inner, channels = size(frame, 0, 1), size(frame, 0, 2)
    outer, block = part // blocks_of(inner, channels), part % blocks_of(inner, channels)
    x, y, width = argument(frame, 0), result(frame, 0), width_of(channels)
    kept, apart = coefficients(frame, scratch, outer), padded(width)
    first, last = values_of(inner, channels, outer, block)
    past, zero, height = goes_past_caches(frame, width, dtype), repeat(float32(0)), tallest(width)
    for begin in range(first, last, height * width):
        end = min(begin + height * width, last)
        for j in range(0, width, LANES):
            there = width - j
            shifted = load(kept, j, there, float32, zero)
            sloped = load(kept, apart + j, there, float32, zero)
            levelled = load(kept, 2 * apart + j, there, float32, zero)
            for at in range(begin + j, end, width):
                count = min(there, end - at)
                row = load_early(x, at, count, dtype, zero, height * width)
                store(y, at, count, dtype, (row - shifted) * sloped + levelled, past)
