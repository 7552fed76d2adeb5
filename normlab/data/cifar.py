"""CIFAR-10 and CIFAR-100: 60,000 colour photographs of 32x32 pixels in ten or a hundred classes.

All published layouts are read: the official binary archives, which `fetch` downloads; the Parquet
tables of the Hugging Face hub; and the archives for Python, which torchvision downloads. Archives
may be unpacked. All are looked for in `<root>/cifar10/`, then in `<root>/` (`<root>/cifar100/` for
CIFAR-100), where the root is `$NORMLAB_DATA` or the user's cache folder.

Smaller sets in these layouts are accepted, but never silently. A config that is resolved on such a
machine records their number of examples, which then enters its hash and its schedule.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from normlab.data.cifar_binary import count_binary, read_binary
from normlab.data.cifar_parquet import count_parquet, read_parquet
from normlab.data.cifar_python import count_python, read_python
from normlab.data.cifar_sets import (
    CIFAR10,
    CIFAR100,
    SIZE,
    TEST_EXAMPLES,
    TRAIN_EXAMPLES,
    CifarSet,
)
from normlab.data.dataset import Dataset, Outline, Split, data_root, dataset
from normlab.data.pooling import mean_pool
from normlab.errors import UserError, require_field, require_whole

PUBLISHED = TRAIN_EXAMPLES, TEST_EXAMPLES
SUBSETS = "train_examples", "test_examples"


@dataclass(frozen=True)
class _Cifar:
    """The code that the two sets share. The fields are described in `Cifar10`."""

    published: ClassVar[CifarSet]

    train_examples: int | None = None
    test_examples: int | None = None
    size: int = SIZE

    def __post_init__(self):
        for field, most in zip(SUBSETS, PUBLISHED, strict=True):
            n = getattr(self, field)
            if n is not None:
                require_whole(field, n, 1, most, ", or None for all")
        require_field(self.size in (8, 16, 32), "size", self.size, "8, 16 or 32")

    def load(self, root: Path | None = None) -> Dataset:
        """Load the chosen examples as arrays.

        Args:
            root: the folder to look in; `data_root()` by default.

        Raises:
            UserError: the files are missing, damaged, or hold fewer examples than requested.
        """
        path = self.locate(root)
        if path is None:
            raise UserError(self._missing(root))
        asked = self.settled(root)
        *splits, source = _layout(path, self.published).read(
            path, self.published, asked.train_examples, asked.test_examples
        )
        if self.size < SIZE:
            splits = [Split(mean_pool(images, self.size), labels) for images, labels in splits]
        train, test = splits
        if (there := self._there(root)) != PUBLISHED:
            source += " of {:,} and {:,} examples".format(*there)
        classes = self.published.classes
        return Dataset(self.published.name, train, test, classes, source=source)

    def outline(self, root: Path | None = None) -> Outline:
        """Return the sizes of what `load` returns, or the published sizes if there are no files.

        Raises:
            UserError: the files are damaged.
        """
        train, test = self._there(root)
        return Outline(
            (self.size, self.size, 3),
            len(self.published.classes),
            train if self.train_examples is None else self.train_examples,
            test if self.test_examples is None else self.test_examples,
        )

    def settled(self, root: Path | None = None) -> Self:
        """Fill in the number of examples if the files do not hold the published number.

        Raises:
            FieldError: the files hold fewer examples than requested.
            UserError: the files are damaged.
        """
        chosen = {}
        for field, there, usual in zip(SUBSETS, self._there(root), PUBLISHED, strict=True):
            asked = getattr(self, field)
            allowed = f"in 1..{there:,}, as many as {self.locate(root)} holds; or None for all"
            require_field(asked is None or asked <= there, field, asked, allowed)
            if asked is None and 0 < there != usual:
                chosen[field] = there
        return replace(self, **chosen)

    def _there(self, root: Path | None) -> tuple[int, int]:
        """Count the training and test examples in the files, or return the published numbers."""
        path = self.locate(root)
        if path is None:
            return PUBLISHED
        files = [path] if path.is_file() else sorted(f for f in path.iterdir() if f.is_file())
        stamps = tuple((file.name, *_stamp(file)) for file in files)
        return _counted(path, self.published, stamps)

    def locate(self, root: Path | None = None) -> Path | None:
        """Return the archive or the folder that `load` would read, or None."""
        for folder in self._folders(root):
            archive = folder / self.published.archive
            if archive.is_file():
                return archive
            # The names of the tables do not identify the set, so the folder's name must.
            if folder.resolve().name == self.published.name and any(folder.glob("*-*.parquet")):
                return folder
            for place in _other_places(folder, self.published):
                return place
        return None

    def fetch(self, root: Path | None = None, progress: bool = True) -> Path:
        """Download the official archive unless it is there, and return its path.

        The next call continues an interrupted download. The checksum is compared each time.

        Args:
            root: the folder to put it under; `data_root()` by default.
            progress: whether to show the progress on stderr.

        Raises:
            UserError: the download failed; the message says how to put the file there by hand.
        """
        # Imports an HTTP client, which loading does not need.
        from normlab.data.download import download

        target = self._folders(root)[0] / self.published.archive
        return download(self.published.url, target, f"md5:{self.published.md5}", progress)

    def _folders(self, root: Path | None) -> tuple[Path, Path]:
        root = data_root() if root is None else Path(root)
        return root / self.published.name, root

    def _missing(self, root: Path | None) -> str:
        first, second = self._folders(root)
        name, archive = self.published.name, self.published.archive
        return (
            f"{name} is not on this machine: there is no {archive} or "
            f"{self.published.python_archive} in {first} or {second}, none of the folders that "
            f"they unpack to, and no train-*.parquet in a folder called {name}. Either fetch it: "
            f"normlab data fetch {name}; or set NORMLAB_DATA to the folder that holds it"
        )


class _Layout(NamedTuple):
    read: Callable[[Path, CifarSet, int | None, int | None], tuple[Split, Split, str]]
    count: Callable[[Path, CifarSet], tuple[int, int]]


def _layout(path: Path, cifar: CifarSet) -> _Layout:
    """Return the functions that read what `locate` found."""
    if path.name == cifar.python_archive or (path / cifar.python_train[0]).is_file():
        return _Layout(read_python, count_python)
    if path.is_file() or (path / cifar.train_members[0]).is_file():
        return _Layout(read_binary, count_binary)
    return _Layout(read_parquet, count_parquet)


def _other_places(folder: Path, cifar: CifarSet) -> Iterator[Path]:
    """Yield unpacked archives and archives for Python that are in a folder, or are the folder."""
    for name, member in (
        (cifar.unpacked, cifar.train_members[0]),
        (cifar.python_unpacked, cifar.python_train[0]),
    ):
        if (folder / name / member).is_file():
            yield folder / name
        if folder.resolve().name == name and (folder / member).is_file():
            yield folder
    if (folder / cifar.python_archive).is_file():
        yield folder / cifar.python_archive


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=16)  # a sweep asks once for every run
def _counted(path: Path, cifar: CifarSet, stamps: tuple[tuple[str, int, int], ...]):
    """Count the training and test examples; the stamps make a changed file be counted again."""
    found = _layout(path, cifar).count(path, cifar)
    if found[0] > TRAIN_EXAMPLES or found[1] > TEST_EXAMPLES:
        expected = f"at most {TRAIN_EXAMPLES:,} training and {TEST_EXAMPLES:,} test examples"
        raise cifar.damaged(path, expected, "{:,} and {:,}".format(*found))
    return found


@dataset(
    licence="free to use, with the citation",
    citation="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    how_to_get="normlab data fetch cifar10",
)
@dataclass(frozen=True)
class Cifar10(_Cifar):
    """CIFAR-10: colour photographs in ten classes, 50,000 for training and 10,000 for testing.

    Attributes:
        train_examples: number of training examples, 1..50,000, spread over the classes as evenly
            as possible; a smaller subset is part of a larger one. None for all.
        test_examples: number of test examples, 1..10,000, chosen in the same way. None for all.
        size: height and width in pixels: 32 as published, or 16 or 8 by averaging blocks.

    >>> Cifar10(train_examples=10_000, size=16)
    Cifar10(train_examples=10000, test_examples=None, size=16)
    """

    published: ClassVar[CifarSet] = CIFAR10


@dataset(
    licence="free to use, with the citation",
    citation="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    how_to_get="normlab data fetch cifar100",
)
@dataclass(frozen=True)
class Cifar100(_Cifar):
    """CIFAR-100: colour photographs in 100 classes, 50,000 for training and 10,000 for testing.

    Attributes:
        train_examples: number of training examples, 1..50,000, spread over the classes as evenly
            as possible; a smaller subset is part of a larger one. None for all.
        test_examples: number of test examples, 1..10,000, chosen in the same way. None for all.
        size: height and width in pixels: 32 as published, or 16 or 8 by averaging blocks.

    >>> len(Cifar100.published.classes)
    100
    """

    published: ClassVar[CifarSet] = CIFAR100
