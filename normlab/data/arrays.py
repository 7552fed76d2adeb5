"""Makes the parts of a data set of a person's own arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from normlab.data.labels import read_labels
from normlab.data.mapped import subset
from normlab.data.parts import PARTS, TEST, TRAIN, require_classes, require_draw, shared_out
from normlab.data.pixels import read_pixels
from normlab.errors import UserError


def parts_of(
    where: str,
    given: Mapping[str, tuple[Any, Any]],
    *,
    classes: tuple[str, ...] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...], list[str]]:
    """Convert images and labels to the parts of a data set.

    Args:
        where: the beginning of error messages.
        given: images and labels by part; without a part "test", it is drawn from "train".
        classes: the names of the classes.
        test_share: the share of each class that is drawn.
        seed: the seed by which they are chosen.

    Returns:
        Images and labels by part, as `Split` has them; the names of the classes; and what was done,
        in words.

    Raises:
        UserError: the arrays cannot be read, or do not belong together.
    """
    for part, (images, labels) in given.items():
        sizes = [len(array) if hasattr(array, "__len__") else None for array in (images, labels)]
        if None in sizes or sizes[0] != sizes[1]:
            raise UserError(f"{where}: {part} has {sizes[0]} images and {sizes[1]} labels")
    pixels, done = read_pixels(where, {part: pair[0] for part, pair in given.items()})
    labels, names = read_labels(where, {part: pair[1] for part, pair in given.items()}, classes)
    parts = {part: (pixels[part], labels[part]) for part in PARTS if part in given}
    if TEST not in parts:
        chosen = held_out(where, labels[TRAIN], test_share, seed)
        done.append(f"{test_share:.0%} of each class for testing by seed {seed}")
        for part, taken in ((TRAIN, ~chosen), (TEST, chosen)):
            index = np.flatnonzero(taken)
            parts[part] = subset(pixels[TRAIN], index), labels[TRAIN][index]
    require_classes(where, names, {part: pair[1] for part, pair in parts.items()})
    return parts, names, done


def held_out(where: str, labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose the examples of the test split: `(N,)` bool.

    Raises:
        FieldError: the share is not a share, or the seed is negative.
        UserError: no class has two examples.
    """
    require_draw(share, seed)
    chosen = shared_out(labels, share, seed)
    if not chosen.any():
        raise UserError(f"{where}: no class has two examples, so none can be held out for testing")
    return chosen
