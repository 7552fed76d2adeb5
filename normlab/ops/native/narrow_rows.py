"""Kernels for rows that are so short that a vector holds several of them.

The width of a row is a power of two. Sums stay in the vector, in the places of all values of their
row, so a row need not wait for its sum. What is computed once a row, in float64, is done for many
rows in turn, and spread over their places again.
"""

from typing import Any

from numba import float32

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
from normlab.ops.native.memory import load, store
from normlab.ops.native.values import inverse_root, variance_to_divide_by
from normlab.ops.native.vectors import LANES, repeat, sums_within

VECTORS = 64
"""At most so many vectors are worked on at a time, and summed in float32 before float64."""

VALUES = VECTORS * LANES


@compiled
def serves(channels: int) -> bool:
    """Return whether rows of that width fill a vector."""
    return channels <= LANES and LANES % channels == 0


@compiled
def rows_in_vector(channels: int) -> int:
    """Return how many rows a vector holds."""
    return LANES // channels


@compiled
def _repeated(values: int, channels: int, target: int) -> None:
    """Repeat `(C,)` until it fills a vector."""
    given, filled = floats(values, 0, channels), floats(target, 0, LANES)
    for j in range(LANES):
        filled[j] = given[j % channels]


@compiled
def _spread(values: Any, count: int, channels: int, target: int) -> None:
    """Write each value in the places of its row. What is written too far is written over."""
    for i in range(count):
        store(target, i * channels, LANES, float32, repeat(values[i]), False)


@compiled
def forward(frame: int, start: int, last: int, past: bool, dtype: Any) -> None:
    """Normalise the rows from `start` to `last`; see `rows.forward`."""
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    x, y = argument(frame, 0), result(frame, 0)
    eps, centred = setting(frame, EPS), setting(frame, CENTRED) > 0
    shifts, offsets = floats(result(frame, 1), 0, rows), floats(result(frame, 2), 0, rows)
    variances = floats(result(frame, 3), 0, rows)
    together = VALUES // channels
    spare = allocate(4 * (4 * VALUES + together + 3 * LANES))
    kept_shift, kept_offset, kept_variance = spare, spare + 4 * VALUES, spare + 8 * VALUES
    kept_root, learnt = spare + 12 * VALUES, spare + 16 * VALUES + 4 * LANES
    roots = floats(learnt + 8 * LANES, 0, together)
    _repeated(argument(frame, 1), channels, learnt)
    _repeated(argument(frame, 2), channels, learnt + 4 * LANES)
    zero, share = repeat(float32(0)), repeat(float32(1 / channels))
    slope, level = load(learnt, 0, LANES, float32, zero), load(learnt, LANES, LANES, float32, zero)
    for begin in range(start, last, together):
        count = min(together, last - begin)
        values, first = count * channels, begin * channels
        for j in range(0, values, LANES):
            found = load(x, first + j, values - j, dtype, zero)
            # Not the sum times a share: that of large numbers would overflow.
            shift = sums_within(found * share, channels) if centred else zero
            distance = found - shift
            offset = sums_within(distance, channels) * share if centred else zero
            square = sums_within(distance * distance, channels) * share
            store(kept_shift, j, LANES, float32, shift, False)
            store(kept_offset, j, LANES, float32, offset, False)
            store(kept_variance, j, LANES, float32, square - offset * offset, False)
        for i in range(count):
            shifts[begin + i] = floats(kept_shift, i * channels, 1)[0]
            offsets[begin + i] = floats(kept_offset, i * channels, 1)[0]
            variances[begin + i] = variance_to_divide_by(floats(kept_variance, i * channels, 1)[0])
        for i in range(count):
            roots[i] = inverse_root(variances[begin + i], eps)
        _spread(roots, count, channels, kept_root)
        for j in range(0, values, LANES):
            shift = load(kept_shift, j, LANES, float32, zero)
            offset = load(kept_offset, j, LANES, float32, zero)
            root = load(kept_root, j, LANES, float32, zero)
            z = ((load(x, first + j, values - j, dtype, zero) - shift) - offset) * root
            store(y, first + j, values - j, dtype, z * slope + level, past)
    free(spare)


