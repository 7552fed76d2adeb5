"""Reads files defensively: exceptions of libraries become reports of damage, sizes are checked."""

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from normlab.data.mapped import MOST_IN_MEMORY, on_disk
from normlab.errors import UserError, in_one_line

MOST = 1100
"""Greatest ratio that deflate can compress by (1032 in zlib's manual, rounded up). A greater one
means that the claimed size is false."""

PIECE = 1 << 24
"""Bytes that are read at a time from an array that is too large for the memory."""


@contextmanager
def whole(
    refuse: Callable[[Path, str, str], UserError], path: Path, expected: str
) -> Iterator[None]:
    """Report any exception in a block that only reads a file as damage of that file.

    Libraries raise exceptions of any class on damaged bytes, so no list of classes is complete.

    Args:
        refuse: makes the error from the file, what was expected and what was found.
        path: the file.
        expected: what the file should have been.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise refuse(path, expected, f"damage ({in_one_line(error, longest=200)})") from error


def require_possible(claimed: int, path: Path) -> None:
    """Raise `ValueError` if a part of a compressed file claims an impossible size."""
    held = path.stat().st_size
    if not 0 <= claimed <= MOST * held:
        raise ValueError(f"a part claims {claimed:,} bytes, and the file has {held:,}")


def read_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the named arrays of an `.npz` file, if they exist, and compare their checksums.

    Arrays larger than `mapped.MOST_IN_MEMORY` are unpacked to a disk and mapped from there.

    Raises:
        Exception: the file is damaged; the exception may be of any class.
    """
    with zipfile.ZipFile(path) as file:
        members = set(file.namelist())
        return {name: _array(file, path, name) for name in names if f"{name}.npy" in members}


def npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Read the shape and dtype of every array of an `.npz` file, without the arrays.

    Raises:
        Exception: the file is damaged; the exception may be of any class.
    """
    with zipfile.ZipFile(path) as file:
        found = {}
        for member in file.namelist():
            if member.endswith(".npy"):
                with file.open(member) as stream:
                    shape, _, dtype = _header(stream)
                    found[member.removesuffix(".npy")] = shape, dtype
        return found


def _array(file: zipfile.ZipFile, path: Path, name: str) -> np.ndarray:
    info = file.getinfo(f"{name}.npy")
    require_possible(info.file_size, path)
    with file.open(info) as stream:
        shape, fortran, dtype = _header(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size != info.file_size - stream.tell():
            raise ValueError(f"{name} claims {dtype} of shape {shape} in {info.file_size:,} bytes")
        if size > MOST_IN_MEMORY and not fortran:
            pieces = iter(lambda: stream.read(PIECE), b"")
            return on_disk(pieces, shape, dtype)
        contents = bytearray(stream.read())  # up to the end, where the checksum is compared
    return np.frombuffer(contents, dtype).reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0}
    return read.get(version, np.lib.format.read_array_header_2_0)(stream)
