"""CIFAR-10-C as its authors published it: corrupted test images of CIFAR-10, read where they lie.

The folder `CIFAR-10-C` (or `cifar10_c`) in the root holds one array for each corruption, such as
`fog.npy`: five severities in turn, each of all 10,000 test images; and `labels.npy`. The training
images are those of CIFAR-10, which must be there too. Smaller arrays are read, and never silently:
a config records their number. The pictures that `normlab.data.corruptions` makes are others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from normlab.data.cifar import Cifar10
from normlab.data.cifar_sets import CIFAR10, SIZE, TEST_EXAMPLES
from normlab.data.dataset import Dataset, Outline, Split, data_root, dataset, stratified
from normlab.data.pooling import mean_pool
from normlab.errors import UserError, did_you_mean, require_field, require_whole

FOLDERS = "CIFAR-10-C", "cifar10_c"
LABELS = "labels.npy"
SEVERITIES = 5

FIFTEEN = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The corruptions of the paper's tables, by the names of their files."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Four more, which the authors publish for choosing settings."""


@dataset(
    licence="CC BY 4.0 (the corruptions); CIFAR-10: free to use, with the citation",
    citation="Hendrycks and Dietterich 2019 (arXiv:1903.12261); Krizhevsky 2009",
    how_to_get="download CIFAR-10-C.tar from https://zenodo.org/records/2535967 and unpack it into "
    "the folder of NORMLAB_DATA, beside cifar10",
)
@dataclass(frozen=True)
class Cifar10C:
    """CIFAR-10 for training, and the published CIFAR-10-C for testing.

    The test examples are those of one corruption after another, in the order of the files:
    `evaluate: {policy: tent, stream: as_stored}` meets them so.

    Attributes:
        corruptions: the names of the files, without `.npy`; None for the fifteen of the paper.
        severity: 1..5.
        train_examples: as for `cifar10`.
        test_examples: number of test examples of each corruption, spread evenly over the classes;
            None for all.
        size: height and width in pixels: 32 as published, or 16 or 8 by averaging blocks.

    >>> Cifar10C(corruptions=("fog", "snow"), severity=3).outline().test_examples
    20000
    """

    corruptions: tuple[str, ...] | None = None
    severity: int = 5
    train_examples: int | None = None
    test_examples: int | None = None
    size: int = SIZE

    def __post_init__(self) -> None:
        self._clean  # noqa: B018 (it checks its own fields)
        require_whole("severity", self.severity, 1, SEVERITIES)
        names = self._names
        once = bool(names) and len(set(names)) == len(names)
        require_field(once, "corruptions", list(names), "null, or a list without repetitions")
        for name in names:
            known = (*FIFTEEN, *EXTRA)
            allowed = f"names of its files; {did_you_mean(name, known)}"
            require_field(name in known, "corruptions", name, allowed)

    @property
    def _clean(self) -> Cifar10:
        return Cifar10(self.train_examples, self.test_examples, self.size)

    @property
    def _names(self) -> tuple[str, ...]:
        return FIFTEEN if self.corruptions is None else tuple(self.corruptions)

    def load(self, root: Path | None = None) -> Dataset:
        """Load the training images, and the corrupted test images.

        Args:
            root: the folder to look in; `data_root()` by default.

        Raises:
            UserError: the files are missing, damaged, or hold fewer examples than requested.
        """
        folder, asked = self.locate(root), self.settled(root)
        if folder is None:
            raise UserError(self._missing(root))
        labels = _labels(folder)
        chosen = np.arange(len(labels))
        if asked.test_examples is not None:
            chosen = stratified(labels, asked.test_examples)
        parts = [_part(folder / f"{name}.npy", self.severity, len(labels))[chosen]
                 for name in self._names]  # fmt: skip
        images = np.concatenate(parts)
        images = mean_pool(images, self.size) if self.size < SIZE else images
        data = replace(asked._clean, test_examples=1).load(root)
        test = Split(images, np.tile(labels[chosen], len(parts)))
        source = f"{data.source}; test: published CIFAR-10-C, severity {self.severity}"
        return replace(data, name="cifar10_c", test=test, source=source)

    def outline(self, root: Path | None = None) -> Outline:
        """Return the sizes of what `load` returns, or the published sizes if there are no files."""
        there = _count(self.locate(root))
        each = there if self.test_examples is None else self.test_examples
        clean = replace(self._clean, test_examples=None).outline(root)
        return clean._replace(test_examples=each * len(self._names))

    def settled(self, root: Path | None = None) -> Self:
        """Fill in the number of examples if the files do not hold the published number.

        Raises:
            FieldError: the files hold fewer examples than requested.
            UserError: the files are damaged.
        """
        train = replace(self._clean, test_examples=None).settled(root).train_examples
        there, asked = _count(self.locate(root)), self.test_examples
        allowed = f"in 1..{there:,}, as many as {self.locate(root)} holds; or None for all"
        require_field(asked is None or asked <= there, "test_examples", asked, allowed)
        if asked is None and there != TEST_EXAMPLES:
            asked = there
        return replace(self, train_examples=train, test_examples=asked)

    def locate(self, root: Path | None = None) -> Path | None:
        """Return the folder of the arrays, or None."""
        return next((one for one in self._folders(root) if (one / LABELS).is_file()), None)

    def _folders(self, root: Path | None) -> Iterator[Path]:
        root = data_root() if root is None else Path(root)
        yield from (root / name for name in FOLDERS)
        if root.resolve().name in FOLDERS:
            yield root

    def _missing(self, root: Path | None) -> str:
        folders = " or ".join(map(str, self._folders(root)))
        return (
            f"cifar10_c is not on this machine: there is no {LABELS} in {folders}. To get it, "
            f"{type(self).facts.how_to_get}"  # type: ignore[attr-defined]
        )


