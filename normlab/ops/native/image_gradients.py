"""Backward kernels for statistics over positions, in the parts, blocks and tiles of `images`."""

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
from normlab.ops.native.images import (
    blocks_of,
    coefficients,
    fold,
    goes_past_caches,
    tallest,
    values_of,
    widened,
    width_of,
)
from normlab.ops.native.memory import add_doubles, load, load_early, store
from normlab.ops.native.values import inverse_root
from normlab.ops.native.vectors import LANES, padded, repeat


@compiled
def whole(frame: int, scratch: int, outer: int, dtype: Any) -> None:
    """Compute the gradients of one `outer`."""
    blocks = blocks_of(size(frame, 0, 1), size(frame, 0, 2))
    for block in range(blocks):
        products_and_sums(frame, scratch, outer * blocks + block, dtype)
    combine(frame, scratch, outer)
    for block in range(blocks):
        gradients(frame, scratch, outer * blocks + block, dtype)


@compiled
def products_and_sums(frame: int, scratch: int, part: int, dtype: Any) -> None:
    """Sum `dy * (x - mean)` and `dy` of each channel over a block.

    Arguments of the call: x, dy `(outer, inner, C)`; scale `(C,)`; the settings; shift, offset,
    variance, `along`, `level` `(outer, groups)`: what the statistics add to the slope along
    `x - mean` and to the level. Results: dx as x; dscale, dbias `(C,)`. The scratch space is
    `(outer, blocks, 2, C)`, float64, and behind it the coefficients of `images`.
    """
    inner, channels, groups = size(frame, 0, 1), size(frame, 0, 2), size(frame, 4, 1)
    outer, block = part // blocks_of(inner, channels), part % blocks_of(inner, channels)
    x, dy, width = argument(frame, 0), argument(frame, 1), width_of(channels)
    shifts = floats(argument(frame, 4), outer * groups, groups)
    offsets = floats(argument(frame, 5), outer * groups, groups)
    behind = padded(width)
    spare = allocate(16 * behind + 4 * width)
    shift = floats(spare + 16 * behind, 0, width)
    for group in range(groups):
        for j in range(group * (channels // groups), (group + 1) * (channels // groups)):
            shift[j] = shifts[group]
    widened(shift, channels)
    doubles(spare, 0, 2 * behind)[:] = 0
    first, last = values_of(inner, channels, outer, block)
    zero, height = repeat(float32(0)), tallest(width)
    for begin in range(first, last, height * width):
        end = min(begin + height * width, last)
        for j in range(0, width, LANES):
            shifted = load(spare + 16 * behind, j, width - j, float32, zero)
            products, totals = zero, zero
            for at in range(begin + j, end, width):
                count = min(width - j, end - at)
                g = load_early(dy, at, count, dtype, zero, height * width)
                products = products + g * (
                    load_early(x, at, count, dtype, shifted, height * width) - shifted
                )
                totals = totals + g
            add_doubles(spare, j, products)
            add_doubles(spare, behind + j, totals)
    products, totals = doubles(spare, 0, width), doubles(spare, behind, width)
    fold(products, channels)
    fold(totals, channels)
    both = doubles(scratch, 2 * part * channels, 2 * channels)
    for group in range(groups):
        offset = float64(offsets[group])
        for j in range(group * (channels // groups), (group + 1) * (channels // groups)):
            both[j], both[channels + j] = products[j] - offset * totals[j], totals[j]
    free(spare)


@compiled
def combine(frame: int, scratch: int, outer: int) -> None:
    """Add up the sums of the blocks of one `outer`; compute its coefficients.

    The first block's sums become what this `outer` adds to the gradients of scale and bias.
    """
    inner, channels, groups = size(frame, 0, 1), size(frame, 0, 2), size(frame, 4, 1)
    blocks, width = blocks_of(inner, channels), channels // groups
    scale, eps = floats(argument(frame, 2), 0, channels), setting(frame, EPS)
    centred = setting(frame, CENTRED) > 0
    shifts = floats(argument(frame, 4), outer * groups, groups)
    offsets = floats(argument(frame, 5), outer * groups, groups)
    variances = floats(argument(frame, 6), outer * groups, groups)
    alongs = floats(argument(frame, 7), outer * groups, groups)
    levels = floats(argument(frame, 8), outer * groups, groups)
    first = 2 * outer * blocks * channels
    sums = doubles(scratch, first, 2 * channels)
    for block in range(1, blocks):
        more = doubles(scratch, first + 2 * block * channels, 2 * channels)
        for j in range(2 * channels):
            sums[j] += more[j]
    kept, apart = coefficients(frame, scratch, outer), padded(width_of(channels))
    slope, shift = floats(kept, 0, apart), floats(kept, apart, apart)
    along, level = floats(kept, 2 * apart, apart), floats(kept, 3 * apart, apart)
    spare = allocate(8 * groups)
    roots = doubles(spare, 0, groups)
    for group in range(groups):  # a loop of its own, which becomes vectors
        roots[group] = inverse_root(variances[group], eps)
    for group in range(groups):
        product, mean, root = 0.0, 0.0, roots[group]
        for j in range(group * width, (group + 1) * width):
            product += scale[j] * sums[j]
            mean += scale[j] * sums[channels + j]
            sums[j] *= root
        product /= inner * width
        mean /= inner * width
        tilt = float32(alongs[group] - root * (root * (root * product)))
        height = float32(levels[group] - root * mean) if centred else levels[group]
        for j in range(group * width, (group + 1) * width):
            slope[j], shift[j], along[j] = float32(root) * scale[j], shifts[group], tilt
            level[j] = height - offsets[group] * tilt
    free(spare)
    widened(slope, channels)
    widened(shift, channels)
    widened(along, channels)
    widened(level, channels)


@compiled
def gradients(frame: int, scratch: int, part: int, dtype: Any) -> None:
    """Write the gradient of the input for a block."""
    inner, channels = size(frame, 0, 1), size(frame, 0, 2)
    outer, block = part // blocks_of(inner, channels), part % blocks_of(inner, channels)
    x, dy, dx, width = argument(frame, 0), argument(frame, 1), result(frame, 0), width_of(channels)
    kept, apart = coefficients(frame, scratch, outer), padded(width)
    first, last = values_of(inner, channels, outer, block)
    past, zero, height = goes_past_caches(frame, width, dtype), repeat(float32(0)), tallest(width)
    for begin in range(first, last, height * width):
        end = min(begin + height * width, last)
        for j in range(0, width, LANES):
            there = width - j
            sloped = load(kept, j, there, float32, zero)
            shifted = load(kept, apart + j, there, float32, zero)
            tilted = load(kept, 2 * apart + j, there, float32, zero)
            levelled = load(kept, 3 * apart + j, there, float32, zero)
            for at in range(begin + j, end, width):
                count = min(there, end - at)
                centred = load_early(x, at, count, dtype, zero, height * width) - shifted
                g = load_early(dy, at, count, dtype, zero, height * width)
                store(dx, at, count, dtype, g * sloped + (centred * tilted + levelled), past)


@compiled
def params(frame: int, scratch: int) -> None:
    """Sum the gradients of scale and bias over the `outer`, in their order."""
    outers, inner, channels = size(frame, 0, 0), size(frame, 0, 1), size(frame, 0, 2)
    blocks = blocks_of(inner, channels)
    both = doubles(scratch, 0, 2 * channels)
    for outer in range(1, outers):
        more = doubles(scratch, 2 * outer * blocks * channels, 2 * channels)
        for j in range(2 * channels):
            both[j] += more[j]
    dscale, dbias = floats(result(frame, 1), 0, channels), floats(result(frame, 2), 0, channels)
    for j in range(channels):
        dscale[j], dbias[j] = both[j], both[channels + j]
