"""Reads pictures that a table names, with their labels: `file,label` or `file,label,split`."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from normlab.data.dataset import dataset
from normlab.data.digests import digest_of
from normlab.data.file_facts import FileFacts, facts_of
from normlab.data.labels import MULTI_LABEL, REGRESSION, choose_classes, read_labels
from normlab.data.own_pictures import Listing, OwnPictures, header_of, in_lines, look
from normlab.data.parts import PARTS, part_called
from normlab.data.pictures import READ, SUFFIXES, UnreadableError
from normlab.errors import FieldError, UserError, did_you_mean

FILES = ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "image_id",
         "img", "picture", "id")  # fmt: skip
LABELS = ("label", "labels", "class", "class_name", "target", "category", "species", "y")
SPLITS = ("split", "set", "subset", "part", "partition", "fold", "usage")
"""Usual names of the columns, the likeliest first."""

ABSENT = "the file is not there"


@dataset(
    licence="as the owner of the pictures says",
    citation="none",
    how_to_get="your own pictures, listed in a table: data: {name: csv, path: labels.csv}",
)
@dataclass(frozen=True)
class Csv(OwnPictures):
    """Your own pictures, listed in a table of files and labels.

    The first line names the columns: `file,label` or `file,label,split`, or `filename`, `image`,
    `class`, `target` and the like. Without such a line, the columns are in this order. They are
    separated by commas, semicolons or tabs. Files are relative to the table, and their endings
    may be left out. The split is `train`, `val` or `test`. Without test pictures, a share of each
    class is the test split.

    Attributes:
        path: the table; relative to the config that names it, or to `$NORMLAB_DATA`.
        contents: a digest of the table and the pictures, which normlab fills in; runs of other
            pictures differ.
        size: height and width in pixels, or `[height, width]`. Pictures are resized bilinearly with
            antialiasing. None keeps their size if all have the same one, of at most 128 pixels;
            otherwise it is 64.
        channels: 1 for grey or 3 for colour; None for 1 if all pictures are grey.
        fit: how a picture gets another aspect: `crop` cuts off what is beyond the middle, `pad`
            fills up with black, `stretch` distorts.
        classes: the labels to use, in the order of their numbers; None for all, sorted.
        test_share: the share of each class that is the test split, if the table has none.
        seed: the seed by which they are chosen.
        skip_broken: whether to leave out pictures that are missing or cannot be read, and to count
            them in the report, rather than to stop. If so, pictures are decoded when the config is
            checked.
        file: the column of the files; None for one of the usual names.
        label: the column of the labels; None for one of the usual names, or for columns of 0 and 1
            with a single 1 in each row.
        split: the column of the splits; None for one of the usual names.
        folder: the folder of the pictures, relative to the table; None for the table's own.

    >>> Csv("labels.csv", label="species").fit
    'crop'
    """

    kind: ClassVar[str] = "table of pictures"

    file: str | None = None
    label: str | None = None
    split: str | None = None
    folder: str | None = None

    def listing(self, path: Path) -> Listing:
        """List the pictures that the table names.

        Raises:
            UserError: the table cannot be read or understood, or pictures are missing.
        """
        if path.is_dir():
            raise UserError(f"{path}: this is a folder, and 'csv' reads a table; name the file")
        columns, rows, numbers = _table(path)
        image, label, split = self._columns(path, columns, rows)
        names = [row[image].strip().replace("\\", "/") for row in rows]
        labels, named = _labels(path, columns, rows, numbers, label, {image, split})
        parts = None if split is None else _parts(path, rows, numbers, split)
        _require_one_label(path, names, labels, numbers)
        folder = path.parent / (self.folder or "")
        places = [_found(folder / name) for name in names]
        missing = [n for n, place in enumerate(places) if place is None]
        if missing and (not self.skip_broken or len(missing) == len(names)):
            raise UserError(
                in_lines(
                    f"{path}: {len(missing):,} of the {len(names):,} files are not in {folder}:",
                    [f"line {numbers[n]}: {names[n]}" for n in missing],
                    "Put them there, give 'folder' if they lie elsewhere, or give "
                    "skip_broken: true to go on without them",
                )
            )
        indices, classes = read_labels(f"{path}: column '{named}'", {"all": np.array(labels)})
        every, classes, remarks = choose_classes(str(path), indices["all"], classes, self.classes)
        kept = [n for n in range(len(names)) if every[n] >= 0]
        if parts is not None:  # in a row, so that the parts are views of what is decoded
            kept.sort(key=lambda n: PARTS.index(parts[n]))
        found = {names[n]: place for n in kept if (place := places[n]) is not None}
        facts = facts_of(path, found, look, "picture 1")
        seen = [facts.get(names[n], FileFacts("", ABSENT)) for n in kept]
        described = [
            (names[n], file.digest, labels[n], parts[n] if parts else "")
            for n, file in zip(kept, seen, strict=True)
        ]
        return Listing(
            names=[names[n] for n in kept],
            labels=every[kept].astype(np.int32),
            parts=None if parts is None else [parts[n] for n in kept],
            classes=classes,
            contents=digest_of(described, classes),
            headers=[header_of(file.seen) for file in seen],
            pictures=lambda: (partial(_place, places[n]) for n in kept),
            remarks=tuple(remarks),
        )

    def _columns(
        self, path: Path, columns: list[str], rows: list[list[str]]
    ) -> tuple[int, int | None, int | None]:
        """Choose the columns of files, labels and splits; no label for one-hot columns."""
        lower = [name.strip().lower() for name in columns]

        def column(field: str, usual: tuple[str, ...]) -> int | None:
            given = getattr(self, field)
            if given is not None:
                if given not in columns:
                    hint = did_you_mean(given, columns)
                    raise FieldError(field, f"{path}: there is no column '{given}'; {hint}")
                return columns.index(given)
            return next((lower.index(name) for name in usual if name in lower), None)

        file, label, split = column("file", FILES), column("label", LABELS), column("split", SPLITS)
        if file is None:
            names = ", ".join(columns)
            raise FieldError(
                "file", f"{path}: which column has the files? Give 'file: COLUMN'; found {names}"
            )
        rest = [n for n in range(len(columns)) if n not in (file, split)]
        one_hot = len(rest) > 1 and all(row[n].strip() in ("0", "1", "0.0", "1.0")
                                        for row in rows for n in rest)  # fmt: skip
        if label is None and not one_hot:
            if len(rest) != 1:
                names = ", ".join(columns)
                raise FieldError(
                    "label",
                    f"{path}: which column has the labels? Give 'label: COLUMN'; found {names}",
                )
            label = rest[0]
        return file, label, split


def _table(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Read a table: the names of its columns, its rows, and the lines at which they begin."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: this is not UTF-8 text ({error.reason} at byte {error.start}); save the "
            "table as UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path}: the table is empty; give a line 'file,label' and one a picture")
    separator = max(",;\t", key=lines[0].count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        read = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path}: the table cannot be read: {error}") from error
    columns, rows = [cell.strip() for cell in read[0][1]], read[1:]
    known = {*FILES, *LABELS, *SPLITS}
    if Path(columns[0]).suffix.lower() in SUFFIXES and not known & {c.lower() for c in columns}:
        columns, rows = ["file", "label", "split"][: len(columns)], read  # no line of names
    ragged = [number for number, row in rows if len(row) != len(columns)]
    if ragged:
        raise UserError(
            f"{path}: line {ragged[0]} and {len(ragged) - 1:,} more do not have the {len(columns)} "
            f"columns of the first ({', '.join(columns)})"
        )
    if not rows:
        raise UserError(f"{path}: the table has no rows after its line of names")
    return columns, [row for _, row in rows], [number for number, _ in rows]


def _labels(
    path: Path,
    columns: list[str],
    rows: list[list[str]],
    numbers: list[int],
    label: int | None,
    others: set[int | None],
) -> tuple[list[str] | list[int], str]:
    """Return the label of every row, and the name of its column."""
    if label is None:
        rest = [n for n in range(len(columns)) if n not in others]
        ones = [[columns[n] for n in rest if float(row[n]) == 1] for row in rows]
        wrong = [number for number, names in zip(numbers, ones, strict=True) if len(names) != 1]
        if wrong:
            raise UserError(f"{path}: line {wrong[0]} must have a single 1, or it {MULTI_LABEL}")
        return [names[0] for names in ones], ", ".join(columns[n] for n in rest)
    cells = [row[label].strip() for row in rows]
    empty = [number for number, cell in zip(numbers, cells, strict=True) if not cell]
    if empty:
        raise UserError(
            f"{path}: {len(empty):,} rows have no label, the first in line {empty[0]}; leave "
            "them out"
        )
    several = [(number, cell) for number, cell in zip(numbers, cells, strict=True) if "|" in cell]
    if several:
        number, cell = several[0]
        raise FieldError("label", f"{path}: line {number}, {cell!r}: the table {MULTI_LABEL}")
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return cells, columns[label]
    fractions = [value for value in values if value != round(value)]
    if fractions:
        raise FieldError(
            "label",
            f"{path}: the labels of the column '{columns[label]}' are numbers such as "
            f"{fractions[0]:g}: {REGRESSION}",
        )
    return [int(value) for value in values], columns[label]


def _parts(path: Path, rows: list[list[str]], numbers: list[int], split: int) -> list[str]:
    parts = [part_called(row[split]) for row in rows]
    if None in parts:
        n = parts.index(None)
        raise FieldError(
            "split",
            f"{path}: line {numbers[n]}: the split must be one of {', '.join(PARTS)} (or val, "
            f"valid, ...), found {rows[n][split]!r}",
        )
    return [part for part in parts if part is not None]


def _require_one_label(
    path: Path, names: list[str], labels: list[str] | list[int], numbers: list[int]
) -> None:
    first: dict[str, int] = {}
    for n, name in enumerate(names):
        before = first.setdefault(name, n)
        if before == n:
            continue
        if labels[before] != labels[n]:
            raise UserError(
                f"{path}: {name} has the labels {labels[before]!r} (line {numbers[before]}) and "
                f"{labels[n]!r} (line {numbers[n]}): the table {MULTI_LABEL}"
            )
        raise UserError(
            f"{path}: {name} is listed twice, in lines {numbers[before]} and {numbers[n]}; keep one"
        )


def _found(file: Path) -> Path | None:
    """Return the file, whose ending may be left out as in tables of `image_id`, or None."""
    if file.suffix.lower() in SUFFIXES or file.is_file():
        return file if file.is_file() else None
    return next((place for place in _with_endings(file) if place.is_file()), None)


def _with_endings(file: Path) -> Iterator[Path]:
    for suffix in (".jpg", ".png", ".jpeg", *sorted(READ)):
        yield file.with_name(file.name + suffix)
        yield file.with_name(file.name + suffix.upper())


def _place(file: Path | None) -> Path:
    if file is None:
        raise UnreadableError(ABSENT)
    return file
