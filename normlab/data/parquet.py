"""Reads image data sets in Parquet tables, as on the Hugging Face hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from normlab.data.dataset import dataset
from normlab.data.digests import digest_of
from normlab.data.file_facts import facts_of, quietly
from normlab.data.labels import MULTI_LABEL, choose_classes, read_labels
from normlab.data.own_pictures import Listing, OwnPictures
from normlab.data.parquet_tables import class_names, damaged, features, find_tables, opened
from normlab.data.parts import PARTS
from normlab.data.picture_store import Encoded
from normlab.data.pictures import Header, UnreadableError, read_header
from normlab.data.reading import whole
from normlab.errors import FieldError, UserError

IMAGES = ("image", "img", "images", "picture", "pixel_values")
LABELS = ("label", "fine_label", "labels", "class", "target", "category", "coarse_label")
"""Usual names of the columns, the likeliest first."""

LOOKED_AT = 100
"""The number of pictures whose sizes decide what size and channels the set gets."""

BATCH = 256
"""Rows that are read at a time."""


@dataset(
    licence="as the publisher of the set says",
    citation="as the publisher of the set says",
    how_to_get="your own tables, as on the hub: data: {name: parquet, path: FOLDER}",
)
@dataclass(frozen=True)
class Parquet(OwnPictures):
    """An image data set in Parquet tables, in the layout of the Hugging Face hub.

    `path` is a table or the folder of a set as it is downloaded, with tables such as
    `train-00000-of-00002-0a1b2c.parquet`, `data/test-00000-of-00001.parquet` or
    `plain_text/train/0000.parquet`. Missing and copied tables are refused. Without a test table, a
    share of each class is the test split. The names of the classes are those of the metadata.

    Attributes:
        path: the folder or table; relative to the config that names it, or to `$NORMLAB_DATA`.
        contents: a digest of the tables, which normlab fills in; runs of other data differ.
        size: height and width in pixels, or `[height, width]`. Pictures are resized bilinearly with
            antialiasing. None keeps their size if the first hundred have the same one, of at most
            128 pixels; otherwise it is 64.
        channels: 1 for grey or 3 for colour; None for 1 if the first hundred pictures are grey.
        fit: how a picture gets another aspect: `crop` cuts off what is beyond the middle, `pad`
            fills up with black, `stretch` distorts.
        classes: the classes to use, in the order of their labels; None for all. Names for the
            labels 0, 1, ... if the tables have none.
        test_share: the share of each class that is the test split, if there is no test table.
        seed: the seed by which they are chosen.
        skip_broken: whether to leave out pictures that cannot be read, and to count them in the
            report, rather than to stop. If so, pictures are decoded when the config is checked.
        image: the column of the pictures; None for `image`, `img` or the only one of pictures.
        label: the column of the labels; None for `label`, `fine_label` or the only one of classes.

    >>> Parquet("tiny-imagenet").label is None
    True
    """

    kind: ClassVar[str] = "Parquet tables"

    image: str | None = None
    label: str | None = None

    def listing(self, path: Path) -> Listing:
        """List the pictures of the tables.

        Raises:
            UserError: tables are missing or damaged, or their columns cannot be understood.
        """
        parts, others = find_tables(path)
        tables = [(part, file) for part in (*PARTS, "") for file in parts.get(part, [])]
        top = path if path.is_dir() else path.parent
        names = [file.relative_to(top).as_posix() for _, file in tables]
        facts = facts_of(path, {name: file for name, (_, file) in zip(names, tables, strict=True)})
        digests = tuple(facts[name].digest for name in names)
        if len(set(digests)) < len(digests):
            same = [name for name in names if digests.count(facts[name].digest) > 1]
            raise UserError(
                f"{path}: {' and '.join(same)} have the same contents; keep one of them"
            )
        files = tuple(file for _, file in tables)
        image, label, named = _columns(files, self.image, self.label)
        found, remarks = _read(path, tuple(tables), digests, label, named)
        remarks += [f"{file.name} is of no split and left out" for file in others]
        labels = {part: values for part, values in found.items() if len(values)}
        indices, classes = read_labels(f"{path}: column '{label}'", labels, named)
        every = np.concatenate([indices[part] for part in labels])
        every, classes, more = choose_classes(str(path), every, classes, self.classes)
        part_of = [part for part in labels for _ in range(len(labels[part]))]
        kept = np.flatnonzero(every >= 0)
        places = [
            (number, row)
            for number, (part, file) in enumerate(tables)
            if part in labels
            for row in range(_rows(file))
        ]
        chosen = [places[n] for n in kept]
        return Listing(
            names=[f"{names[number]}, row {row}" for number, row in chosen],
            labels=every[kept].astype(np.int32),
            parts=None if "" in labels else [part_of[n] for n in kept],
            classes=classes,
            contents=digest_of(zip(names, digests, strict=True), (image, label), classes),
            headers=_headers(files[0], digests[0], image),
            pictures=partial(_pictures, files, image, chosen),
            remarks=(*remarks, *more),
        )


def _columns(
    files: tuple[Path, ...], image: str | None, label: str | None
) -> tuple[str, str, tuple[str, ...] | None]:
    """Choose the columns, and find the names of the classes."""
    with opened(files[0]) as table:
        schema = table.schema_arrow
    described = features(schema)
    types = {field.name: field.type for field in schema}
    pictures = [name for name in types if _is_picture(types[name])]
    image = _chosen(files[0], "image", image, IMAGES, pictures, types)
    others = [name for name in types if class_names(described.get(name)) is not None]
    label = _chosen(files[0], "label", label, LABELS, others, types)
    for file in files:
        with opened(file) as table:
            held = table.schema_arrow.names
        if missing := [name for name in (image, label) if held.count(name) != 1]:
            raise UserError(
                f"{file}: there must be one column '{missing[0]}', as in {files[0].name}; found "
                f"{', '.join(held)}"
            )
    if not _is_picture(types[image]):
        raise FieldError(
            "image",
            f"{files[0]}: the column '{image}' of {types[image]} holds no encoded pictures, which "
            "are bytes or {bytes, path}",
        )
    return image, label, class_names(described.get(label))


def _chosen(
    file: Path,
    field: str,
    given: str | None,
    usual: tuple[str, ...],
    candidates: list[str],
    types: dict[str, Any],
) -> str:
    held = ", ".join(f"{name} ({kind})" for name, kind in types.items())
    if given is not None:
        if given not in types:
            raise FieldError(field, f"{file}: there is no column '{given}'; found {held}")
        return given
    by_name = [name for name in usual if name in types]
    if field == "image":
        by_name = [name for name in by_name if name in candidates] or by_name
    if by_name:
        return by_name[0]
    if len(candidates) == 1:
        return candidates[0]
    raise FieldError(
        field, f"{file}: which column has the {field}s? Give '{field}: COLUMN'; found {held}"
    )


def _is_picture(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def _rows(file: Path) -> int:
    with opened(file) as table:
        return table.metadata.num_rows


@lru_cache(maxsize=16)  # a sweep asks several times for every run; the digests are in the key
def _read(
    path: Path,
    tables: tuple[tuple[str, Path], ...],
    digests: tuple[str, ...],
    label: str,
    named: tuple[str, ...] | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the labels of every part, without the parts that have none."""
    found: dict[str, list[np.ndarray]] = {}
    for part, file in tables:
        found.setdefault(part, []).append(_labels(file, label))
    remarks, labels = [], {}
    for part, arrays in found.items():
        values = np.concatenate(arrays) if arrays else np.zeros(0)
        if part not in ("", "train") and values.dtype.kind in "iuf" and (values == -1).all():
            remarks.append(f"the {part} tables have no labels (-1) and are left out")
            continue
        if values.dtype.kind in "iuf" and named is not None and (values == -1).any():
            raise UserError(
                f"{path}: {int((values == -1).sum()):,} rows of {part or 'the tables'} have no "
                "label (-1); leave these rows out"
            )
        labels[part] = values
    return labels, remarks


