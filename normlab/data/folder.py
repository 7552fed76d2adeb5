"""Reads a folder of a person's own pictures, with one folder for each class."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from normlab.data.dataset import dataset
from normlab.data.digests import digest_of
from normlab.data.file_facts import facts_of
from normlab.data.own_pictures import Listing, OwnPictures, header_of, look
from normlab.data.parts import TEST, TRAIN, part_called
from normlab.data.pictures import SUFFIXES, so_many
from normlab.errors import UserError, first_few

CLUTTER = frozenset(["thumbs.db", "desktop.ini", "__macosx"])
"""Files that systems leave in folders, besides those whose names begin with a dot."""

TABLES = (".npz", ".parquet", ".csv")


@dataset(
    licence="as the owner of the pictures says",
    citation="none",
    how_to_get="your own pictures, a folder for each class: data: {name: folder, path: FOLDER}",
)
@dataclass(frozen=True)
class Folder(OwnPictures):
    """A folder of your own pictures, with one folder for each class.

    The folders of the classes lie in `path`, or in `path/train`, `path/val` and `path/test` (also
    `training`, `valid`, `validation`, `testing`). Without a test folder, a share of each class is
    the test split. Folders within a class belong to it. Hidden files, `Thumbs.db` and the like are
    ignored. `normlab.data.pictures` says how each kind of picture is converted.

    Attributes:
        path: the folder; relative to the config that names it, or to `$NORMLAB_DATA`.
        contents: a digest of the files, which normlab fills in; runs of other pictures differ.
        size: height and width in pixels, or `[height, width]`. Pictures are resized bilinearly with
            antialiasing. None keeps their size if all have the same one, of at most 128 pixels;
            otherwise it is 64.
        channels: 1 for grey or 3 for colour; None for 1 if all pictures are grey.
        fit: how a picture gets another aspect: `crop` cuts off what is beyond the middle, `pad`
            fills up with black, `stretch` distorts.
        classes: the names of the folders to use, in the order of their labels; None for all,
            sorted.
        test_share: the share of each class that is the test split, if there is no test folder.
        seed: the seed by which they are chosen.
        skip_broken: whether to leave out pictures that cannot be read, and to count them in the
            report, rather than to stop. If so, pictures are decoded when the config is checked.

    >>> Folder("pets", size=32).fit
    'crop'
    """

    kind: ClassVar[str] = "folder of pictures"

    def listing(self, path: Path) -> Listing:
        """List the pictures below a folder.

        Raises:
            UserError: there are no classes, or a class has no pictures.
        """
        if not path.is_dir():
            raise UserError(_no_folder(path))
        try:
            return self._listing(path)
        except OSError as error:
            raise UserError(
                f"{error.filename or path}: cannot be read ({error.strerror or error})"
            ) from error

    def _listing(self, path: Path) -> Listing:
        places = _parts(path)
        wanted = None if self.classes is None else tuple(map(_normal, self.classes))
        found: dict[str, tuple[str, str, Path]] = {}  # name -> part, class, file
        ignored: list[str] = []
        counts: dict[str, int] = {}
        for part, folder in places:
            for name, class_folder in _classes(folder):
                if wanted is not None and name not in wanted:
                    continue
                counts.setdefault(name, 0)
                for file in _pictures(class_folder, ignored, path):
                    found[_name(file, path)] = part, name, file
                    counts[name] += 1
            if part:
                ignored += [_name(file, path) for file in _files(folder)]
        if not counts:
            raise UserError(_no_classes(path))
        if empty := [name for name, count in counts.items() if not count]:
            raise UserError(
                f"{path}: the folder of the class {' and that of '.join(empty)} has no pictures. "
                "Put some there, or give 'classes' as a list of the folders to use" + _also(ignored)
            )
        names = sorted(found)
        order = tuple(sorted({found[name][1] for name in names}))
        if wanted is not None:
            missing = [name for name in wanted if name not in order]
            if missing:
                raise UserError(
                    f"{path}: there is no folder of the class {', '.join(missing)}; found "
                    f"{', '.join(sorted({n for _, f in places for n, _ in _classes(f)}))}"
                )
            order = wanted
        if len(order) == 1:
            raise UserError(_one_class(path, order[0]))
        facts = facts_of(path, {name: found[name][2] for name in names}, look, "picture 1")
        labels = [order.index(found[name][1]) for name in names]
        parts = [found[name][0] for name in names] if places[0][0] else None
        rows = [(name, facts[name].digest, found[name][1]) for name in names]
        return Listing(
            names=names,
            labels=np.array(labels, np.int32),
            parts=parts,
            classes=order,
            contents=digest_of(rows, order),
            headers=[header_of(facts[name].seen) for name in names],
            pictures=lambda: (partial(Path, found[name][2]) for name in names),
            remarks=_remarks(rows, parts, ignored),
        )


def _parts(path: Path) -> list[tuple[str, Path]]:
    """Find the folders of the parts, or the whole folder as a part without a name."""
    folders = [(part_called(folder.name), folder) for folder in _folders(path)]
    named = [(part, folder) for part, folder in folders if part is not None]
    if not any(part == TRAIN for part, _ in named):
        return [("", path)]
    for part in {part for part, _ in named}:
        same = [folder.name for other, folder in named if other == part]
        if len(same) > 1:
            raise UserError(
                f"{path}: {' and '.join(same)} are both {part} folders; give them one name"
            )
    return named


def _folders(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not _is_clutter(entry)]


def _files(path: Path) -> list[Path]:
    return [e for e in sorted(path.iterdir()) if not e.is_dir() and not _is_clutter(e)]


def _classes(folder: Path) -> list[tuple[str, Path]]:
    return [(_normal(entry.name), entry) for entry in _folders(folder)]


def _is_clutter(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in CLUTTER


def _pictures(folder: Path, ignored: list[str], top: Path) -> Iterator[Path]:
    """Yield the pictures at any depth, and note what else lies there."""
    seen = set()
    for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        here = Path(place)
        real = here.resolve()
        if real in seen:  # a link that leads round in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_clutter(Path(name)))
        for name in sorted(files):
            file = here / name
            if _is_clutter(file):
                continue
            if file.suffix.lower() in SUFFIXES:
                yield file
            else:
                ignored.append(_name(file, top))


def _raise(error: OSError) -> None:
    raise error


def _name(file: Path, top: Path) -> str:
    return _normal(file.relative_to(top).as_posix())


def _normal(name: str) -> str:
    """Return a name as every system writes it: macOS takes letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def _remarks(
    rows: list[tuple[str, str, str]], parts: list[str] | None, ignored: list[str]
) -> tuple[str, ...]:
    remarks = []
    if ignored:
        remarks.append(f"ignored as no pictures: {first_few(ignored)}")
    by_digest: dict[str, set[str]] = {}
    for number, (_, digest, _) in enumerate(rows):
        by_digest.setdefault(digest, set()).add(parts[number] if parts else "")
    copies = len(rows) - len(by_digest)
    shared = sum(len(found) > 1 for found in by_digest.values())
    if shared:
        remarks.append(f"in more than one part: {so_many(shared)}; the test is not independent")
    elif copies:
        remarks.append(f"copies of others: {so_many(copies)}; a split may part a pair")
    return tuple(remarks)


