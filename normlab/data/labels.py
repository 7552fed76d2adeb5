"""Reads labels in any form that people have them: numbers, names, columns, one-hot rows.

Whole numbers 0..K-1 without gaps keep their meaning. Other numbers and names become indices in
sorted order, and the values become the names of the classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from normlab.errors import FieldError, UserError, first_few

MOST_SHOWN = 5


def read_labels(
    where: str, given: Mapping[str, Any], classes: tuple[str, ...] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Convert the labels of all parts of a data set together, and name the classes.

    Args:
        where: the beginning of error messages.
        given: by part, labels of shape `(N,)` or `(N, 1)`: integers, whole floats, booleans or
            strings; or one-hot rows `(N, classes)`.
        classes: the names of the classes, if they are known: of the integers 0, 1, ..., of the
            columns of one-hot rows, or the strings themselves in their order.

    Returns:
        `(N,)` int32 by part, and the names.

    Raises:
        UserError: labels are missing, are fractions (regression), several an example, or have
            another shape; or one has no name.

    >>> read_labels("y", {"train": np.array(["dog", "cat", "dog"])})
    ({'train': array([1, 0, 1], dtype=int32)}, ('cat', 'dog'))
    >>> read_labels("y", {"train": np.array([[0, 1], [1, 0]])}, ("cat", "dog"))[0]["train"].tolist()
    [1, 0]
    """
    flat, width = {}, None
    for part, values in given.items():
        flat[part], columns = _flat(f"{where}: {part}", values)
        width = width or columns
    kinds = {
        part: "text" if values.dtype.kind == "U" else "number" for part, values in flat.items()
    }
    if len(set(kinds.values())) > 1:
        found = ", ".join(f"{part} {kind}s" for part, kind in kinds.items())
        raise UserError(f"{where}: labels must be of one kind in all parts, found {found}")
    values = np.unique(np.concatenate(list(flat.values())))
    if classes is not None:
        return _named(where, flat, values, tuple(map(str, classes))), tuple(map(str, classes))
    if width is not None:
        return flat, tuple(map(str, range(width)))
    if values.dtype.kind != "U" and values[0] == 0 and values[-1] == len(values) - 1:
        return {part: _int32(found) for part, found in flat.items()}, tuple(map(str, values))
    names = tuple(str(value) for value in values)
    return {part: _int32(np.searchsorted(values, found)) for part, found in flat.items()}, names


