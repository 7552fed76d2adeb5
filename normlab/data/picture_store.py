"""Keeps decoded pictures on disk, so that each set is decoded once.

They lie in `pictures/` in the cache folder, one folder for the contents of the files and the
settings of the decoding. Arrays are mapped into memory from there. Any number of processes may ask
for a set at once: one decodes, and the others wait. A set is written under another name and renamed
when it is whole, so that an interrupted one is never taken for it. The folder may be removed at any
time.
"""

import hashlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from normlab.data.file_facts import quietly, threads
from normlab.data.pictures import Fit, UnreadableError, decode
from normlab.data.progress import in_pictures
from normlab.errors import UserError
from normlab.places import cache_root

VERSION = 1
"""The version of the decoding, which changes whenever pictures are decoded to other pixels."""

IMAGES, ABOUT = "images.npy", "about.json"

Encoded = Callable[[], bytes | Path]
"""Returns a picture's file, or its bytes."""


@dataclass(frozen=True)
class Decoding:
    """The settings that decide the pixels.

    Attributes:
        size: height and width.
        channels: 1 or 3.
        fit: the way in which a picture gets another aspect.
    """

    size: tuple[int, int]
    channels: int
    fit: Fit


@dataclass(frozen=True, eq=False)
class Stored:
    """Decoded pictures.

    Attributes:
        images: `(N, height, width, channels)` uint8, mapped from the disk; zeros for broken ones.
        broken: why each broken picture could not be decoded, by its number.
        counts: how many pictures each thing was done with, by the keys of `pictures.KINDS`.
    """

    images: np.ndarray
    broken: dict[int, str]
    counts: dict[str, int]


def stored(contents: str, count: int, decoding: Decoding) -> Stored | None:
    """Return the decoded pictures if they are in the cache.

    Args:
        contents: the digest of all pictures and of their order.
        count: how many there are.
        decoding: how they are decoded.
    """
    return _opened(_folder(contents, decoding), count, decoding)


def decoded(
    name: str,
    contents: str,
    count: int,
    pictures: Callable[[], Iterable[Encoded]],
    decoding: Decoding,
) -> Stored:
    """Return the decoded pictures, from the cache or decoded now.

    Args:
        name: shown beside the progress.
        contents: the digest of all pictures and of their order.
        count: how many there are.
        pictures: a function that returns the encoded pictures, in their order.
        decoding: how they are decoded.

    Raises:
        UserError: the cache folder cannot be written.
    """
    folder = _folder(contents, decoding)
    found = _opened(folder, count, decoding)
    if found is not None:
        return found
    needed = count * decoding.size[0] * decoding.size[1] * decoding.channels
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            found = _opened(folder, count, decoding)
            if found is None:
                _build(name, folder, count, pictures, decoding)
                found = _opened(folder, count, decoding)
    except OSError as error:
        raise UserError(
            f"{folder.parent}: the decoded pictures of {name} ({needed / 1e6:,.1f} MB) cannot be "
            f"written ({error.strerror or error}); make room there, or set NORMLAB_CACHE to a "
            "folder with room that you may write to"
        ) from error
    assert found is not None, folder
    return found


def _folder(contents: str, decoding: Decoding) -> Path:
    height, width = decoding.size
    text = f"{VERSION} {contents} {height} {width} {decoding.channels} {decoding.fit}"
    return cache_root() / "pictures" / hashlib.sha256(text.encode()).hexdigest()[:32]


def _opened(folder: Path, count: int, decoding: Decoding) -> Stored | None:
    if not folder.is_dir():
        return None
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        images = np.load(folder / IMAGES, mmap_mode="r")
        if images.shape != (count, *decoding.size, decoding.channels) or images.dtype != np.uint8:
            return None
        broken = {int(number): reason for number, reason in about["broken"].items()}
        return Stored(images, broken, about["counts"])
    except Exception:  # damaged from outside, in any way; it is built anew
        return None


def _build(
    name: str,
    folder: Path,
    count: int,
    pictures: Callable[[], Iterable[Encoded]],
    decoding: Decoding,
) -> None:
    for left in folder.parent.glob(f"{folder.name}.part*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    part.mkdir()
    try:
        with (part / IMAGES).open("wb") as file:
            shape = (count, *decoding.size, decoding.channels)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            file.flush()
            about = _decode_all(name, file.fileno(), file.tell(), count, pictures, decoding)
            os.fsync(file.fileno())
        (part / ABOUT).write_text(json.dumps(about), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # one that was damaged from outside
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _decode_all(
    name: str,
    file: int,
    start: int,
    count: int,
    pictures: Callable[[], Iterable[Encoded]],
    decoding: Decoding,
) -> dict[str, Any]:
    """Decode every picture into its place in a file, and return the facts about them."""
    size = decoding.size[0] * decoding.size[1] * decoding.channels
    broken: dict[int, str] = {}
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def one(number: int, encoded: Encoded) -> None:
        try:
            pixels, done = decode(encoded(), decoding.size, decoding.channels, decoding.fit)
        except UnreadableError as error:
            broken[number] = str(error)
            pixels, done = np.zeros(size, np.uint8), set()
        # Written rather than mapped: a full disk is then an error and does not kill the process.
        _write_at(file, pixels.tobytes(), start + number * size)
        with lock:
            counts.update(done)
            advance()

    waiting: set[Future[None]] = set()
    with (
        in_pictures(f"decoding {name}", count) as advance,
        ThreadPoolExecutor(threads()) as pool,
        quietly(),
    ):
        try:
            for number, encoded in enumerate(pictures()):
                waiting.add(pool.submit(one, number, encoded))
                if len(waiting) > 4 * threads():  # the encoded ones need memory, too
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
            for future in waiting:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {"broken": dict(sorted(broken.items())), "counts": dict(counts)}


def _write_at(file: int, contents: bytes, place: int) -> None:
    view = memoryview(contents)
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written