def _also(ignored: list[str]) -> str:
    return f". Files such as {ignored[0]} are no pictures by their names" if ignored else ""


def _no_folder(path: Path) -> str:
    known = path.suffix.lower()
    hint = f"; data: {{name: {known[1:]}, path: ...}} reads it" if known in TABLES else ""
    return f"{path}: this is a file, and 'folder' reads folders with a folder for each class{hint}"


def _no_classes(path: Path) -> str:
    files = _files(path)
    tables = [file for file in files if file.suffix.lower() in TABLES]
    if tables:
        return (
            f"{path}: there are no folders of classes in it. For {tables[0].name}, give data: "
            f"{{name: {tables[0].suffix[1:].lower()}, path: {tables[0]}}}"
        )
    pictures = sum(file.suffix.lower() in SUFFIXES for file in files)
    loose = f"; {so_many(pictures)} directly in it" if pictures else ""
    return (
        f"{path}: there are no folders of classes in it{loose}. Put the pictures of each class "
        f"into a folder of its name, such as {path.name}/cat/1.jpg; or list them in a table: "
        "data: {name: csv, path: labels.csv}"
    )


def _one_class(path: Path, name: str) -> str:
    inner = _folders(path / name) if (path / name).is_dir() else []
    hint = f". Did you mean path: {path / name}?" if len(inner) > 1 else ""
    named = f"; its folder has no {TRAIN}/ beside it" if part_called(name) == TEST else ""
    return (
        f"{path}: a classifier needs two or more classes, found the folder {name!r} alone"
        f"{named}{hint}"
    )
