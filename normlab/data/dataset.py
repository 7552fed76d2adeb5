"""Defines a dataset: arrays in memory, and everything that a run needs to know about them.

Images are channels-last `uint8`, 0..255; labels are `int32`, 0..classes-1. There are no iterators:
the training step itself indexes a set that fits in memory.

An entry of the catalogue is a frozen dataclass marked with `@dataset(...)`. Its fields choose what
to load, `load(root=None)` returns a `Dataset`, and `outline()` returns its sizes without loading.
An entry that is stored in files also has `locate(root=None)`, which returns the path that it would
read or None, and `fetch(root=None)`, which downloads it. If the files may hold another number of
examples than the fields say, `settled(root=None)` returns the entry with that number filled in.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from normlab.catalogue import DATA
from normlab.data.arrays import parts_of
from normlab.data.mapped import subset
from normlab.data.parts import shuffled_by_class
from normlab.errors import UserError, require_channels_last, require_field, require_whole
from normlab.places import data_root as data_root

VALIDATION = 1
"""Seed of the shuffled order of validation examples; training subsets have another order (0)."""


class Split(NamedTuple):
    """One part of a dataset.

    Attributes:
        images: `(N, H, W, C)` uint8, 0..255.
        labels: `(N,)` int32, indices into the dataset's `classes`.
    """

    images: np.ndarray
    labels: np.ndarray

    def chosen(self, index: np.ndarray) -> "Split":
        """Return the examples at `index`; large images that lie on a disk stay there."""
        return Split(subset(self.images, index), self.labels[index])


class Outline(NamedTuple):
    """The sizes of a dataset, known before anything is loaded.

    Attributes:
        image_shape: `(H, W, C)`.
        classes: number of classes.
        train_examples: number of training examples.
        test_examples: number of test examples.
        validation_examples: size of the dataset's own validation split, 0 for none.
    """

    image_shape: tuple[int, int, int]
    classes: int
    train_examples: int
    test_examples: int
    validation_examples: int = 0

    def validated(self, validation: "int | Literal['own'] | None") -> "Outline":
        """Return the sizes with a validation split: the set's own, a number held out, or none.

        Raises:
            FieldError: the set has no such split.
        """
        if isinstance(validation, int):
            return self.hold_out(validation)
        if validation is None:
            return self._replace(validation_examples=0)
        found, allowed = self.validation_examples, "null or a number: this set has none of its own"
        require_field(found > 0, "validation", validation, allowed)
        return self

    def hold_out(self, validation: int) -> "Outline":
        """Return the sizes with `validation` training examples held out.

        Raises:
            FieldError: no training example would be left, or fewer than one of each class held out.
        """
        most = self.train_examples - self.classes
        allowed = f"null, or in {self.classes}..{most}: one of each class held out, one left"
        fits = self.classes <= validation <= most
        require_field(fits, "validation", validation, allowed)
        left = self.train_examples - validation
        return self._replace(train_examples=left, validation_examples=validation)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, checked when the object is made.

    Attributes:
        name: the name shown in reports.
        train: the training examples.
        test: the test examples; their images have the training images' shape.
        classes: the name of every label.
        validation: the examples for choosing settings, from the dataset's own validation split or
            held out of the training split; or None.
        source: a few words about this copy of the data, shown beside results, such as "Parquet,
            JPEG-coded pictures".
        test_names: the file of each test example; empty where the examples have no files.

    Raises:
        UserError: an array has the wrong shape or dtype or has its channels first, a label has no
            class, or the class names are not distinct strings.

    >>> split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1], np.int32))
    >>> Dataset("blank", split, split, ("dark", "light")).fingerprint
    '7a5c7798b954c466'
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    validation: Split | None = None
    source: str = ""
    test_names: tuple[str, ...] = ()

    def __post_init__(self):
        where = f"dataset '{self.name}'"
        _check_classes(where, self.classes)
        shape: tuple[int, ...] | None = None
        for part, word in (("train", "training"), ("test", "test"), ("validation", "validation")):
            if part == "validation" and self.validation is None:
                continue
            split: Split = getattr(self, part)
            _check_split(f"{where}: {part}", split, len(self.classes))
            shape = shape or split.images.shape[1:]
            if split.images.shape[1:] != shape:
                raise UserError(
                    f"{where}: training images are {shape} but {word} images "
                    f"{split.images.shape[1:]}; all must have one (H, W, C)"
                )

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        test: tuple[Any, Any] | None = None,
        validation: tuple[Any, Any] | None = None,
        classes: Sequence[str] | None = None,
        test_share: float = 0.2,
        seed: int = 0,
        name: str = "arrays",
    ) -> "Dataset":
        """Make a dataset of your own arrays.

        Args:
            x: images `(N, H, W, C)`, `(N, C, H, W)` or `(N, H, W)`; uint8, or numbers 0..255, or
                floats 0..1 (`normlab.data.pixels` has the whole rule).
            y: labels `(N,)`, `(N, 1)` or one-hot `(N, classes)`: whole numbers of any dtype,
                booleans or strings (`normlab.data.labels`).
            test: images and labels of the test split; by default it is drawn from `x` and `y`.
            validation: images and labels of a validation split.
            classes: the names of the classes; by default those of the labels.
            test_share: the share of each class that is drawn for testing.
            seed: the seed by which they are chosen.
            name: the name shown in reports.

        Raises:
            UserError: the meaning of the arrays is uncertain or unsupported; the message asks.

        >>> x, y = np.zeros((10, 8, 8)), ["cat", "dog"] * 5
        >>> data = Dataset.from_arrays(x, y)
        >>> data.train.images.shape, len(data.test.labels), data.classes
        ((8, 8, 8, 1), 2, ('cat', 'dog'))
        """
        pairs = {"train": (x, y), "validation": validation, "test": test}
        for part, pair in pairs.items():
            if pair is not None and (not isinstance(pair, tuple | list) or len(pair) != 2):
                raise UserError(f"{part} must be (images, labels), got {type(pair).__name__}")
        given = {part: (pair[0], pair[1]) for part, pair in pairs.items() if pair is not None}
        names = None if classes is None else tuple(classes)
        parts, found, done = parts_of(
            f"dataset '{name}'", given, classes=names, test_share=test_share, seed=seed
        )
        splits = {part: Split(*pair) for part, pair in parts.items()}
        own, source = splits.get("validation"), ", ".join(["arrays", *done])
        return cls(name, splits["train"], splits["test"], found, own, source=source)

    @classmethod
    def from_folder(cls, path: str | Path, **settings: Any) -> "Dataset":
        """Read a folder of your own pictures, with one folder for each class.

        Args:
            path: the folder.
            settings: arguments of `normlab.data.Folder`: `size`, `channels`, `skip_broken`, ...

        Raises:
            UserError: the pictures cannot be read; the message names all that are broken.
        """
        return DATA.load("folder")(Path(path), **settings).load()

    def validated(self, validation: "int | Literal['own'] | None") -> "Dataset":
        """Return the set with a validation split: its own, a number held out, or none."""
        if isinstance(validation, int):
            return self.hold_out(validation)
        return self if validation == "own" else replace(self, validation=None)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any pixel, label or shape does (SHA-256, cut)."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test, *(self.validation or ())):
            digest.update(str(array.shape).encode())
            # Little-endian, so that the fingerprint is the same on every machine.
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()[:16]

    def hold_out(self, validation: int) -> "Dataset":
        """Hold out `validation` training examples, spread evenly over the classes.

        The choice depends on the training labels alone, so every run of a comparison holds out the
        same examples.

        >>> labels = np.arange(10, dtype=np.int32) % 2
        >>> split = Split(np.zeros((10, 2, 2, 1), np.uint8), labels)
        >>> held = Dataset("ten", split, split, ("even", "odd")).hold_out(4)
        >>> len(held.train.labels), held.validation.labels.tolist()
        (6, [0, 0, 1, 1])
        """
        chosen = np.zeros(len(self.train.labels), bool)
        chosen[stratified(self.train.labels, validation, seed=VALIDATION)] = True
        kept, held = (self.train.chosen(np.flatnonzero(part)) for part in (~chosen, chosen))
        return replace(self, train=kept, validation=held)

    def channel_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the mean and standard deviation of each channel over all training images.

        Both are `(C,)` float32 in the images' 0..255 units. The sums are integers, so the result
        is exact up to the final rounding. The standard deviation is the biased one. It is 1 for a
        constant channel, so that dividing by it is safe.

        >>> split = Split(np.full((1, 2, 2, 1), 7, np.uint8), np.zeros(1, np.int32))
        >>> Dataset("flat", split, split, ("only",)).channel_statistics()
        (array([7.], dtype=float32), array([1.], dtype=float32))
        """
        images = self.train.images
        channels = images.shape[-1]
        total, total_squares = [0] * channels, [0] * channels
        for channel in range(channels):
            counts = np.zeros(256, np.int64)
            # In chunks, because bincount widens its input to eight bytes an element.
            for start in range(0, len(images), 1000):
                pixels = images[start : start + 1000, :, :, channel].ravel()
                counts += np.bincount(pixels, minlength=256)
            values = np.arange(256)
            total[channel] = int(counts @ values)
            total_squares[channel] = int(counts @ values**2)
        count = images.size // channels
        mean = [t / count for t in total]
        std = [
            math.sqrt(count * squares - t * t) / count
            for t, squares in zip(total, total_squares, strict=True)
        ]
        return np.array(mean, np.float32), np.array([s or 1.0 for s in std], np.float32)


