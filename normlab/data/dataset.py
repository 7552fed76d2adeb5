"""What a dataset is: arrays in memory, with everything that a run needs to know about them.

Images are channels-last `uint8`, 0..255; labels are `int32`, 0..classes-1. There are no iterators:
a set that fits in memory is indexed by the training step itself.

An entry of the catalogue is a frozen dataclass marked with `@dataset(...)`. Its fields choose what
to load, `load(root=None)` returns a `Dataset`, and `outline()` tells its sizes without loading.
An entry that lives in files also has `locate(root=None)`, the path it would read or None, and
`fetch(root=None)`, which downloads it. One whose files may hold other numbers of examples than its
fields say has `settled(root=None)`, which returns it with fields that say them: so does the config.
"""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import platformdirs

from normlab.data.checks import check_classes, check_split
from normlab.errors import UserError, require_field, require_whole

VALIDATION = 1
"""The shuffled order that validation examples come from: not that (0) of the training subsets, or
those held out would be the last that a subset takes."""


class Split(NamedTuple):
    """One part of a dataset.

    Attributes:
        images: `(N, H, W, C)` uint8, 0..255.
        labels: `(N,)` int32, indices into the dataset's `classes`.
    """

    images: np.ndarray
    labels: np.ndarray


class Outline(NamedTuple):
    """What a network must know of a dataset before anything is loaded.

    Attributes:
        image_shape: `(H, W, C)`.
        classes: how many.
        train_examples: how many.
        test_examples: how many.
        validation_examples: how many, where the dataset sets some apart by itself.
    """

    image_shape: tuple[int, int, int]
    classes: int
    train_examples: int
    test_examples: int
    validation_examples: int = 0

    def validated(self, validation: "int | Literal['own'] | None") -> "Outline":
        """What there is with that validation split: the dataset's own, so many held out, or none.

        Raises:
            FieldError: there is no such split.
        """
        if isinstance(validation, int):
            return self.hold_out(validation)
        if validation is None:
            return self._replace(validation_examples=0)
        found, allowed = self.validation_examples, "null or a number: this set has none of its own"
        require_field(found > 0, "validation", validation, allowed)
        return self

    def hold_out(self, validation: int) -> "Outline":
        """What is left to train on when so many examples are held out for validation.

        Raises:
            FieldError: nothing would be left, or not one of each class could be held out.
        """
        most = self.train_examples - self.classes
        allowed = f"null, or in {self.classes}..{most}: one of each class held out, one left"
        fits = self.classes <= validation <= most
        require_field(fits, "validation", validation, allowed)
        left = self.train_examples - validation
        return self._replace(train_examples=left, validation_examples=validation)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, checked when they are put together.

    Attributes:
        name: what reports call it.
        train: the examples to learn from.
        test: the examples to be judged on; their images have the training images' shape.
        classes: the name of every label.
        validation: examples to choose settings by, of the dataset's own validation split or held
            out of the training split; or None.
        source: which copy of the data it is, in a few words, for pages that tell what runs were
            made on: "Parquet, JPEG-coded pictures".

    Raises:
        UserError: an array has the wrong shape or dtype, has its channels first, or a label has no
            class; or the names of the classes are not texts that differ.

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

    def __post_init__(self):
        where = f"dataset '{self.name}'"
        check_classes(where, self.classes)
        shape: tuple[int, ...] | None = None
        for part, word in (("train", "training"), ("test", "test"), ("validation", "validation")):
            if part == "validation" and self.validation is None:
                continue
            split: Split = getattr(self, part)
            check_split(f"{where}: {part}", split, len(self.classes))
            shape = shape or split.images.shape[1:]
            if split.images.shape[1:] != shape:
                raise UserError(
                    f"{where}: training images are {shape} but {word} images "
                    f"{split.images.shape[1:]}; all must have one (H, W, C)"
                )

    def validated(self, validation: "int | Literal['own'] | None") -> "Dataset":
        """The set with its own validation split, with so many held out instead, or without any."""
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
        """The same set with so many training examples, spread over the classes, held out.

        The choice depends on the training labels alone: every run of a comparison holds out the
        same examples.

        >>> labels = np.arange(10, dtype=np.int32) % 2
        >>> split = Split(np.zeros((10, 2, 2, 1), np.uint8), labels)
        >>> held = Dataset("ten", split, split, ("even", "odd")).hold_out(4)
        >>> len(held.train.labels), held.validation.labels.tolist()
        (6, [0, 0, 1, 1])
        """
        chosen = np.zeros(len(self.train.labels), bool)
        chosen[stratified(self.train.labels, validation, seed=VALIDATION)] = True
        kept = Split(*(array[~chosen] for array in self.train))
        return replace(self, train=kept, validation=Split(*(array[chosen] for array in self.train)))

    def channel_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean and standard deviation of each channel over all training images.

        Both are `(C,)` float32 in the images' 0..255 units. The sums are integers, so the result
        is exact up to its last rounding. The deviation is the biased one; that of a constant
        channel is given as 1, so that dividing by it is safe.

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
    """What is known of a dataset without loading it.

    Attributes:
        licence: what its authors allow.
        citation: what to cite when using it.
        how_to_get: what a person does to have it on this machine.
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


def data_root() -> Path:
    """The folder that holds all datasets: `$NORMLAB_DATA`, else this user's cache folder."""
    chosen = os.environ.get("NORMLAB_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("normlab")


def stratified(labels: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """The sorted indices of `n` examples, as evenly spread over the classes as can be.

    Every class has its own fixed shuffled order, and the subset takes the first of every class,
    then the second of every class, and so on. So subsets are nested: that of 5,000 lies inside
    that of 10,000. A remainder goes to the lowest labels, and a class that runs out is made up
    for by the others.

    Args:
        labels: `(N,)` integers.
        n: how many to choose, 1..N.
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
    # numpy promises the raw stream of a bit generator for good, but not what shuffle makes of it.
    keys = np.random.PCG64(seed).random_raw(len(labels))
    by_class = np.lexsort((keys, labels))
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    # A stable sort keeps the classes in order within a rank.
    chosen = by_class[np.argsort(rank, kind="stable")[:n]]
    return np.sort(chosen)
