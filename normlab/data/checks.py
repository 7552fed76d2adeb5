"""What arrays must be to be a dataset, and what to say where they are not."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from normlab.errors import UserError, require_channels_last


def check_classes(where: str, classes: Sequence[str]) -> None:
    """Raise `UserError` unless they are texts that differ, one or more."""
    texts = not isinstance(classes, str) and all(isinstance(name, str) for name in classes)
    if not texts or not len(classes) or len(set(classes)) < len(classes):
        raise UserError(
            f"{where}: classes must be the names of the labels, texts that differ, as "
            f"('dark', 'light'), got {classes!r}"
        )


def check_split(where: str, split: Any, classes: int) -> None:
    """Raise `UserError` unless it is uint8 images `(N, H, W, C)` and int32 labels of classes."""
    if not isinstance(split, tuple) or len(split) != 2:
        raise UserError(f"{where} must be Split(images, labels), got {type(split).__name__}")
    images, labels = split
    for name, array in (("images", images), ("labels", labels)):
        if not isinstance(array, np.ndarray):
            found = f"{type(array).__module__}.{type(array).__name__}".removeprefix("builtins.")
            raise UserError(
                f"{where}.{name} must be a numpy array, got {found}: np.asarray makes one of it"
            )
    if images.ndim != 4 or images.dtype != np.uint8 or images.size == 0:
        raise UserError(
            f"{where}.images must be uint8 of shape (N, H, W, C), none of them 0, "
            f"got {images.dtype} of shape {images.shape}"
        )
    require_channels_last(f"{where}.images", images.shape)
    if labels.shape != images.shape[:1] or labels.dtype != np.int32:
        raise UserError(
            f"{where}.labels must be int32 of shape ({len(images)},), one for each image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    low, high = labels.min(), labels.max()
    if low < 0 or high >= classes:
        raise UserError(
            f"{where}.labels must lie in 0..{classes - 1} for {classes} classes, got {low}..{high}"
        )
