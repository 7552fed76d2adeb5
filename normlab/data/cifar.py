"""CIFAR-10 and CIFAR-100: 60,000 colour photographs of 32x32 pixels in ten or a hundred classes.

Two published layouts are read: the official binary archives, which `fetch` downloads, and the
Parquet tables of the Hugging Face hub. Both are looked for in `<root>/cifar10/`, then in `<root>/`
(`<root>/cifar100/` for CIFAR-100), where the root is `$NORMLAB_DATA` or the user's cache folder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from normlab.data.cifar_binary import read_binary
from normlab.data.cifar_parquet import read_parquet
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
from normlab.errors import UserError, require_field


@dataclass(frozen=True)
class _Cifar:
    """What the two sets share. The fields are described in `Cifar10`."""

    published: ClassVar[CifarSet]

    train_examples: int | None = None
    test_examples: int | None = None
    size: int = SIZE

    def __post_init__(self):
        for field, most in (("train_examples", TRAIN_EXAMPLES), ("test_examples", TEST_EXAMPLES)):
            n = getattr(self, field)
            require_field(n is None or 1 <= n <= most, field, n, f"in 1..{most}, or None for all")
        require_field(self.size in (8, 16, 32), "size", self.size, "8, 16 or 32")

    def load(self, root: Path | None = None) -> Dataset:
        """The chosen examples, as arrays.

        Args:
            root: the folder to look in; `data_root()` unless given.

        Raises:
            UserError: the files are missing or damaged; the message says how to get them.
        """
        path = self.locate(root)
        if path is None:
            raise UserError(self._missing(root))
        read = read_binary if path.is_file() else read_parquet
        splits = read(path, self.published, self.train_examples, self.test_examples)
        if self.size < SIZE:
            splits = [Split(mean_pool(images, self.size), labels) for images, labels in splits]
        train, test = splits
        return Dataset(self.published.name, train, test, self.published.classes)

    def outline(self) -> Outline:
        """The sizes of what `load` returns from the files as published."""
        train = TRAIN_EXAMPLES if self.train_examples is None else self.train_examples
        test = TEST_EXAMPLES if self.test_examples is None else self.test_examples
        return Outline((self.size, self.size, 3), len(self.published.classes), train, test)

    def locate(self, root: Path | None = None) -> Path | None:
        """The archive, or the folder of Parquet tables, that `load` would read; None without."""
        for folder in self._folders(root):
            archive = folder / self.published.archive
            if archive.is_file():
                return archive
            # The tables' own names say nothing of the set, so the folder's must.
            if folder.resolve().name == self.published.name and any(folder.glob("*-*.parquet")):
                return folder
        return None

    def fetch(self, root: Path | None = None, progress: bool = True) -> Path:
        """Download the official archive, or find that it is there, and return its path.

        An interrupted download is continued by the next call. The checksum is compared each time.

        Args:
            root: the folder to put it under; `data_root()` unless given.
            progress: whether to show how far it is, on stderr.

        Raises:
            UserError: it cannot be had; the message says how to put it there by hand.
        """
        # Brings in an HTTP client, which loading has no use for.
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
            f"{name} is not on this machine: there is no {archive} in {first} or {second}, and no "
            f"train-*.parquet in a folder called {name}. Either fetch it: normlab data fetch "
            f"{name}; or set NORMLAB_DATA to the folder that holds it"
        )


@dataset(
    licence="free to use, with the citation",
    citation="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    how_to_get="normlab data fetch cifar10",
)
@dataclass(frozen=True)
class Cifar10(_Cifar):
    """CIFAR-10: colour photographs in ten classes, 50,000 to train on and 10,000 to test.

    Attributes:
        train_examples: how many training examples, 1..50,000, as evenly spread over the classes
            as can be; smaller subsets lie inside larger ones. None for all.
        test_examples: how many test examples, 1..10,000, chosen likewise. None for all.
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
    """CIFAR-100: colour photographs in a hundred classes, 50,000 to train on and 10,000 to test.

    Attributes:
        train_examples: how many training examples, 1..50,000, as evenly spread over the classes
            as can be; smaller subsets lie inside larger ones. None for all.
        test_examples: how many test examples, 1..10,000, chosen likewise. None for all.
        size: height and width in pixels: 32 as published, or 16 or 8 by averaging blocks.

    >>> len(Cifar100.published.classes)
    100
    """

    published: ClassVar[CifarSet] = CIFAR100
