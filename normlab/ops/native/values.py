"""Values of 16 bits as float32 and back. Sums and products of a kernel are of float32 or wider."""

from typing import Any

import numpy as np
from numba import uint16, uint32

from normlab.ops.native.calls import FLOAT32, bits, compiled, halves


@compiled
def wide(kind: int, address: int, index: int, count: int, spare: int) -> int:
    """Return where `count` values lie as float32: where they are, or at `spare`, widened."""
    if kind == FLOAT32:
        return address + 4 * index
    given, widened = halves(address, index, count), bits(spare, 0, count)
    for j in range(count):
        widened[j] = uint32(given[j]) << uint32(16)
    return spare


@compiled
def place(kind: int, address: int, index: int, spare: int) -> int:
    """Return where results are to be written as float32, before `rounded` is called."""
    return address + 4 * index if kind == FLOAT32 else spare


@compiled
def rounded(kind: int, address: int, index: int, count: int, spare: int) -> None:
    """Round results at `spare` to bfloat16, to the nearest or else the even one."""
    if kind == FLOAT32:
        return
    exact, kept = bits(spare, 0, count), halves(address, index, count)
    for j in range(count):
        # numba's sums of 32 bits have 64, and would fill twice as many registers.
        number = exact[j]
        last = uint32(number >> uint32(16)) & uint32(1)
        up = uint32(uint32(number + uint32(0x7FFF)) + uint32(last))
        is_nan = uint32(number & uint32(0x7FFFFFFF)) > uint32(0x7F800000)
        quiet = uint32(number | uint32(0x400000))
        kept[j] = uint16(uint32(quiet if is_nan else up) >> uint32(16))


@compiled
def variance_to_divide_by(value: float) -> Any:
    """Return a variance as float32, NaN where it does not fit: division by infinity hides it."""
    small = np.float32(value)
    return small if small < np.inf else np.float32(np.nan)
