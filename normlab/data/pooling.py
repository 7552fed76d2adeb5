"""Makes images smaller by averaging blocks of pixels."""

from numbers import Integral

import numpy as np

from normlab.errors import UserError, require_channels_last, require_field


def mean_pool(images: np.ndarray, size: int) -> np.ndarray:
    """Average square blocks of pixels, rounded to the nearest integer (half up).

    Args:
        images: `(N, H, H, C)` uint8.
        size: the new height and width, a divisor of the old.

    Returns:
        `(N, size, size, C)` uint8.

    Raises:
        UserError: `images` are not uint8 of shape `(N, H, W, C)`.
        FieldError: the images are not square, or `size` does not divide their side.

    >>> mean_pool(np.array([[0, 1], [4, 5]], np.uint8).reshape(1, 2, 2, 1), 1).item()
    3
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        found = f"{images.dtype} of shape {images.shape}"
        raise UserError(f"images must be uint8 of shape (N, H, W, C), got {found}")
    require_channels_last("images", images.shape)
    n, height, width, channels = images.shape
    require_field(
        isinstance(size, Integral) and size >= 1 and height == width and height % size == 0,
        "size",
        size,
        f"a divisor of the images' height and width, here {height} and {width}",
    )
    block = height // size
    blocks = images.reshape(n, size, block, size, block, channels)
    total = blocks.sum(axis=(2, 4), dtype=np.uint32)
    return ((2 * total + block**2) // (2 * block**2)).astype(np.uint8)
