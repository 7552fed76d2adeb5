"""CIFAR as the Hugging Face hub publishes it: Parquet tables of encoded images.

A folder holds `train-*.parquet` and `test-*.parquet`, each split in one file or several
(`train-00000-of-00002.parquet`). The column `img` holds `{bytes, path}`, an image file each. Some
copies are PNG and equal the official pixels; others are JPEG and differ from them a little.
"""

import io
import re
from pathlib import Path

import numpy as np

from normlab.data.cifar_sets import CHANNELS, SIZE, CifarSet
from normlab.data.dataset import Split, stratified


def read_parquet(
    folder: Path, cifar: CifarSet, train_examples: int | None, test_examples: int | None
) -> tuple[Split, Split]:
    """The training and the test split, or stratified subsets of them; only those are decoded.

    Args:
        folder: where the tables are.
        cifar: which of the two sets they hold.
        train_examples: how many training examples to keep; None keeps all.
        test_examples: how many test examples to keep; None keeps all.

    Raises:
        UserError: a table is missing, damaged, or not of this set.
    """
    return (
        _split(_shards(folder, cifar, "train"), cifar, train_examples),
        _split(_shards(folder, cifar, "test"), cifar, test_examples),
    )


def _shards(folder: Path, cifar: CifarSet, part: str) -> list[Path]:
    files = sorted(folder.glob(f"{part}-*.parquet"))
    if not files:
        raise cifar.damaged(folder, f"a file {part}-*.parquet", "none")
    total = re.search(r"-of-(\d+)$", files[0].stem)
    if total and len(files) != int(total[1]):
        names = ", ".join(file.name for file in files)
        raise cifar.damaged(folder, f"{int(total[1])} files {part}-*.parquet", names)
    return files


def _split(files: list[Path], cifar: CifarSet, examples: int | None) -> Split:
    shard_labels = [_labels(file, cifar) for file in files]
    labels = np.concatenate(shard_labels)
    chosen = np.arange(len(labels)) if examples is None else stratified(labels, examples)
    images = np.empty((len(chosen), SIZE, SIZE, CHANNELS), np.uint8)
    ends = np.cumsum([len(shard) for shard in shard_labels])
    for file, shard, end in zip(files, shard_labels, ends, strict=True):
        first, last = np.searchsorted(chosen, [end - len(shard), end])
        rows = chosen[first:last] - (end - len(shard))
        for i, (row, encoded) in enumerate(_encoded(file, cifar, rows)):
            images[first + i] = _decode(file, cifar, row, encoded)
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
    import pyarrow

    column = _column(file, cifar, "img")
    if not (pyarrow.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0):
        raise cifar.damaged(file, "a column 'img' of {bytes, path}", f"one of {column.type}")
    for row, image in zip(rows, column.take(rows), strict=True):
        yield row, image["bytes"].as_py()


def _column(file: Path, cifar: CifarSet, name: str):
    """One column of `file`, and no other: a `pyarrow.ChunkedArray`."""
    # Slow to import and needed by this layout alone.
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as table:
            if name not in table.schema_arrow.names:
                found = ", ".join(table.schema_arrow.names)
                raise cifar.damaged(file, f"a column '{name}'", f"the columns {found}")
            return table.read([name]).column(name)
    except (pyarrow.ArrowException, OSError) as error:
        raise cifar.damaged(file, "a whole Parquet file", f"damage ({error})") from error


def _decode(file: Path, cifar: CifarSet, row: int, encoded: bytes | None) -> np.ndarray:
    """The pixels of one image file: `(32, 32, 3)` uint8."""
    from PIL import Image

    if encoded is None:
        raise cifar.damaged(file, f"an image in row {row}", "nothing")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            size, mode, pixels = image.size, image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # what pillow's decoders raise
        raise cifar.damaged(file, f"an image in row {row}", f"damage ({error})") from error
    if size != (SIZE, SIZE) or mode != "RGB":
        raise cifar.damaged(
            file, f"a {SIZE}x{SIZE} RGB image in row {row}", f"{size[0]}x{size[1]} {mode}"
        )
    return pixels
