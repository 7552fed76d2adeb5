"""Values of 16 bits as float32 and back. Sums and products of a kernel are of float32 or wider."""

from typing import Any

import numpy as np
from numba import float64, uint16, uint32

from normlab.ops.native.calls import FLOAT32, bits, compiled, floats, halves


@compiled
def wide(kind: int, address: int, index: int, count: int, spare: int) -> Any:
    """View `count` values as float32: where they lie, or at `spare`, widened."""
    if kind != FLOAT32:
        given, widened = halves(address, index, count), bits(spare, 0, count)
        for j in range(count):
            widened[j] = uint32(given[j]) << uint32(16)
    return place(kind, address, index, count, spare)


@compiled
def place(kind: int, address: int, index: int, count: int, spare: int) -> Any:
    """View the place where `count` values lie as float32: their own, or `spare`.

    Results are written there before `rounded` is called.
    """
    return floats(address, index, count) if kind == FLOAT32 else floats(spare, 0, count)


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


@compiled
def inverse_root(variance: float, eps: float) -> float:
    """Return `1 / sqrt(variance + eps)`, float64."""
    return 1 / np.sqrt(float64(variance) + float64(eps))
