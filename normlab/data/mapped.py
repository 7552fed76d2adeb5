"""Chooses examples of an array that may be larger than the memory."""

import tempfile

import numpy as np

from normlab.data.places import cache_root
from normlab.errors import UserError

MOST_IN_MEMORY = 1 << 30
"""Bytes of a part of a mapped array that are copied into memory."""


def subset(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the images at sorted or unsorted indices, without loading more than fits in memory.

    Neighbours stay a view. Others are copied: in memory if they are small, and otherwise to a file
    in the cache folder that has no name and vanishes with the array.
    """
    if len(chosen) and (np.diff(chosen) == 1).all():
        return images[chosen[0] : chosen[-1] + 1]
    size = len(chosen) * images[:1].nbytes
    if not isinstance(images, np.memmap) or size <= MOST_IN_MEMORY:
        return np.ascontiguousarray(images[chosen])
    return _on_disk(images, chosen)


def _on_disk(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    folder = cache_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for start in range(0, len(chosen), 1024):
                file.write(np.ascontiguousarray(images[chosen[start : start + 1024]]).data)
            file.flush()
            return np.memmap(file, images.dtype, "r", shape=(len(chosen), *images.shape[1:]))
    except OSError as error:
        raise UserError(
            f"{folder}: a part of the data cannot be written ({error.strerror or error}); make "
            "room there, or set NORMLAB_CACHE to a folder with room"
        ) from error
