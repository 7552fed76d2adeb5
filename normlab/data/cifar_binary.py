"""Reads the official binary archives of CIFAR: records of labels and pixels, packed or unpacked.

A record is one label byte (CIFAR-100: the coarse label, then the fine one), followed by 32x32 red,
32x32 green and 32x32 blue values. An archive is read without unpacking it.
"""

from pathlib import Path

import numpy as np

from normlab.data.cifar_archive import Members, count_examples, read_splits
from normlab.data.cifar_sets import CHANNELS, SIZE, CifarSet
from normlab.data.dataset import Split


def read_binary(
    archive: Path, cifar: CifarSet, train_examples: int | None, test_examples: int | None
) -> tuple[Split, Split, str]:
    """Read the training and test splits, or stratified subsets, and name the layout.

    Args:
        archive: the archive as published, a `.tar.gz`, or the folder that it was unpacked to.
        cifar: which of the two sets it is.
        train_examples: number of training examples to keep; None keeps all.
        test_examples: number of test examples to keep; None keeps all.

    Raises:
        UserError: the archive is damaged, or does not hold this set.
    """
    examples = train_examples, test_examples
    train, test = read_splits(archive, cifar, _members(cifar), examples, _records)
    return train, test, "binary archive" if archive.is_file() else "binary files"


def count_binary(archive: Path, cifar: CifarSet) -> tuple[int, int]:
    """Count the training and test examples in an archive.

    An archive of the published size in bytes is not opened.

    Raises:
        UserError: the archive is damaged.
    """
    return count_examples(archive, cifar, _members(cifar), cifar.archive_bytes, _records)


def _members(cifar: CifarSet) -> Members:
    return cifar.train_members, cifar.test_members


def _records(
    archive: Path, cifar: CifarSet, member: str, contents: bytes
) -> tuple[np.ndarray, np.ndarray]:
    record_bytes = cifar.label_bytes + CHANNELS * SIZE**2
    if not contents or len(contents) % record_bytes:
        expected = f"{member} to hold whole records of {record_bytes} bytes"
        raise cifar.damaged(archive, expected, f"{len(contents)} bytes in it")
    records = np.frombuffer(contents, np.uint8).reshape(-1, record_bytes)
    labels = records[:, cifar.label_bytes - 1].astype(np.int32)
    if labels.max() >= len(cifar.classes):
        expected = f"labels 0..{len(cifar.classes) - 1} in {member}"
        raise cifar.damaged(archive, expected, f"label {labels.max()}")
    return records[:, cifar.label_bytes :], labels
