"""Reads the files of CIFAR's official archives, packed or unpacked."""

import gzip
import tarfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from normlab.data.cifar_sets import CifarSet
from normlab.data.reading import require_possible, whole


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
    with whole(cifar.damaged, archive, "a whole .tar.gz archive"), gzip.open(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile():
                    require_possible(member.size, archive)
                    contents = tar.extractfile(member)
                    assert contents is not None  # a member that is a file has contents
                    files[name] = contents.read()
        # gzip's checksum comes last and is only compared when everything before it was read.
        while stream.read(1 << 20):
            pass
    return files
