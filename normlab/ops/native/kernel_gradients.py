"""The gradient of a convolution's kernel.

Each place `(i, j)` of the kernel sums `x[y * s + i, x * s + j, c] * dy[y, x, d]` over pixels and
images. For one row `i` of the kernel, `(j, c)` is one axis: those values of `x` lie side by side.
They are the left of a tile, and the output channels are its right.

A part takes some of the images and some of the output channels. The parts are summed in their
order, and their number depends on the shapes alone.
"""

from typing import Any

from numba import float32

from normlab.ops.native.calls import (
    RESULTS,
    SIZES,
    WORD,
    allocate,
    argument,
    compiled,
    floats,
    free,
    result,
    size,
    word,
)
from normlab.ops.native.memory import bytes_of, load, store
from normlab.ops.native.tiles import (
    LANES,
    REGISTERS,
    copy,
    copy_image,
    geometry,
    line_of,
    rounded_up,
    tile_of,
)
from normlab.ops.native.vectors import LANES as VALUES
from normlab.ops.native.vectors import narrow, repeat, widen

WIDE, NARROW = (REGISTERS - 8) // 2, REGISTERS - 8
"""Values in a tile with two vectors, and in one with one vector."""

MOST_SUMS = 1 << 21
"""About so many sums are kept at most, of all shares together."""

MOST_SHARES = 16
"""The images go into at most so many shares."""

MOST_CHANNELS = 64
"""A part takes at most so many output channels."""

BAND = 256
"""About so many pixels are summed before their sum is added to that of the others."""

_wide_tile, _narrow_tile = tile_of(WIDE, 2), tile_of(NARROW, 1)


@compiled
def _sizes(frame: int) -> Any:
    """Return h, w, C and D of the kernel, the length of a line of sums, and the lines of a row."""
    sizes = word(word(word(frame, RESULTS), 0), SIZES)
    height, width = word(sizes, 0), word(sizes, WORD)
    channels, features = word(sizes, 2 * WORD), word(sizes, 3 * WORD)
    line = line_of(features)
    lines = rounded_up(width * channels, NARROW if line == LANES else WIDE)
    return height, width, channels, features, line, lines


@compiled
def _shares(frame: int) -> int:
    """Return into how many shares the images go."""
    height, _, _, _, line, lines = _sizes(frame)
    return max(1, min(size(frame, 0, 0), MOST_SHARES, MOST_SUMS // (height * lines * line)))


@compiled
def parts_of(frame: int) -> int:
    """Return the number of parts of `sums`."""
    return _shares(frame) * ((_sizes(frame)[4] + MOST_CHANNELS - 1) // MOST_CHANNELS)


@compiled
def rows_of(frame: int) -> int:
    """Return the number of rows of the kernel, which are the parts of `total`."""
    return _sizes(frame)[0]


@compiled
def scratch_bytes(frame: int) -> int:
    """Return the bytes of the sums of all shares."""
    height, _, _, _, line, lines = _sizes(frame)
    return 4 * _shares(frame) * height * lines * line


@compiled
def sums(frame: int, scratch: int, part: int, dtype: Any) -> None:
    """Take the sums of a part, which are some of the images for some output channels.

    Arguments of the call: x `(N, H, W, C)`; dy `(N, H', W', D)`; the strides of rows and columns
    and the padding before them, float32. Result: `(h, w, C, D)`, which `total`
    fills in from the scratch space, `(shares, h, lines, line)`, float32.
    """
    height, width, channels, features, line, lines = _sizes(frame)
    shares, dy = _shares(frame), argument(frame, 1)
    images, rows = size(frame, 0, 0), size(frame, 0, 1)
    dy_rows, dy_columns = size(frame, 1, 1), size(frame, 1, 2)
    down, across, above, before = geometry(frame)
    share, first = part % shares, part // shares * MOST_CHANNELS
    last = min(line, first + MOST_CHANNELS)
    mine = scratch + 4 * (share * height * lines * line + first)
    for i in range(height * lines):
        floats(mine, i * line, last - first)[:] = 0

    seen = (dy_columns - 1) * across + width
    pixels, band = dy_rows * dy_columns, max(1, BAND // dy_columns)
    # A tile may read on behind the last pixel.
    copied_x = allocate(4 * (rows * seen * channels + NARROW))
    floats(copied_x, 0, rows * seen * channels + NARROW)[:] = 0
    copies_dy = bytes_of(dtype) < 4 or features < line
    copied_dy = allocate(4 * pixels * (last - first)) if copies_dy else 0
    if copies_dy:
        floats(copied_dy, 0, pixels * (last - first))[:] = 0
    for image in range(images * share // shares, images * (share + 1) // shares):
        copy_image(frame, image, before, seen, copied_x, dtype)
        dy_now, dy_line = dy + 4 * (image * pixels * features + first), features
        if copies_dy:
            dy_now, dy_line = copied_dy, last - first
            for pixel in range(pixels):
                source = (image * pixels + pixel) * features + first
                target = copied_dy + 4 * pixel * dy_line
                copy(dy, source, min(features, last) - first, target, dtype)
        for i in range(height):
            # The rows of `dy` for which a row of `x` lies within the image.
            start = max(0, (above - i + down - 1) // down)
            end = min(dy_rows, (rows - 1 + above - i) // down + 1)
            left_row, left_column = 4 * down * seen * channels, 4 * across * channels
            right_row, right_column = 4 * dy_columns * dy_line, 4 * dy_line
            for row in range(start, end, band):
                left = copied_x + 4 * (row * down + i - above) * seen * channels
                right, count = dy_now + row * right_row, min(band, end - row)
                for j in range(0, lines, NARROW if line == LANES else WIDE):
                    found = mine + 4 * (i * lines + j) * line
                    if line == LANES:
                        _narrow_tile(
                            left + 4 * j, right, found, count, dy_columns, 4,
                            left_row, left_column, right_row, right_column, 4 * line,
                        )  # fmt: skip
                        continue
                    for k in range(0, last - first, 2 * LANES):
                        _wide_tile(
                            left + 4 * j, right + 4 * k, found + 4 * k, count, dy_columns, 4,
                            left_row, left_column, right_row, right_column, 4 * line,
                        )  # fmt: skip
    free(copied_x)
    if copies_dy:
        free(copied_dy)


@compiled
def total(frame: int, scratch: int, row: int, dtype: Any) -> None:
    """Sum one row of the kernel over all shares, in their order."""
    height, width, channels, features, line, lines = _sizes(frame)
    gradient, zero = result(frame, 0), repeat(float32(0))
    for j in range(width * channels):
        index = (row * width * channels + j) * features
        for k in range(0, features, VALUES):
            exact = widen(zero)
            for share in range(_shares(frame)):
                at = ((share * height + row) * lines + j) * line + k
                exact = exact + widen(load(scratch, at, features - k, float32, zero))
            store(gradient, index + k, features - k, dtype, narrow(exact), False)