@compiled
def backward(
    frame: int, scratch: int, dscale: int, dbias: int, start: int, last: int, past: bool, dtype: Any
) -> None:
    """Compute the gradients of the rows from `start` to `last`; see `rows.backward`.

    Those of scale and bias are added to the float64 in the scratch space, from `dscale` and
    `dbias` on.
    """
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    x, dy, dx = argument(frame, 0), argument(frame, 1), result(frame, 0)
    eps, centred = setting(frame, EPS), setting(frame, CENTRED) > 0
    shifts, offsets = floats(argument(frame, 4), 0, rows), floats(argument(frame, 5), 0, rows)
    variances = floats(argument(frame, 6), 0, rows)
    alongs, levels = floats(argument(frame, 7), 0, rows), floats(argument(frame, 8), 0, rows)
    together = VALUES // channels
    # A spread writes up to a vector too far.
    apart = 4 * (VALUES + LANES)
    spare = allocate(5 * apart + 8 * LANES + 20 * together)
    kept_shift, kept_offset, kept_root = spare, spare + apart, spare + 2 * apart
    kept_product, kept_level, learnt = spare + 3 * apart, spare + 4 * apart, spare + 5 * apart
    exact = doubles(learnt + 8 * LANES, 0, together)
    slopes = floats(learnt + 8 * LANES, 2 * together, together)
    heights = floats(learnt + 8 * LANES, 3 * together, together)
    roots = floats(learnt + 8 * LANES, 4 * together, together)
    _repeated(argument(frame, 2), channels, learnt)
    zero = repeat(float32(0))
    scale = load(learnt, 0, LANES, float32, zero)
    sums = learnt + 4 * LANES
    for begin in range(start, last, together):
        count = min(together, last - begin)
        values, first = count * channels, begin * channels
        _spread(shifts[begin:], count, channels, kept_shift)
        _spread(offsets[begin:], count, channels, kept_offset)
        for j in range(0, values, LANES):
            shift = load(kept_shift, j, LANES, float32, zero)
            offset = load(kept_offset, j, LANES, float32, zero)
            centred_x = (load(x, first + j, values - j, dtype, zero) - shift) - offset
            g = load(dy, first + j, values - j, dtype, zero) * scale
            store(kept_product, j, LANES, float32, sums_within(g * centred_x, channels), False)
            store(kept_level, j, LANES, float32, sums_within(g, channels), False)
        for i in range(count):
            exact[i] = inverse_root(variances[begin + i], eps)
        for i in range(count):
            root = exact[i]
            product = floats(kept_product, i * channels, 1)[0] / channels
            mean = floats(kept_level, i * channels, 1)[0] / channels if centred else 0.0
            slopes[i] = alongs[begin + i] - root * (root * (root * product))
            heights[i] = levels[begin + i] - root * mean
            roots[i] = root
        _spread(roots, count, channels, kept_root)
        _spread(slopes, count, channels, kept_product)
        _spread(heights, count, channels, kept_level)
        along_scale, along_bias = zero, zero
        for j in range(0, values, LANES):
            shift = load(kept_shift, j, LANES, float32, zero)
            offset = load(kept_offset, j, LANES, float32, zero)
            root = load(kept_root, j, LANES, float32, zero)
            centred_x = (load(x, first + j, values - j, dtype, zero) - shift) - offset
            g = load(dy, first + j, values - j, dtype, zero)
            found = g * (root * scale) + centred_x * load(kept_product, j, LANES, float32, zero)
            height = load(kept_level, j, LANES, float32, zero)
            store(dx, first + j, values - j, dtype, found + height, past)
            along_scale = along_scale + g * (centred_x * root)
            along_bias = along_bias + g
        _add_rows(along_scale, channels, sums, scratch, dscale)
        _add_rows(along_bias, channels, sums, scratch, dbias)
    free(spare)


@compiled
def _add_rows(vector: Any, channels: int, spare: int, scratch: int, index: int) -> None:
    """Add the values of all rows of a vector to the float64 from `index` on."""
    store(spare, 0, LANES, float32, vector, False)
    found, sums = floats(spare, 0, LANES), doubles(scratch, index, channels)
    for j in range(LANES):
        sums[j % channels] += found[j]
