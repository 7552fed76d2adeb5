"""Numbers that kernels divide by: a variance, and one over its root."""

from typing import Any

import numpy as np
from numba import float64

from normlab.ops.native.calls import compiled

FAR = 4.0
"""The square of the most deviations that a mean may be away from where its variance is taken."""


@compiled
def variance_to_divide_by(value: float) -> Any:
    """Return a variance as float32, NaN where it does not fit: division by infinity hides it."""
    small = np.float32(value)
    return small if small < np.inf else np.float32(np.nan)


@compiled
def inverse_root(variance: float, eps: float) -> float:
    """Return `1 / sqrt(variance + eps)`, float64."""
    return 1 / np.sqrt(float64(variance) + float64(eps))
