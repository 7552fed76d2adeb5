"""Reads the official archives of CIFAR for Python, which torchvision downloads: pickled batches.

A batch is a dictionary with `data`, `(N, 3072)` uint8 (32x32 red, 32x32 green, 32x32 blue values),
and a list of classes. A pickle can call any function, so only those that make numpy arrays are
allowed.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from normlab.data.cifar_archive import Members, count_examples, read_splits
from normlab.data.cifar_sets import CHANNELS, SIZE, CifarSet
from normlab.data.dataset import Split
from normlab.data.reading import whole


def read_python(
    place: Path, cifar: CifarSet, train_examples: int | None, test_examples: int | None
) -> tuple[Split, Split, str]:
    """Read the training and test splits, or stratified subsets, and name the layout.

    Args:
        place: the archive as published, a `.tar.gz`, or the folder that it was unpacked to.
        cifar: which of the two sets it is.
        train_examples: number of training examples to keep; None keeps all.
        test_examples: number of test examples to keep; None keeps all.

    Raises:
        UserError: the archive is damaged, or does not hold this set.
    """
    examples = train_examples, test_examples
    train, test = read_splits(place, cifar, _members(cifar), examples, _records)
    return train, test, f"{'archive' if place.is_file() else 'files'} for Python"


def count_python(place: Path, cifar: CifarSet) -> tuple[int, int]:
    """Count the training and test examples.

    An archive of the published size in bytes is not opened.

    Raises:
        UserError: the archive is damaged.
    """
    return count_examples(place, cifar, _members(cifar), cifar.python_archive_bytes, _records)


def _members(cifar: CifarSet) -> Members:
    return cifar.python_train, cifar.python_test


def _records(
    place: Path, cifar: CifarSet, member: str, contents: bytes
) -> tuple[np.ndarray, np.ndarray]:
    with whole(cifar.damaged, place, f"a pickled dictionary of arrays in {member}"):
        loaded: Any = _ArraysOnly(io.BytesIO(contents), encoding="bytes").load()
        batch = {k.decode() if isinstance(k, bytes) else str(k): v for k, v in loaded.items()}
        planes, labels = batch["data"], np.asarray(batch[cifar.python_labels])
    width, classes = CHANNELS * SIZE**2, len(cifar.classes)
    fits = isinstance(planes, np.ndarray) and planes.dtype == np.uint8 and planes.ndim == 2
    if not fits or planes.shape[1] != width or not len(planes):
        found = getattr(planes, "shape", type(planes).__name__)
        raise cifar.damaged(place, f"uint8 records of {width} pixels in {member}", str(found))
    if labels.shape != (len(planes),) or labels.dtype.kind not in "iu":
        raise cifar.damaged(
            place, f"{len(planes)} whole labels in {member}", f"{labels.dtype} of {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()}..{labels.max()}"
        raise cifar.damaged(place, f"labels 0..{classes - 1} in {member}", found)
    return planes, labels.astype(np.int32)


_ARRAY = np.zeros(1)
_ALLOWED: dict[str, Any] = {
    "_reconstruct": _ARRAY.__reduce__()[0],
    "_frombuffer": _ARRAY.__reduce_ex__(5)[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
"""The functions that numpy's pickles call, by names that stay when numpy moves its modules."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _ALLOWED:
            return _ALLOWED[name]
        if (module, name) == ("_codecs", "encode"):  # bytes in pickles of Python 2's protocol
            return _encode
        raise pickle.UnpicklingError(f"it would call {module}.{name}, which no array needs")


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)
