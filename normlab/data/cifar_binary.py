"""Reads the official binary archives of CIFAR: records of labels and pixels, packed or unpacked.

A record is one label byte (CIFAR-100: the coarse label, then the fine one), followed by 32x32 red,
32x32 green and 32x32 blue values. An archive is read without unpacking it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from normlab.data.cifar_archive import read_members
from normlab.data.cifar_sets import (
    CHANNELS,
    SIZE,
    TEST_EXAMPLES,
    TRAIN_EXAMPLES,
    CifarSet,
)
from normlab.data.dataset import Split, stratified


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
    files = read_members(archive, cifar, (*cifar.train_members, *cifar.test_members))
    return (
        _split(archive, cifar, files, cifar.train_members, train_examples),
        _split(archive, cifar, files, cifar.test_members, test_examples),
        "binary archive" if archive.is_file() else "binary files",
    )


def count_binary(archive: Path, cifar: CifarSet) -> tuple[int, int]:
    """Count the training and test examples in an archive.

    An archive of the published size in bytes is not opened.

    Raises:
        UserError: the archive is damaged.
    """
    if archive.is_file() and archive.stat().st_size == cifar.archive_bytes:
        return TRAIN_EXAMPLES, TEST_EXAMPLES
    files = read_members(archive, cifar, (*cifar.train_members, *cifar.test_members))
    train, test = (
        sum(len(files[member]) for member in members) // _record_bytes(cifar)
        for members in (cifar.train_members, cifar.test_members)
    )
    return train, test


def _record_bytes(cifar: CifarSet) -> int:
    return cifar.label_bytes + CHANNELS * SIZE**2


def _split(
    archive: Path,
    cifar: CifarSet,
    files: dict[str, bytes],
    members: Sequence[str],
    examples: int | None,
) -> Split:
    record_bytes = _record_bytes(cifar)
    parts = []
    for member in members:
        size = len(files[member])
        if size == 0 or size % record_bytes:
            expected = f"{member} to hold whole records of {record_bytes} bytes"
            raise cifar.damaged(archive, expected, f"{size} bytes in it")
        part = np.frombuffer(files[member], np.uint8).reshape(-1, record_bytes)
        highest = part[:, cifar.label_bytes - 1].max()
        if highest >= len(cifar.classes):
            expected = f"labels 0..{len(cifar.classes) - 1} in {member}"
            raise cifar.damaged(archive, expected, f"label {highest}")
        parts.append(part)
    records = np.concatenate(parts)
    labels = records[:, cifar.label_bytes - 1].astype(np.int32)
    chosen = slice(None) if examples is None else stratified(labels, examples)
    planes = records[chosen, cifar.label_bytes :].reshape(-1, CHANNELS, SIZE, SIZE)
    return Split(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels[chosen])
