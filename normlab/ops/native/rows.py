"""Kernels for statistics over the last axis: layer norm, RMS norm.

A row stays in the first-level cache while it is summed, centred and written, so each array is read
or written once. Sums are taken in float64, in which a row of equal numbers has exactly that mean.
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
    summing,
)
from normlab.ops.native.values import inverse_root, place, rounded, variance_to_divide_by, wide

PART = 1 << 14
"""About so many values make a part."""


@compiled
def parts_of(rows: int, channels: int) -> int:
    """Return the number of parts, which depends on the shape alone."""
    return max(1, min(rows, rows * channels // PART))


@summing
def _mean(row: Any) -> float:
    total = 0.0
    for j in range(row.size):
        total += float64(row[j])
    return total / row.size


@summing
def _mean_square(row: Any, shift: Any, offset: Any) -> float:
    total = 0.0
    for j in range(row.size):
        centred = float64((row[j] - shift) - offset)
        total += centred * centred
    return total / row.size


@compiled
def forward(frame: int, scratch: int, part: int) -> None:
    """Normalise the rows of a part.

    Arguments of the call: x `(rows, C)`; scale, bias `(C,)`; the settings.
    Results: y as x; shift, offset, variance `(rows,)`, float32.
    """
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    parts, dtype = parts_of(rows, channels), kind(frame, 0)
    x, y = argument(frame, 0), result(frame, 0)
    scale, bias = floats(argument(frame, 1), 0, channels), floats(argument(frame, 2), 0, channels)
    eps, centred = setting(frame, EPS), setting(frame, CENTRED) > 0
    shifts, offsets = floats(result(frame, 1), 0, rows), floats(result(frame, 2), 0, rows)
    variances = floats(result(frame, 3), 0, rows)
    spare = allocate(4 * channels)
    for i in range(rows * part // parts, rows * (part + 1) // parts):
        row = wide(dtype, x, i * channels, channels, spare)
        mean = _mean(row) if centred else 0.0
        shift = float32(mean)
        offset = float32(mean - shift)
        variance = variance_to_divide_by(_mean_square(row, shift, offset))
        root = float32(inverse_root(variance, eps))
        out = place(dtype, y, i * channels, channels, spare)
        for j in range(channels):
            out[j] = ((row[j] - shift) - offset) * root * scale[j] + bias[j]
        rounded(dtype, y, i * channels, channels, spare)
        shifts[i], offsets[i], variances[i] = shift, offset, variance
    free(spare)


@summing
def _means(x: Any, dy: Any, scale: Any, shift: Any, offset: Any) -> Any:
    product, level = 0.0, 0.0
    for j in range(x.size):
        g = dy[j] * scale[j]
        product += float64(g * ((x[j] - shift) - offset))
        level += float64(g)
    return product / x.size, level / x.size


@compiled
def backward(frame: int, scratch: int, part: int) -> None:
    """Compute the gradients of the rows of a part.

    Arguments of the call: x, dy `(rows, C)`; scale `(C,)`; the settings; shift, offset,
    variance, `along`, `level` `(rows,)`: the gradient is `dy * root * scale + along * (x - mean) +
    level`, beside what the statistics add to both. Results: dx as x; dscale, dbias `(C,)`, which
    `backward_sums` fills in from the scratch space, `(parts, 2, C)`, float64.
    """
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    parts, dtype = parts_of(rows, channels), kind(frame, 0)
    x, dy, dx = argument(frame, 0), argument(frame, 1), result(frame, 0)
    scale = floats(argument(frame, 2), 0, channels)
    eps, centred = setting(frame, EPS), setting(frame, CENTRED) > 0
    shifts, offsets = floats(argument(frame, 4), 0, rows), floats(argument(frame, 5), 0, rows)
    variances = floats(argument(frame, 6), 0, rows)
    alongs, levels = floats(argument(frame, 7), 0, rows), floats(argument(frame, 8), 0, rows)
    dscale = doubles(scratch, 2 * part * channels, channels)
    dbias = doubles(scratch, (2 * part + 1) * channels, channels)
    dscale[:] = 0
    dbias[:] = 0
    spare = allocate(8 * channels)
    for i in range(rows * part // parts, rows * (part + 1) // parts):
        row = wide(dtype, x, i * channels, channels, spare)
        g = wide(dtype, dy, i * channels, channels, spare + 4 * channels)
        shift, offset = shifts[i], offsets[i]
        root = float32(inverse_root(variances[i], eps))
        product, mean = _means(row, g, scale, shift, offset)
        along = float32(alongs[i] - root * (root * (root * product)))
        level = float32(levels[i] - root * mean) if centred else levels[i]
        out = place(dtype, dx, i * channels, channels, spare)
        for j in range(channels):  # before `out`, which may lie where `row` does
            dscale[j] += float64(g[j] * (((row[j] - shift) - offset) * root))
            dbias[j] += float64(g[j])
        for j in range(channels):
            out[j] = g[j] * (root * scale[j]) + ((row[j] - shift) - offset) * along + level
        rounded(dtype, dx, i * channels, channels, spare)
    free(spare)


@compiled
def backward_sums(frame: int, scratch: int) -> None:
    """Sum the gradients of scale and bias over the parts, in the parts' order."""
    rows, channels = size(frame, 0, 0), size(frame, 0, 1)
    for which in range(2):
        total = floats(result(frame, 1 + which), 0, channels)
        for j in range(channels):
            sum_ = 0.0
            for part in range(parts_of(rows, channels)):
                sum_ += doubles(scratch, (2 * part + which) * channels + j, 1)[0]
            total[j] = sum_
