"""Chooses examples of an array that may be larger than the memory."""

import math
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from normlab.errors import UserError
from normlab.places import cache_root

MOST_IN_MEMORY = 1 << 30
"""Bytes of an array that may be copied to memory; larger ones are mapped from a disk."""


def subset(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the images at sorted or unsorted indices, without loading more than fits in memory.

    Neighbours stay a view. Others are copied: to memory if they are few or the array is in memory,
    and otherwise to a disk.

    >>> subset(np.arange(10), np.array([1, 4])).tolist()
    [1, 4]
    """
    if len(chosen) and (np.diff(chosen) == 1).all():
        return images[chosen[0] : chosen[-1] + 1]
    size = len(chosen) * images[:1].nbytes
    if size <= MOST_IN_MEMORY or not is_mapped(images):
        return np.ascontiguousarray(images[chosen])
    starts = range(0, len(chosen), 1024)
    pieces = (np.ascontiguousarray(images[chosen[start : start + 1024]]).data for start in starts)
    return on_disk(pieces, (len(chosen), *images.shape[1:]), images.dtype)


def is_mapped(array: np.ndarray) -> bool:
    """Return whether an array, or the one that it is a view of, is mapped from a file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def on_disk(
    pieces: Iterable[bytes | memoryview], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray:
    """Write an array to a file in the cache folder and map it; the file vanishes with the array.

    Args:
        pieces: its bytes, in C order.
        shape: its shape.
        dtype: its dtype.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = cache_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # it has no name, so none can stay behind
            for piece in pieces:
                file.write(piece)
            file.flush()
            return np.memmap(file, dtype, "r", shape=shape)
    except OSError as error:
        raise UserError(
            f"{folder}: an array of {math.prod(shape) * dtype.itemsize / 1e6:,.0f} MB cannot be "
            f"written ({error.strerror or error}); make room there, or set NORMLAB_CACHE to a "
            "folder with room that you may write to"
        ) from error
