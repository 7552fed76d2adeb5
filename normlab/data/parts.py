"""Splits a data set into training, validation and test examples."""

from collections.abc import Mapping

import numpy as np

from normlab.errors import UserError, require_field

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)

NAMES = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst"), TEST),
}
"""Usual names of the parts, in folders, files and tables."""


def part_called(name: str) -> str | None:
    """Return the part that a name means, or None.

    >>> part_called("Valid"), part_called("cats")
    ('validation', None)
    """
    return NAMES.get(name.strip().lower())


def shared_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose a share of the examples of every class.

    The share of each class is rounded to a whole number, but a class of two or more examples gives
    at least one and keeps at least one. A class of one example gives none.

    Args:
        labels: `(N,)` integers.
        share: above 0 and below 1.
        seed: the seed by which they are chosen.

    Returns:
        `(N,)` bool: whether each example is chosen.

    >>> labels = np.array([0] * 10 + [1] * 5 + [2])
    >>> np.bincount(labels[shared_out(labels, 0.2, seed=0)], minlength=3).tolist()
    [2, 1, 0]
    """
    order, rank, counts = shuffled_by_class(labels, seed)
    wanted = np.clip(np.floor(counts * share + 0.5), np.minimum(1, counts - 1), counts - 1)
    chosen = np.zeros(len(labels), bool)
    chosen[order] = rank < np.repeat(wanted, counts)
    return chosen


def require_draw(test_share: float, seed: int) -> None:
    """Raise `FieldError` unless a test split can be drawn by this share and this seed."""
    require_field(0 < test_share < 1, "test_share", test_share, "above 0 and below 1")
    require_field(seed >= 0, "seed", seed, "at least 0")


def shuffled_by_class(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order the examples by class, and shuffle them within every class.

    Args:
        labels: `(N,)` integers.
        seed: chooses the shuffled order.

    Returns:
        `(N,)` indices of the examples in that order; `(N,)` their ranks within their classes, from
        0; and the number of examples of every class, in the order of the labels.
    """
    # numpy guarantees the raw stream of a bit generator across versions, but not its shuffle.
    keys = np.random.PCG64(seed).random_raw(len(labels))
    order = np.lexsort((keys, labels))
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return order, np.arange(len(labels)) - np.repeat(starts, counts), counts


def require_classes(where: str, classes: tuple[str, ...], labels: Mapping[str, np.ndarray]) -> None:
    """Raise `UserError` if a class has no training examples, or there is only one class.

    Args:
        where: the beginning of error messages.
        classes: the names of the classes.
        labels: the labels of each part.
    """
    if len(classes) < 2:
        found = f"the class {classes[0]!r} alone" if classes else "no class"
        raise UserError(f"{where}: a classifier needs two or more classes, found {found}")
    trained = set(np.unique(labels[TRAIN]).tolist()) if TRAIN in labels else set()
    missing = [name for label, name in enumerate(classes) if label not in trained]
    if missing:
        elsewhere = {
            part: [classes[label] for label in np.unique(found) if classes[label] in missing]
            for part, found in labels.items()
            if part != TRAIN
        }
        seen = "".join(
            f"; {part} has {', '.join(names)}" for part, names in elsewhere.items() if names
        )
        raise UserError(
            f"{where}: there are no training examples of {', '.join(missing)}{seen}. The classes "
            "must have the same names in every part; add examples, or leave the class out of "
            "'classes'"
        )
