"""CIFAR as the Hugging Face hub publishes it: Parquet tables of encoded images.

A folder holds `train-*.parquet` and `test-*.parquet`, each split in one file or several
(`train-00000-of-00002.parquet`, or `train-00000-of-00002-0a1b2c3d.parquet`). The column `img` holds
`{bytes, path}`, an image file each. Some copies are PNG and equal the official pixels; others are
JPEG and differ from them a little.
"""

import contextlib
import io
import re
from pathlib import Path

import numpy as np

from normlab.data.cifar_sets import CHANNELS, SIZE, TEST_EXAMPLES, TRAIN_EXAMPLES, CifarSet
from normlab.data.dataset import Split, stratified
from normlab.data.reading import whole

SHARD = re.compile(r"(?:train|test)-([0-9]+)-of-([0-9]+)(?:-[0-9A-Za-z]+)?")
PLAIN = re.compile(r"[\w.-]+")
"""What no second copy is called: `train-0 (1)`, `train-0 - Copy`."""

MOST_COPIES = 0.01
"""The share of images that may stand in two files: as published there is none."""


def read_parquet(
    folder: Path, cifar: CifarSet, train_examples: int | None, test_examples: int | None
) -> tuple[Split, Split, str]:
    """The training and the test split, or stratified subsets of them; only those are decoded.

    With them what they were read from: "Parquet, PNG-coded pictures".

    Args:
        folder: where the tables are.
        cifar: which of the two sets they hold.
        train_examples: how many training examples to keep; None keeps all.
        test_examples: how many test examples to keep; None keeps all.

    Raises:
        UserError: a table is missing, there twice, damaged, or not of this set.
    """
    train, test = (_shards(folder, cifar, part) for part in ("train", "test"))
    codings: set[str] = set()
    splits = (
        _split(train, cifar, train_examples, codings),
        _split(test, cifar, test_examples, codings),
    )
    whole = count_parquet(folder, cifar) == (TRAIN_EXAMPLES, TEST_EXAMPLES)
    if not (whole and len(train) == len(test) == 1):  # where there is room for none
        _check_copies(folder, cifar, [*train, *test])
    return *splits, f"Parquet, {' and '.join(sorted(codings))}-coded pictures"


def count_parquet(folder: Path, cifar: CifarSet) -> tuple[int, int]:
    """How many training and test examples the tables hold, from their metadata alone.

    Raises:
        UserError: a table is missing, there twice, or damaged.
    """
    train, test = (
        sum(_rows(file, cifar) for file in _shards(folder, cifar, part))
        for part in ("train", "test")
    )
    return train, test


def _shards(folder: Path, cifar: CifarSet, part: str) -> list[Path]:
    """The files of a split: each of those that their names speak of, once."""
    files = sorted(folder.glob(f"{part}-*.parquet"))
    if not files:
        raise cifar.damaged(folder, f"a file {part}-*.parquet", "none")
    numbered = [SHARD.fullmatch(file.stem) for file in files]
    totals = [int(number[2]) for number in numbered if number]
    if not totals and all(PLAIN.fullmatch(file.stem) for file in files):
        return files
    total = totals[0] if totals else len(files)
    found = sorted((int(number[1]), int(number[2])) for number in numbered if number)
    if len(found) < len(files) or found != [(index, total) for index in range(total)]:
        first, last = (f"{part}-{n:05d}-of-{total:05d}.parquet" for n in (0, total - 1))
        expected = f"{total} files {part}-*.parquet, once each, {first} to {last}"
        raise cifar.damaged(folder, expected, ", ".join(file.name for file in files))
    return files


def _check_copies(folder: Path, cifar: CifarSet, files: list[Path]) -> None:
    """Refuse files that hold the same images: they would be trained on and tested on, too."""
    import pyarrow

    single = [_images(file, cifar).unique() for file in files]
    count = sum(map(len, single))
    copies = count - len(pyarrow.concat_arrays(single).unique())
    if copies > MOST_COPIES * count:
        names = ", ".join(file.name for file in files)
        raise cifar.damaged(folder, "every image in one file alone", f"{copies} in two of {names}")