def _count(folder: Path | None) -> int:
    """Return the number of test images in the files, or the published one."""
    if folder is None:
        return TEST_EXAMPLES
    found = (folder / LABELS).stat()
    return len(_read_labels(folder, found.st_size, found.st_mtime_ns))


def _labels(folder: Path) -> np.ndarray:
    found = (folder / LABELS).stat()
    return _read_labels(folder, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4)  # a sweep asks once for every run
def _read_labels(folder: Path, size: int, changed: int) -> np.ndarray:
    """Read the labels of one severity, `(N,)` int32; all severities have the same."""
    file = folder / LABELS
    found = _opened(file)
    fits = found.ndim == 1 and found.dtype.kind in "iu" and len(found) % SEVERITIES == 0
    _require(fits and len(found) > 0, file, "whole numbers of shape (5 N,)", found)
    blocks = np.asarray(found, np.int64).reshape(SEVERITIES, -1)
    most = len(CIFAR10.classes) - 1
    _require(bool((blocks == blocks[0]).all()), file, "the same labels at every severity", found)
    within = bool(blocks.min() >= 0 and blocks.max() <= most)
    _require(within, file, f"labels in 0..{most}", found)
    return blocks[0].astype(np.int32)


def _part(file: Path, severity: int, count: int) -> np.ndarray:
    """Return the images of one corruption at one severity; the file is only mapped."""
    found = _opened(file)
    shape = (SEVERITIES * count, SIZE, SIZE, 3)
    _require(
        found.shape == shape and found.dtype == np.uint8, file, f"uint8 of shape {shape}", found
    )
    return found[(severity - 1) * count : severity * count]


def _opened(file: Path) -> np.ndarray:
    if not file.is_file():
        there = ", ".join(sorted(one.stem for one in file.parent.glob("*.npy"))) or "nothing"
        raise UserError(f"cifar10_c: there is no {file}; the folder has {there}")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        message = f"{file} is damaged ({error}): unpack CIFAR-10-C.tar anew"
        raise UserError(message) from error


def _require(fits: bool, file: Path, expected: str, found: np.ndarray) -> None:
    if not fits:
        raise UserError(
            f"{file} holds {found.dtype} of shape {found.shape}, and {expected} is expected: is it "
            "a file of CIFAR-10-C? If so, unpack CIFAR-10-C.tar anew"
        )
