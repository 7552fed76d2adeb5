"""Reads the official archives of CIFAR, packed or unpacked: files of records.

The archives differ in how a file holds its records. A function for one file (`Records`) is all
that a kind of archive needs.
"""

import gzip
import tarfile
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from normlab.data.cifar_sets import CHANNELS, SIZE, TEST_EXAMPLES, TRAIN_EXAMPLES, CifarSet
from normlab.data.dataset import Split, stratified
from normlab.data.reading import Limited, require_possible, whole

MOST_BYTES = 300_000_000
"""The greatest size of an archive when it is unpacked; the published ones have 190 MB at most."""

Records = Callable[[Path, CifarSet, str, bytes], tuple[np.ndarray, np.ndarray]]
"""Reads one file, from the place of the archive, the set, the file's name and its contents. Returns
`(N, 3072)` uint8 (32x32 red, 32x32 green and 32x32 blue values) and the labels, `(N,)` int32, or
raises `UserError`."""

Members = tuple[tuple[str, ...], tuple[str, ...]]
"""The names of the files of training records, and of those of test records."""


def read_splits(
    place: Path,
    cifar: CifarSet,
    members: Members,
    examples: tuple[int | None, int | None],
    records: Records,
) -> list[Split]:
    """Read the training and test splits, or stratified subsets.

    Args:
        place: a `.tar.gz` archive, or the folder that it was unpacked to.
        cifar: which of the two sets it is.
        members: the files of each split.
        examples: number of examples of each split to keep; None keeps all.
        records: reads one file.

    Raises:
        UserError: the archive is damaged, or does not hold this set.
    """
    files = read_members(place, cifar, sum(members, ()))
    splits = []
    for names, wanted in zip(members, examples, strict=True):
        read = [records(place, cifar, name, files[name]) for name in names]
        planes, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
        chosen = slice(None) if wanted is None else stratified(labels, wanted)
        images = planes[chosen].reshape(-1, CHANNELS, SIZE, SIZE).transpose(0, 2, 3, 1)
        splits.append(Split(np.ascontiguousarray(images), labels[chosen]))
    return splits


def count_examples(
    place: Path, cifar: CifarSet, members: Members, published_bytes: int, records: Records
) -> tuple[int, int]:
    """Count the training and test examples.

    An archive of the published size in bytes is not opened.

    Args:
        place: a `.tar.gz` archive, or the folder that it was unpacked to.
        cifar: which of the two sets it is.
        members: the files of each split.
        published_bytes: the published size of the archive.
        records: reads one file.

    Raises:
        UserError: the archive is damaged, or does not hold this set.
    """
    if place.is_file() and place.stat().st_size == published_bytes:
        return TRAIN_EXAMPLES, TEST_EXAMPLES
    files = read_members(place, cifar, sum(members, ()))
    train, test = (
        sum(len(records(place, cifar, name, files[name])[1]) for name in names) for names in members
    )
    return train, test


def read_members(place: Path, cifar: CifarSet, wanted: Collection[str]) -> dict[str, bytes]:
    """Return the contents of files of records, by file name without folders.

    Args:
        place: a `.tar.gz` archive, or the folder that it was unpacked to.
        cifar: which of the two sets it is.
        wanted: the names of the files.

    Raises:
        UserError: the archive is damaged, or a file is missing or there twice.
    """
    read = _packed if place.is_file() else _unpacked
    files = read(place, cifar, set(wanted))
    if missing := sorted(set(wanted) - files.keys()):
        raise cifar.damaged(
            place, f"the files {', '.join(sorted(wanted))}", f"no {', '.join(missing)}"
        )
    if len(set(files.values())) < len(wanted):
        raise cifar.damaged(place, f"{len(wanted)} different files", "two with the same contents")
    return files


def _unpacked(folder: Path, cifar: CifarSet, wanted: set[str]) -> dict[str, bytes]:
    with whole(cifar.damaged, folder, "files of records"):
        return {name: (folder / name).read_bytes() for name in wanted if (folder / name).is_file()}


def _packed(archive: Path, cifar: CifarSet, wanted: set[str]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with whole(cifar.damaged, archive, "a whole .tar.gz archive"), gzip.open(archive) as unpacked:
        stream: Any = Limited(unpacked, MOST_BYTES)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile():
                    require_possible(member.size, archive.stat().st_size)
                    contents = tar.extractfile(member)
                    assert contents is not None  # a member that is a file has contents
                    files[name] = contents.read()
        # gzip's checksum comes last and is only compared when everything before it was read.
        while stream.read(1 << 20):
            pass
    return files
