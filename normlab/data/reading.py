"""Reads files defensively: exceptions of libraries become reports of damage, sizes are checked."""

import io
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

LARGE, LIKELY = 1 << 26, 100
"""A part that unpacks to more than 64 MB grows by at most this factor; pictures hardly grow."""

LONGEST_HEADER = 1 << 16
"""Bytes of the header of an array; numpy writes fewer than a thousand."""

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


def require_possible(claimed: int, held: int) -> None:
    """Raise `ValueError` if a part of a compressed file claims a size that no data have.

    Args:
        claimed: the bytes that it claims to have when it is unpacked.
        held: the bytes that it has in the file.
    """
    most = MOST * held if claimed <= LARGE else LIKELY * held
    if not 0 <= claimed <= most:
        raise ValueError(f"a part of {held:,} bytes claims {claimed:,} when it is unpacked")


class Limited(io.RawIOBase):
    """Reads a stream that may unpack to no more than so many bytes.

    Args:
        stream: the stream.
        most: the number of bytes; a `ValueError` is raised before more are held.
    """

    def __init__(self, stream: Any, most: int):
        self._stream, self._left = stream, most

    def read(self, size: int = -1, /) -> bytes:
        """Read some bytes, or all of them."""
        found = self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(found)
        if self._left < 0:
            raise ValueError("it unpacks to more bytes than any data of this kind")
        return found


def read_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the named arrays of an `.npz` file, if they exist, and compare their checksums.

    Arrays larger than `mapped.MOST_IN_MEMORY` are unpacked to a disk and mapped from there.

    Raises:
        Exception: the file is damaged; the exception may be of any class.
    """
    with zipfile.ZipFile(path) as file:
        members = set(file.namelist())
        return {name: _array(file, name) for name in names if f"{name}.npy" in members}


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
                    shape, _, dtype, _ = _header(stream)
                    found[member.removesuffix(".npy")] = shape, dtype
        return found


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    info = file.getinfo(f"{name}.npy")
    require_possible(info.file_size, info.compress_size)
    with file.open(info) as stream:
        shape, fortran, dtype, begin = _header(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size != info.file_size - begin:
            raise ValueError(f"{name} claims {dtype} of shape {shape} in {info.file_size:,} bytes")
        if size > MOST_IN_MEMORY and not fortran:
            pieces = iter(lambda: stream.read(PIECE), b"")
            return on_disk(pieces, shape, dtype)
        contents = bytearray(stream.read())  # up to the end, where the checksum is compared
    return np.frombuffer(contents, dtype).reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read the header of an array and its length in bytes, after which the stream stands."""
    limited: Any = Limited(stream, LONGEST_HEADER)  # a header may claim to have gigabytes
    version = np.lib.format.read_magic(limited)
    read = {(1, 0): np.lib.format.read_array_header_1_0}
    found = read.get(version, np.lib.format.read_array_header_2_0)(limited)
    return *found, stream.tell()