def _labels(file: Path, label: str) -> np.ndarray:
    from pyarrow import types

    with opened(file) as table:
        column = table.read([label]).column(label)
    if len(column) == 0:
        raise damaged(file, "at least one row", "none")
    if column.null_count:
        raise UserError(f"{file}: {column.null_count:,} rows have no '{label}'; leave them out")
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if types.is_nested(kind):
        raise FieldError("label", f"{file}: the column '{label}' of {kind} {MULTI_LABEL}")
    with whole(damaged, file, f"labels in the column '{label}'"):
        if types.is_string(kind) or types.is_large_string(kind):
            return np.array(column.to_pylist(), str)
        return column.to_numpy()


@lru_cache(maxsize=16)
def _headers(file: Path, digest: str, image: str) -> list[Header | str]:
    found: list[Header | str] = []
    with quietly():
        for encoded in _encoded(file, image):
            try:
                found.append(read_header(_bytes(encoded)))
            except UnreadableError as error:
                found.append(str(error))
            if len(found) == LOOKED_AT:
                break
    return found


def _pictures(
    files: tuple[Path, ...], image: str, chosen: list[tuple[int, int]]
) -> Iterator[Encoded]:
    """Yield the chosen rows, which are in order."""
    wanted = iter(chosen)
    place = next(wanted, None)
    for number, file in enumerate(files):
        if place is None or place[0] != number:
            continue
        for row, encoded in enumerate(_encoded(file, image)):
            if place == (number, row):
                yield partial(_bytes, encoded)
                place = next(wanted, None)


def _encoded(file: Path, image: str) -> Iterator[Any]:
    """Yield the value of every row of a table in the column of the pictures."""
    import pyarrow

    with opened(file) as table:
        for batch in table.iter_batches(BATCH, columns=[image]):
            column = batch.column(0)
            if pyarrow.types.is_struct(column.type):
                column = column.flatten()[column.type.get_field_index("bytes")]
            yield from column.to_pylist()


def _bytes(encoded: Any) -> bytes:
    if not isinstance(encoded, bytes):
        kind = "nothing" if encoded is None else type(encoded).__name__
        raise UnreadableError(f"the table has {kind} in place of the picture's bytes")
    return encoded