@dataclass(frozen=True)
class DatasetFacts:
    """Facts about a dataset that are known without loading it.

    Attributes:
        licence: the use that the authors allow.
        citation: the publication to cite when using the set.
        how_to_get: the way to put the set on this machine.
    """

    licence: str
    citation: str
    how_to_get: str


Described = TypeVar("Described", bound=type)


def dataset(*, licence: str, citation: str, how_to_get: str) -> Callable[[Described], Described]:
    """Mark a frozen dataclass as an entry of the catalogue and attach its `DatasetFacts`.

    >>> @dataset(licence="CC0", citation="none", how_to_get="nothing to get")
    ... @dataclass(frozen=True)
    ... class Blank:
    ...     def load(self, root=None): ...
    >>> Blank.facts.licence
    'CC0'
    """
    facts = DatasetFacts(licence, citation, how_to_get)

    def mark(cls: Described) -> Described:
        cls.facts = facts
        cls.catalogue_kind = "dataset"
        return cls

    return mark


def stratified(labels: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Choose `n` examples, spread over the classes as evenly as possible; return sorted indices.

    Every class has its own fixed shuffled order. The subset takes the first of every class, then
    the second of every class, and so on. Subsets are therefore nested: the one of 5,000 is part of
    the one of 10,000. A remainder goes to the lowest labels. If a class runs out, the others make
    up for it.

    Args:
        labels: `(N,)` integers.
        n: number of examples to choose, 1..N.
        seed: chooses another shuffled order.

    Raises:
        FieldError: there are fewer than `n` examples, or `n` is not positive.

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> labels[stratified(labels, 4)]
    array([0, 0, 1, 1])
    """
    labels = np.asarray(labels)
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    require_field(whole, "labels", labels.dtype, "whole numbers of shape (N,)")
    require_whole("n", n, 1, len(labels), ", the number of examples")
    by_class, rank, _ = shuffled_by_class(labels, seed)
    # A stable sort keeps the classes in order within a rank.
    chosen = by_class[np.argsort(rank, kind="stable")[:n]]
    return np.sort(chosen)


def _check_classes(where: str, classes: Sequence[str]) -> None:
    """Raise `UserError` unless `classes` are one or more distinct strings."""
    texts = not isinstance(classes, str) and all(isinstance(name, str) for name in classes)
    if not texts or not len(classes) or len(set(classes)) < len(classes):
        raise UserError(
            f"{where}: classes must be the names of the labels, distinct strings such as "
            f"('dark', 'light'), got {classes!r}"
        )


def _check_split(where: str, split: Any, classes: int) -> None:
    """Raise `UserError` unless `split` is uint8 images `(N, H, W, C)` and int32 labels `(N,)`.

    Labels must lie in 0..classes-1.
    """
    if not isinstance(split, tuple) or len(split) != 2:
        raise UserError(f"{where} must be Split(images, labels), got {type(split).__name__}")
    images, labels = split
    for name, array in (("images", images), ("labels", labels)):
        if not isinstance(array, np.ndarray):
            found = f"{type(array).__module__}.{type(array).__name__}".removeprefix("builtins.")
            raise UserError(
                f"{where}.{name} must be a numpy array, got {found}: np.asarray converts it"
            )
    if images.ndim != 4 or images.dtype != np.uint8 or images.size == 0:
        raise UserError(
            f"{where}.images must be uint8 of shape (N, H, W, C), none of them 0, "
            f"got {images.dtype} of shape {images.shape}"
        )
    require_channels_last(f"{where}.images", images.shape)
    if labels.shape != images.shape[:1] or labels.dtype != np.int32:
        raise UserError(
            f"{where}.labels must be int32 of shape ({len(images)},), one for each image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    low, high = labels.min(), labels.max()
    if low < 0 or high >= classes:
        raise UserError(
            f"{where}.labels must lie in 0..{classes - 1} for {classes} classes, got {low}..{high}"
        )
