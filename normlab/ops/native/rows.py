"""Kernels for statistics over the last axis: layer norm, RMS norm.

Some rows at a time stay in the first-level cache while they are summed, centred and written, so
each array is read or written once. What is done for each row alone is done for all of them in
turn, because a row's sum would wait for its last addition.

A row is summed after its first value has been taken off, and anew about its mean where that value
is far from it. So a row of equal numbers has exactly that mean, and no large mean costs digits.
Rows of which several fill a vector are in `narrow_rows`.
"""

from typing import Any

from numba import float32

from normlab.ops.native import narrow_rows
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
    add_doubles,
    bytes_of,
    load,
    store,
    value,
)
from normlab.ops.native.values import FAR, inverse_root, variance_to_divide_by
from normlab.ops.native.vectors import LANES, padded, repeat, total

PART = 1 << 14
"""About so many values make a part."""

TOGETHER = 1 << 12
"""About so many values are worked on at a time."""

IN_FLOAT32 = 64 * LANES
"""At most so many values of a row, or so many rows, are summed in float32 before float64."""


@compiled
def parts_of(rows: int, channels: int) -> int:
    """Return the number of parts, which depends on the shape alone."""
    return max(1, min(rows, rows * channels // PART))


@compiled
def first_row(rows: int, channels: int, part: int) -> int:
    """Return the first row of a part. Rows that share a vector stay together."""
    together = narrow_rows.rows_in_vector(channels) if narrow_rows.serves(channels) else 1
    units = (rows + together - 1) // together
    return min(rows, units * part // parts_of(rows, channels) * together)


@compiled
def rows_together(channels: int) -> int:
    """Return how many rows are worked on at a time."""
    return max(1, min(IN_FLOAT32 // LANES, TOGETHER // channels))


@compiled
def scratch_bytes(rows: int, channels: int) -> int:
    """Return the size of the scratch space: the parts' sums, `(parts, 2, C)`, float64."""
    return 16 * parts_of(rows, channels) * padded(channels)


@compiled
def goes_past_caches(frame: int, dtype: Any) -> bool:
    """Return whether the result is large, and each vector in it begins on a line."""
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    aligned = narrow_rows.serves(channels) or channels * bytes_of(dtype) % 64 == 0
    return rows * channels * bytes_of(dtype) >= PAST_CACHES and (
        aligned and result(frame, 0) % 64 == 0
    )


@compiled
def _averages(shift: float, x: int, first: int, channels: int, dtype: Any) -> Any:
    """Average `x - shift` and its square over a row."""
    shifts, sum_, squares = repeat(shift), 0.0, 0.0
    for start in range(0, channels, IN_FLOAT32):
        partial, about = repeat(float32(0)), repeat(float32(0))
        for j in range(start, min(start + IN_FLOAT32, channels), LANES):
            distance = load(x, first + j, channels - j, dtype, shifts) - shifts
            partial = partial + distance
            about = about + distance * distance
        sum_ += total(partial)
        squares += total(about)
    return sum_ / channels, squares / channels


@compiled
def _mean_square(x: int, first: int, channels: int, dtype: Any) -> float:
    """Average the squares of a row."""
    squares, zero = 0.0, repeat(float32(0))
    for start in range(0, channels, IN_FLOAT32):
        partial = zero
        for j in range(start, min(start + IN_FLOAT32, channels), LANES):
            found = load(x, first + j, channels - j, dtype, zero)
            partial = partial + found * found
        squares += total(partial)
    return squares / channels


@compiled
def forward(frame: int, scratch: int, part: int, dtype: Any) -> None:
    """Normalise the rows of a part.

    Arguments of the call: x `(rows, C)`; scale, bias `(C,)`; the settings.
    Results: y as x; shift, offset, variance `(rows,)`, float32.
    """
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    start, last = first_row(rows, channels, part), first_row(rows, channels, part + 1)
    past = goes_past_caches(frame, dtype)
    if narrow_rows.serves(channels):
        narrow_rows.forward(frame, start, last, past, dtype)
        return
    together = rows_together(channels)
    x, y, scale, bias = argument(frame, 0), result(frame, 0), argument(frame, 1), argument(frame, 2)
    eps, centred = setting(frame, EPS), setting(frame, CENTRED) > 0
    shifts, offsets = floats(result(frame, 1), 0, rows), floats(result(frame, 2), 0, rows)
    variances = floats(result(frame, 3), 0, rows)
    spare = allocate(20 * together)
    means, squares = doubles(spare, 0, together), doubles(spare, together, together)
    roots, zero = floats(spare, 4 * together, together), repeat(float32(0))
    for begin in range(start, last, together):
        end = min(begin + together, last)
        for i in range(begin, end if centred else begin):
            shifts[i] = value(x, i * channels, dtype)
            found = _averages(shifts[i], x, i * channels, channels, dtype)
            means[i - begin], squares[i - begin] = found
        for i in range(begin, end if centred else begin):
            mean = means[i - begin]
            if mean * mean * (1 + 1 / FAR) > squares[i - begin]:
                shifts[i] = shifts[i] + mean
                found = _averages(shifts[i], x, i * channels, channels, dtype)
                means[i - begin], squares[i - begin] = found
        for i in range(end if centred else begin, end):
            shifts[i], means[i - begin] = 0, 0
            squares[i - begin] = _mean_square(x, i * channels, channels, dtype)
        for i in range(begin, end):
            mean = means[i - begin]
            offsets[i] = mean
            variances[i] = variance_to_divide_by(squares[i - begin] - mean * mean)
        for i in range(begin, end):  # a loop of its own, which becomes vectors
            roots[i - begin] = inverse_root(variances[i], eps)
        for i in range(begin, end):
            shift, offset, root = repeat(shifts[i]), repeat(offsets[i]), repeat(roots[i - begin])
            for j in range(0, channels, LANES):
                at, count = i * channels + j, channels - j
                z = ((load(x, at, count, dtype, zero) - shift) - offset) * root
                slope = load(scale, j, count, float32, zero)
                level = load(bias, j, count, float32, zero)
                store(y, at, count, dtype, z * slope + level, past)
    free(spare)


@compiled
def _sums(frame: int, row: int, shift: float, offset: float, dtype: Any) -> Any:
    """Sum `dy * scale * (x - mean)` and `dy * scale` over a row."""
    channels = size(frame, 0, 1)
    x, dy, scale = argument(frame, 0), argument(frame, 1), argument(frame, 2)
    shifts, offsets, zero = repeat(shift), repeat(offset), repeat(float32(0))
    product, level = 0.0, 0.0
    for start in range(0, channels, IN_FLOAT32):
        products, levels = zero, zero
        for j in range(start, min(start + IN_FLOAT32, channels), LANES):
            at, count = row * channels + j, channels - j
            g = load(dy, at, count, dtype, zero) * load(scale, j, count, float32, zero)
            products = products + g * ((load(x, at, count, dtype, shifts) - shifts) - offsets)
            levels = levels + g
        product += total(products)
        level += total(levels)
    return product, level


@compiled
def backward(frame: int, scratch: int, part: int, dtype: Any) -> None:
    """Compute the gradients of the rows of a part.

    Arguments of the call: x, dy `(rows, C)`; scale `(C,)`; the settings; shift, offset,
    variance, `along`, `level` `(rows,)`: the gradient is `dy * root * scale + along * (x - mean) +
    level`, beside what the statistics add to both. Results: dx as x; dscale, dbias `(C,)`, which
    `backward_sums` fills in from the scratch space.
    """
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    start, last = first_row(rows, channels, part), first_row(rows, channels, part + 1)
    past, width = goes_past_caches(frame, dtype), padded(channels)
    dscale, dbias = 2 * part * width, (2 * part + 1) * width
    doubles(scratch, dscale, 2 * width)[:] = 0
    if narrow_rows.serves(channels):
        narrow_rows.backward(frame, scratch, dscale, dbias, start, last, past, dtype)
        return
    together = rows_together(channels)
    x, dy, dx, scale = argument(frame, 0), argument(frame, 1), result(frame, 0), argument(frame, 2)
    eps, centred = setting(frame, EPS), setting(frame, CENTRED) > 0
    shifts, offsets = floats(argument(frame, 4), 0, rows), floats(argument(frame, 5), 0, rows)
    variances = floats(argument(frame, 6), 0, rows)
    alongs, levels = floats(argument(frame, 7), 0, rows), floats(argument(frame, 8), 0, rows)
    spare = allocate(20 * together)
    products, means = doubles(spare, 0, together), doubles(spare, together, together)
    roots, zero = floats(spare, 4 * together, together), repeat(float32(0))
    for begin in range(start, last, together):
        end = min(begin + together, last)
        for i in range(begin, end):
            products[i - begin], means[i - begin] = _sums(frame, i, shifts[i], offsets[i], dtype)
        for i in range(begin, end):  # `products` and `means` become the row's slope and level
            k, root = i - begin, inverse_root(variances[i], eps)
            products[k] = alongs[i] - root * (root * (root * (products[k] / channels)))
            means[k] = levels[i] - root * (means[k] / channels) if centred else levels[i]
            roots[k] = root
        for j in range(0, channels, LANES):
            count, slope = channels - j, load(scale, j, channels - j, float32, zero)
            along_scale, along_bias = zero, zero
            for i in range(begin, end):
                at, root = i * channels + j, repeat(roots[i - begin])
                centred_x = (load(x, at, count, dtype, zero) - repeat(shifts[i])) - repeat(
                    offsets[i]
                )
                g = load(dy, at, count, dtype, zero)
                found = g * (root * slope) + centred_x * repeat(float32(products[i - begin]))
                store(dx, at, count, dtype, found + repeat(float32(means[i - begin])), past)
                along_scale = along_scale + g * (centred_x * root)
                along_bias = along_bias + g
            add_doubles(scratch, dscale + j, along_scale)
            add_doubles(scratch, dbias + j, along_bias)
    free(spare)


@compiled
def backward_sums(frame: int, scratch: int) -> None:
    """Sum the gradients of scale and bias over the parts, in the parts' order."""
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    width = padded(channels)
    sums = doubles(scratch, 0, 2 * width)
    for part in range(1, parts_of(rows, channels)):
        more = doubles(scratch, 2 * part * width, 2 * width)
        for j in range(2 * width):
            sums[j] += more[j]
    dscale, dbias = floats(result(frame, 1), 0, channels), floats(result(frame, 2), 0, channels)
    for j in range(channels):
        dscale[j], dbias[j] = sums[j], sums[width + j]