def _split(files: list[Path], cifar: CifarSet, examples: int | None, codings: set[str]) -> Split:
    shard_labels = [_labels(file, cifar) for file in files]
    labels = np.concatenate(shard_labels)
    chosen = np.arange(len(labels)) if examples is None else stratified(labels, examples)
    images = np.empty((len(chosen), SIZE, SIZE, CHANNELS), np.uint8)
    ends = np.cumsum([len(shard) for shard in shard_labels])
    for file, shard, end in zip(files, shard_labels, ends, strict=True):
        first, last = np.searchsorted(chosen, [end - len(shard), end])
        rows = chosen[first:last] - (end - len(shard))
        for i, (row, encoded) in enumerate(_encoded(file, cifar, rows)):
            images[first + i], coding = _decode(file, cifar, row, encoded)
            codings.add(coding)
    return Split(images, labels[chosen])


def _labels(file: Path, cifar: CifarSet) -> np.ndarray:
    """Every label in `file`: `(N,)` int32."""
    column = _column(file, cifar, cifar.label_column)
    if len(column) == 0:
        raise cifar.damaged(file, "at least one row", "none")
    try:
        labels = column.to_numpy().astype(np.int32, casting="same_kind")
    except (TypeError, ValueError) as error:
        expected = f"integers in the column '{cifar.label_column}'"
        found = f"{column.type}, {column.null_count} of them missing"
        raise cifar.damaged(file, expected, found) from error
    if labels.min() < 0 or labels.max() >= len(cifar.classes):
        found = f"{labels.min()}..{labels.max()}"
        raise cifar.damaged(file, f"labels 0..{len(cifar.classes) - 1}", found)
    return labels


def _encoded(file: Path, cifar: CifarSet, rows: np.ndarray):
    """The number and the encoded image of each of `rows`, which are sorted."""
    for row, image in zip(rows, _images(file, cifar).take(rows), strict=True):
        yield row, image.as_py()


def _images(file: Path, cifar: CifarSet):
    """Every encoded image of `file`, null where there is none: a `pyarrow.BinaryArray`."""
    import pyarrow

    column = _column(file, cifar, "img")
    place = column.type.get_field_index("bytes") if pyarrow.types.is_struct(column.type) else -1
    if place < 0:
        raise cifar.damaged(file, "a column 'img' of {bytes, path}", f"one of {column.type}")
    return column.combine_chunks().flatten()[place]


def _rows(file: Path, cifar: CifarSet) -> int:
    with _table(file, cifar) as table:
        return table.metadata.num_rows


def _column(file: Path, cifar: CifarSet, name: str):
    """One column of `file`, and no other: a `pyarrow.ChunkedArray`."""
    with _table(file, cifar) as table:
        if name not in table.schema_arrow.names:
            found = ", ".join(table.schema_arrow.names)
            raise cifar.damaged(file, f"a column '{name}'", f"the columns {found}")
        return table.read([name]).column(name)


@contextlib.contextmanager
def _table(file: Path, cifar: CifarSet):
    """The opened file: a `ParquetFile`; what it raises within is told as damage."""
    # Slow to import and needed by this layout alone.
    from pyarrow.parquet import ParquetFile

    with whole(cifar.damaged, file, "a whole Parquet file"), ParquetFile(file) as table:
        yield table


def _decode(file: Path, cifar: CifarSet, row: int, encoded: bytes | None):
    """The pixels of one image file, `(32, 32, 3)` uint8, and how it is coded."""
    from PIL import Image

    if not isinstance(encoded, bytes):
        found = "nothing" if encoded is None else f"a value of {type(encoded).__name__}"
        raise cifar.damaged(file, f"an image in row {row}", found)
    with (
        whole(cifar.damaged, file, f"an image in row {row}"),
        Image.open(io.BytesIO(encoded)) as image,
    ):
        size, mode, coding = image.size, image.mode, image.format or "unknown"
        # Another size is not decoded, as a damaged one may be of gigabytes.
        pixels = np.asarray(image) if size == (SIZE, SIZE) else None
    if pixels is None or mode != "RGB":
        raise cifar.damaged(
            file, f"a {SIZE}x{SIZE} RGB image in row {row}", f"{size[0]}x{size[1]} {mode}"
        )
    return pixels, coding