def _named(
    where: str, flat: dict[str, np.ndarray], values: np.ndarray, classes: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Convert labels to indices into names that are given."""
    if values.dtype.kind == "U":
        if unknown := sorted(set(values.tolist()) - set(classes)):
            shown = ", ".join(map(repr, unknown[:MOST_SHOWN]))
            raise UserError(f"{where}: the labels {shown} are not among the classes {classes}")
        numbers = {name: number for number, name in enumerate(classes)}
        return {
            part: np.array([numbers[value] for value in found.tolist()], np.int32)
            for part, found in flat.items()
        }
    if values[0] < 0 or values[-1] >= len(classes):
        raise UserError(
            f"{where}: labels must lie in 0..{len(classes) - 1} for {len(classes)} classes, found "
            f"{values[0]}..{values[-1]}"
        )
    return {part: _int32(found) for part, found in flat.items()}


def _int32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.int32)


def _flat(where: str, values: Any) -> tuple[np.ndarray, int | None]:
    """Return `(N,)` int64 or text, and the number of columns if they were one-hot rows."""
    try:
        # numpy would turn a list of names and numbers into names.
        array = np.asarray(values, object if isinstance(values, list | tuple) else None)
    except Exception as error:  # other libraries' arrays raise their own
        raise UserError(f"{where} labels are no array: {error}") from error
    if array.dtype.kind in "OS":
        array = _of_objects(where, array)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf":
        return _from_rows(where, array), array.shape[1]
    if array.ndim != 1 or array.dtype.kind not in "biufU":
        raise UserError(
            f"{where} labels must be (N,), (N, 1) or one-hot (N, classes), of numbers or strings, "
            f"found {array.dtype} of shape {array.shape}"
        )
    if not len(array):
        raise UserError(f"{where} has no labels")
    if array.dtype.kind == "U":
        return np.char.strip(array), None
    return _whole(where, array), None


def _of_objects(where: str, array: np.ndarray) -> np.ndarray:
    """Convert Python's objects, which may be strings, numbers, bytes or missing."""
    items = [
        item.decode("utf-8", "replace") if isinstance(item, bytes) else item
        for item in array.ravel().tolist()
    ]
    missing = [n for n, item in enumerate(items) if item is None or item != item]
    if missing:
        raise UserError(f"{where} lacks {len(missing):,} labels, the first at number {missing[0]}")
    if any(isinstance(item, list | tuple | set | dict | np.ndarray) for item in items):
        raise UserError(f"{where} {MULTI_LABEL}")
    texts = [isinstance(item, str) for item in items]
    if any(texts) and not all(texts):
        number = texts.index(not texts[0])
        raise UserError(
            f"{where} labels are of two kinds: number 0 is {items[0]!r}, number {number} is "
            f"{items[number]!r}"
        )
    return np.array(items).reshape(array.shape)


MULTI_LABEL = (
    "has several labels an example: normlab compares classifiers of one label an example, and "
    "multi-label sets are not supported. Choose one label, or make one set for each"
)
REGRESSION = (
    "normlab compares classifiers, whose labels are classes; regression is not supported. Give the "
    "classes, such as bins of these numbers"
)


def _whole(where: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        if missing := int((~np.isfinite(array)).sum()):
            first = int(np.flatnonzero(~np.isfinite(array))[0])
            raise UserError(f"{where} lacks {missing:,} labels, the first at number {first}")
        fractions = array[array != np.round(array)]
        if len(fractions):
            raise UserError(f"{where} labels are numbers such as {fractions[0]:g}: {REGRESSION}")
    return array.astype(np.int64)


def _from_rows(where: str, rows: np.ndarray) -> np.ndarray:
    zeros_and_ones = np.isin(rows, (0, 1)).all()
    sums = rows.sum(axis=1)
    if zeros_and_ones and (sums == 1).all():
        return rows.argmax(axis=1).astype(np.int32)
    if zeros_and_ones:
        number = int(np.flatnonzero(sums != 1)[0])
        raise UserError(
            f"{where}, row {number} of its labels has {int(sums[number])}: it {MULTI_LABEL}"
        )
    raise UserError(
        f"{where} labels of shape {rows.shape} must be one-hot rows of 0 and 1, found "
        f"{rows.ravel()[0]!r} and the like; for probabilities or scores give labels.argmax(axis=1)"
    )


def choose_classes(
    where: str, labels: np.ndarray, found: tuple[str, ...], chosen: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Keep the classes that are chosen, or all that have examples.

    Args:
        where: the beginning of error messages.
        labels: `(N,)` indices into `found`.
        found: the names of the classes.
        chosen: the names to keep, in this order; or other names of the labels 0, 1, ...; or None.

    Returns:
        Indices into the kept names, -1 for examples of other classes; the names; and remarks.

    Raises:
        UserError: a chosen class is not there.

    >>> choose_classes("y", np.array([0, 1, 2]), ("a", "b", "c"), ("c", "a"))[:2]
    (array([ 1, -1,  0], dtype=int32), ('c', 'a'))
    """
    present = set(np.unique(labels).tolist())
    if chosen is None:
        kept = tuple(name for label, name in enumerate(found) if label in present)
        empty = [name for name in found if name not in kept]
        remarks = [f"classes without examples: {first_few(empty)}"] if empty else []
    elif set(chosen) <= set(found):
        kept, remarks = chosen, []
    elif len(chosen) == len(found) and found == tuple(map(str, range(len(found)))):
        return labels.astype(np.int32), chosen, []
    else:
        unknown = ", ".join(name for name in chosen if name not in found)
        raise FieldError(
            "classes", f"{where}: there is no class {unknown}; found {', '.join(found)}"
        )
    numbers = np.array([kept.index(name) if name in kept else -1 for name in found], np.int32)
    return numbers[labels], kept, remarks
