"""Backward kernels for statistics over positions, in the parts and blocks of `images`."""

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
from normlab.ops.native.images import blocks_of, fold, stretch, tile, values_of
from normlab.ops.native.values import inverse_root, place, rounded, wide


@compiled
def products_and_sums(frame: int, scratch: int, outer: int, block: int) -> None:
    """Sum `dy * (x - mean)` and `dy` of each channel over a block.

    Arguments of the call: x, dy `(outer, inner, C)`; scale `(C,)`; the settings; shift, offset,
    variance, `along`, `level` `(outer, groups)`: what the statistics add to the slope along
    `x - mean` and to the level. Results: dx as x; dscale, dbias `(C,)`. The scratch space is
    `(outer, blocks, 2, C)`, float64, and behind it `(outer, groups, 2)`, float32.
    """
    inner, channels, groups = size(frame, 0, 1), size(frame, 0, 2), size(frame, 4, 1)
    dtype, x, dy = kind(frame, 0), argument(frame, 0), argument(frame, 1)
    shifts = floats(argument(frame, 4), outer * groups, groups)
    offsets = floats(argument(frame, 5), outer * groups, groups)
    width = stretch(channels)
    spare = allocate(32 * width)
    shift, offset = floats(spare, 2 * width, width), floats(spare, 3 * width, width)
    products, totals = doubles(spare, 2 * width, width), doubles(spare, 3 * width, width)
    for j in range(channels):
        group = j // (channels // groups)
        shift[j], offset[j] = shifts[group], offsets[group]
    tile(shift, channels)
    tile(offset, channels)
    products[:] = 0
    totals[:] = 0
    first, last = values_of(inner, channels, outer, block)
    for i in range(first, last, width):
        count = min(width, last - i)
        row = wide(dtype, x, i, count, spare)
        g = wide(dtype, dy, i, count, spare + 4 * width)
        for j in range(count):
            products[j] += float64(g[j] * ((row[j] - shift[j]) - offset[j]))
        for j in range(count):
            totals[j] += float64(g[j])
    fold(products, channels)
    fold(totals, channels)
    index = 2 * (outer * blocks_of(inner, channels) + block)
    both = doubles(scratch, index * channels, 2 * channels)
    for j in range(channels):
        both[j], both[channels + j] = products[j], totals[j]
    free(spare)


@compiled
def _slopes(outers: int, inner: int, channels: int) -> int:
    """Return where `along` and `level` begin in the scratch space, behind the sums of blocks."""
    return 16 * outers * blocks_of(inner, channels) * channels


@compiled
def combine(frame: int, scratch: int, outer: int) -> None:
    """Add up the sums of the blocks of one `outer`; compute the slope and level of each group."""
    outers, inner = size(frame, 0, 0), size(frame, 0, 1)
    channels, groups = size(frame, 0, 2), size(frame, 4, 1)
    blocks, width = blocks_of(inner, channels), channels // groups
    scale = floats(argument(frame, 2), 0, channels)
    eps, centred = setting(frame, EPS), setting(frame, CENTRED)
    first = 2 * outer * blocks * channels
    sums = doubles(scratch, first, 2 * channels)
    for block in range(1, blocks):
        more = doubles(scratch, first + 2 * block * channels, 2 * channels)
        for j in range(2 * channels):
            sums[j] += more[j]
    slopes = scratch + _slopes(outers, inner, channels)
    for group in range(groups):
        product, mean, index = 0.0, 0.0, outer * groups + group
        for j in range(group * width, (group + 1) * width):
            product += scale[j] * sums[j]
            mean += scale[j] * sums[channels + j]
        product /= inner * width
        mean /= inner * width
        root = inverse_root(floats(argument(frame, 6), index, 1)[0], eps)
        along = floats(argument(frame, 7), index, 1)[0] - root * (root * (root * product))
        level = float64(floats(argument(frame, 8), index, 1)[0])
        if centred > 0:
            level -= root * mean
        floats(slopes, 2 * index, 1)[0] = along
        floats(slopes, 2 * index + 1, 1)[0] = level


@compiled
def gradients(frame: int, scratch: int, outer: int, block: int) -> None:
    """Write the gradient of the input for a block."""
    outers, inner = size(frame, 0, 0), size(frame, 0, 1)
    channels, groups = size(frame, 0, 2), size(frame, 4, 1)
    dtype, x, dy, dx = kind(frame, 0), argument(frame, 0), argument(frame, 1), result(frame, 0)
    scale, eps = floats(argument(frame, 2), 0, channels), setting(frame, EPS)
    shifts = floats(argument(frame, 4), outer * groups, groups)
    offsets = floats(argument(frame, 5), outer * groups, groups)
    variances = floats(argument(frame, 6), outer * groups, groups)
    slopes = floats(scratch + _slopes(outers, inner, channels), 2 * outer * groups, 2 * groups)
    width = stretch(channels)
    spare = allocate(24 * width)
    slope, shift = floats(spare, 2 * width, width), floats(spare, 3 * width, width)
    along, level = floats(spare, 4 * width, width), floats(spare, 5 * width, width)
    for j in range(channels):
        group = j // (channels // groups)
        root = float32(inverse_root(variances[group], eps))
        slope[j], shift[j], along[j] = root * scale[j], shifts[group], slopes[2 * group]
        level[j] = slopes[2 * group + 1] - offsets[group] * along[j]
    tile(slope, channels)
    tile(shift, channels)
    tile(along, channels)
    tile(level, channels)
    first, last = values_of(inner, channels, outer, block)
    for i in range(first, last, width):
        count = min(width, last - i)
        row = wide(dtype, x, i, count, spare)
        g = wide(dtype, dy, i, count, spare + 4 * width)
        out = place(dtype, dx, i, count, spare)
        for j in range(count):
            out[j] = g[j] * slope[j] + ((row[j] - shift[j]) * along[j] + level[j])
        rounded(dtype, dx, i, count, spare)
    free(spare)


@compiled
def params(frame: int, scratch: int) -> None:
    """Sum the gradients of scale and bias over the `outer`, in their order."""
    outers, inner = size(frame, 0, 0), size(frame, 0, 1)
    channels, groups = size(frame, 0, 2), size(frame, 4, 1)
    blocks, width = blocks_of(inner, channels), channels // groups
    eps = setting(frame, EPS)
    variances = floats(argument(frame, 6), 0, outers * groups)
    dscale, dbias = floats(result(frame, 1), 0, channels), floats(result(frame, 2), 0, channels)
    for j in range(channels):
        along, total = 0.0, 0.0
        for outer in range(outers):
            sums = doubles(scratch, 2 * outer * blocks * channels + j, channels + 1)
            root = inverse_root(variances[outer * groups + j // width], eps)
            along += sums[0] * root
            total += sums[channels]
        dscale[j], dbias[j] = along, total
