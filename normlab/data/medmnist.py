"""Reads MedMNIST: sets of small medical images, each an `.npz` file with three splits.

A file is looked for in `<root>/medmnist/`, then in `<root>/`, under its published name
(`pneumoniamnist.npz`, or `pneumoniamnist_64.npz` of 64x64 pixels), where the root is
`$NORMLAB_DATA` or the user's cache folder.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from normlab.catalogue import later
from normlab.data.dataset import Dataset, Outline, Split, data_root, dataset, stratified
from normlab.data.medmnist_sets import MULTI_LABEL, SETS, SIZES
from normlab.data.reading import npz_headers, read_npz, whole
from normlab.errors import FieldError, UserError, require_field

Name = Literal[
    "bloodmnist",
    "breastmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
    "pathmnist",
    "pneumoniamnist",
    "retinamnist",
    "tissuemnist",
]

PARTS = ("train", "val", "test")


@dataset(
    licence="CC BY 4.0 (dermamnist: CC BY-NC 4.0)",
    citation="Yang et al. 2023, MedMNIST v2, Scientific Data 10:41; and the set's own source",
    how_to_get="normlab data fetch medmnist set=pneumoniamnist size=28, or any other set and size",
)
@dataclass(frozen=True)
class Medmnist:
    """MedMNIST: medical images of 28x28 to 224x224 pixels, grey or in colour, one label each.

    The splits are the published ones, as unbalanced as they are. The published validation split is
    the dataset's own: `data.validation: own` in a config, `load().validation` in a notebook.

    Attributes:
        set: the set's name: `pneumoniamnist` (chest X-rays of children, normal or pneumonia: 4,708
            for training, 524 for validation, 624 for testing), `bloodmnist`, `breastmnist`,
            `dermamnist`, `octmnist`, `organamnist`, `organcmnist`, `organsmnist`, `pathmnist`,
            `retinamnist` or `tissuemnist`. `chestmnist` is refused: it has several labels an image.
        balance: whether every class of the training split is cut to the size of the rarest class.
            The draw is the same in every run. The other splits stay as they are.
        size: height and width in pixels: 28, 64, 128 or 224. Each size has its own file,
            `pneumoniamnist_64.npz`.

    >>> Medmnist("breastmnist")
    Medmnist(set='breastmnist', balance=False, size=28)
    """

    set: Name = "pneumoniamnist"
    balance: bool = later(False)
    size: Literal[28, 64, 128, 224] = later(28)

    def __post_init__(self) -> None:
        why = ""
        if self.set == MULTI_LABEL:
            why = f"; an image of {MULTI_LABEL} has up to fourteen labels, which is not supported"
        require_field(self.set in SETS, "set", self.set, f"one of {', '.join(SETS)}{why}")
        require_field(self.size in SIZES, "size", self.size, f"one of {SIZES}")

    def load(self, root: Path | None = None) -> Dataset:
        """Load the published splits as arrays.

        Args:
            root: the folder to look in; `data_root()` by default.

        Raises:
            UserError: the file is missing or damaged; the message says how to get it.
        """
        path = self.locate(root)
        if path is None:
            raise UserError(self._missing(root))
        names = [f"{part}_{what}" for part in PARTS for what in ("images", "labels")]
        with whole(self._damaged, path, "a whole .npz file"):
            arrays = read_npz(path, names)
        train, own, test = (self._split(path, part, arrays) for part in PARTS)
        published = SETS[self.set]
        sizes = len(train.labels), len(own.labels), len(test.labels)
        source = ".npz of the published sizes"
        if sizes not in (published.examples, published.larger):
            source = ".npz of {:,}, {:,} and {:,} examples, not as published".format(*sizes)
        if self.balance:
            chosen = stratified(train.labels, _balanced(train.labels, len(published.classes)))
            train, source = train.chosen(chosen), f"{source}, balanced"
        return Dataset(self.set, train, test, published.classes, validation=own, source=source)

    def outline(self, root: Path | None = None) -> Outline:
        """Return the sizes of what `load` returns, or the published sizes if there is no file.

        Raises:
            FieldError: `balance` is set, and the file is not on this machine.
        """
        published = SETS[self.set]
        path = self.locate(root)
        larger = published.larger if self.size > SIZES[0] else None
        train, own, test = (path and _counts(path)) or larger or published.examples
        if self.balance:
            if path is None:
                message = "balance needs the file, because the rarest class decides the size"
                raise FieldError("balance", f"{message}: {self._missing(root)}")
            train = _balanced_examples(self, path, path.stat().st_mtime_ns)
        shape = (self.size, self.size, published.channels)
        return Outline(shape, len(published.classes), train, test, own)

    def locate(self, root: Path | None = None) -> Path | None:
        """Return the file that `load` would read, or None."""
        files = [folder / self._file for folder in self._folders(root)]
        return next((file for file in files if file.is_file()), None)

    def fetch(self, root: Path | None = None, progress: bool = True) -> Path:
        """Download the file unless it is there, and return its path.

        Args:
            root: the folder to put it under; `data_root()` by default.
            progress: whether to show the progress on stderr.

        Raises:
            UserError: the download failed; the message says how to put the file there by hand.
        """
        # Imports an HTTP client, which loading does not need.
        from normlab.data.download import download

        target = self._folders(root)[0] / self._file
        return download(self.url, target, f"md5:{SETS[self.set].md5[self.size]}", progress)

    @property
    def url(self) -> str:
        """The published address of the file."""
        record = 6496656 if self.size == SIZES[0] else 10519652
        return f"https://zenodo.org/records/{record}/files/{self._file}"

    @property
    def _file(self) -> str:
        return f"{self.set}.npz" if self.size == SIZES[0] else f"{self.set}_{self.size}.npz"

    def _folders(self, root: Path | None) -> tuple[Path, Path]:
        root = data_root() if root is None else Path(root)
        return root / "medmnist", root

    def _missing(self, root: Path | None) -> str:
        first, second = self._folders(root)
        return (
            f"{self.set} is not on this machine: there is no {self._file} in {first} or {second}. "
            f"Either download it, {self.url}, and put it into {first} (normlab data fetch medmnist "
            f"set={self.set} size={self.size} does so); or set NORMLAB_DATA to the folder that "
            "holds it"
        )

    def _damaged(self, path: Path, expected: str, found: str) -> UserError:
        return UserError(
            f"{path}: expected {expected}, found {found}. Please download it again: {self.url}"
        )

    def _split(self, path: Path, part: str, arrays: dict[str, np.ndarray]) -> Split:
        published = SETS[self.set]
        for name in (f"{part}_images", f"{part}_labels"):
            if name not in arrays:
                raise self._damaged(path, f"an array '{name}'", "none")
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        colours = () if published.channels == 1 else (published.channels,)
        shape = (len(images) if images.ndim else 0, self.size, self.size, *colours)
        if images.shape != shape or images.dtype != np.uint8 or not len(images):
            expected = f"{part}_images as uint8 of shape {('N', *shape[1:])}".replace("'", "")
            raise self._damaged(path, expected, f"{images.dtype} of shape {images.shape}")
        integers = np.issubdtype(labels.dtype, np.integer)
        if labels.shape != (len(images), 1) or not integers:
            expected = f"{part}_labels as integers of shape ({len(images)}, 1)"
            raise self._damaged(path, expected, f"{labels.dtype} of shape {labels.shape}")
        low, high, last = labels.min(), labels.max(), len(published.classes) - 1
        if low < 0 or high > last:
            raise self._damaged(path, f"{part}_labels in 0..{last}", f"{low}..{high}")
        pixels = images.reshape(len(images), self.size, self.size, published.channels)
        return Split(pixels, labels[:, 0].astype(np.int32))


def _balanced(labels: np.ndarray, classes: int) -> int:
    """Count the examples that are left if every class is cut to the size of the rarest."""
    return classes * int(np.bincount(labels, minlength=classes).min())


@lru_cache(maxsize=16)  # a sweep asks once for every run
def _balanced_examples(described: Medmnist, path: Path, changed: int) -> int:
    with whole(described._damaged, path, "a whole .npz file"):
        labels = read_npz(path, ["train_labels"])["train_labels"].ravel().astype(np.int64)
    return _balanced(labels, len(SETS[described.set].classes))


def _counts(path: Path) -> list[int] | None:
    """Count the examples of each split from the arrays' headers alone; None if one is damaged.

    A copy may have other sizes than the published file. `load` reports damage.
    """
    try:
        headers = npz_headers(path)
        return [headers[f"{part}_images"][0][0] for part in PARTS]
    except Exception:  # damage raises exceptions of any class; `load` reports it
        return None
