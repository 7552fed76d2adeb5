"""Reads CIFAR as published on the Hugging Face hub: Parquet tables of encoded images.

A folder holds `train-*.parquet` and `test-*.parquet`, each split in one file or several
(`train-00000-of-00002.parquet`, or `train-00000-of-00002-0a1b2c3d.parquet`). The column `img` or
`image` holds `{bytes, path}`, where `bytes` is an image file. Some copies are PNG and have the
official pixels; others are JPEG and differ slightly. `normlab.data.pictures` converts pictures
in other modes, and the source names them.
"""

import io
import re
from pathlib import Path

import numpy as np

from normlab.data.cifar_sets import CHANNELS, SIZE, TEST_EXAMPLES, TRAIN_EXAMPLES, CifarSet
from normlab.data.dataset import Split, stratified
from normlab.data.parquet_tables import opened
from normlab.data.pictures import KINDS, decode, formats
from normlab.data.reading import whole

SHARD = re.compile(r"(?:train|test)-([0-9]+)-of-([0-9]+)(?:-[0-9A-Za-z]+)?")
PLAIN = re.compile(r"[\w.-]+")
"""Accepted file names without a number; a name such as `train-0 (1)` is that of a copy."""

MOST_COPIES = 0.01
"""The greatest share of images that may occur in two files; the published files share none."""

FEWEST_COPIES = 5
"""Fewer shared images than this are no sign of a copied file."""


def read_parquet(
    folder: Path, cifar: CifarSet, train_examples: int | None, test_examples: int | None
) -> tuple[Split, Split, str]:
    """Read the training and test splits, or stratified subsets, and name the layout.

    Only the images that are kept are decoded. The layout is, say, "Parquet, PNG-coded pictures".

    Args:
        folder: where the tables are.
        cifar: which of the two sets they hold.
        train_examples: number of training examples to keep; None keeps all.
        test_examples: number of test examples to keep; None keeps all.

    Raises:
        UserError: a table is missing, duplicated, damaged, or does not belong to this set.
    """
    train, test = (_shards(folder, cifar, part) for part in ("train", "test"))
    codings: set[str] = set()
    splits = (
        _split(train, cifar, train_examples, codings),
        _split(test, cifar, test_examples, codings),
    )
    published = count_parquet(folder, cifar) == (TRAIN_EXAMPLES, TEST_EXAMPLES)
    if not (published and len(train) == len(test) == 1):  # then no file can be a copy of another
        _check_copies(folder, cifar, [*train, *test])
    return *splits, f"Parquet, {' and '.join(sorted(codings))}-coded pictures"


def count_parquet(folder: Path, cifar: CifarSet) -> tuple[int, int]:
    """Count the training and test examples in the tables from their metadata alone.

    Raises:
        UserError: a table is missing, duplicated, or damaged.
    """
    train, test = (
        sum(_rows(file, cifar) for file in _shards(folder, cifar, part))
        for part in ("train", "test")
    )
    return train, test


def _shards(folder: Path, cifar: CifarSet, part: str) -> list[Path]:
    """Return the files of a split; their names must be complete and without duplicates."""
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
    """Refuse files that share images, because training images would also be test images."""
    import pyarrow

    single = [_images(file, cifar).unique() for file in files]
    count = sum(map(len, single))
    copies = count - len(pyarrow.concat_arrays(single).unique())
    if copies >= FEWEST_COPIES and copies > MOST_COPIES * count:
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
    """Read every label in `file`: `(N,)` int32."""
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
    """Yield the row number and the encoded image of each of the sorted `rows`."""
    for row, image in zip(rows, _images(file, cifar).take(rows), strict=True):
        yield row, image.as_py()


def _images(file: Path, cifar: CifarSet):
    """Read every encoded image of `file`, null where one is missing: a `pyarrow.BinaryArray`."""
    import pyarrow

    with opened(file, cifar.damaged) as table:
        name = "image" if "img" not in table.schema_arrow.names else "img"
        if name not in table.schema_arrow.names:
            found = f"the columns {', '.join(table.schema_arrow.names)}"
            raise cifar.damaged(file, "a column 'img' or 'image'", found)
    column = _column(file, cifar, name)
    place = column.type.get_field_index("bytes") if pyarrow.types.is_struct(column.type) else -1
    if place < 0:
        raise cifar.damaged(file, f"a column '{name}' of {{bytes, path}}", f"one of {column.type}")
    return column.combine_chunks().flatten()[place]


def _rows(file: Path, cifar: CifarSet) -> int:
    with opened(file, cifar.damaged) as table:
        return table.metadata.num_rows


def _column(file: Path, cifar: CifarSet, name: str):
    """Read a single column of `file`: a `pyarrow.ChunkedArray`."""
    with opened(file, cifar.damaged) as table:
        if name not in table.schema_arrow.names:
            found = ", ".join(table.schema_arrow.names)
            raise cifar.damaged(file, f"a column '{name}'", f"the columns {found}")
        return table.read([name]).column(name)


def _decode(file: Path, cifar: CifarSet, row: int, encoded: bytes | None):
    """Decode one image file: its pixels, `(32, 32, 3)` uint8, and its format."""
    from PIL import Image

    if not isinstance(encoded, bytes):
        found = "nothing" if encoded is None else f"a value of {type(encoded).__name__}"
        raise cifar.damaged(file, f"an image in row {row}", found)
    with (
        whole(cifar.damaged, file, f"an image in row {row}"),
        Image.open(io.BytesIO(encoded), formats=formats()) as image,
    ):
        size, mode, coding = image.size, image.mode, image.format or "unknown"
        # An image of another size is not decoded: a damaged one may claim gigabytes.
        pixels = np.asarray(image) if size == (SIZE, SIZE) else None
        is_plain = mode == "RGB" and not image.info.keys() & {"exif", "transparency"}
        if pixels is not None and not is_plain:
            pixels, done = decode(encoded, (SIZE, SIZE), CHANNELS)
            coding += "".join(f" ({KINDS[kind]})" for kind in sorted(done))
    if pixels is None:
        raise cifar.damaged(
            file,
            f"a {SIZE}x{SIZE} RGB image in row {row}",
            f"{size[0]}x{size[1]} {mode}; a set of your own is read by data: "
            f"{{name: parquet, path: {file.parent}}}",
        )
    return pixels, coding
