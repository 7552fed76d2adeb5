"""Lists the datasets on this machine, for `normlab data list`."""

from dataclasses import dataclass
from pathlib import Path

from normlab.catalogue import DATA
from normlab.data.own_files import OwnFiles


@dataclass(frozen=True)
class DatasetStatus:
    """The state of one dataset of the catalogue on this machine.

    Attributes:
        name: the dataset's name in a config.
        present: whether it can be loaded now.
        path: the file or folder that would be read; None if it is absent or the set needs none.
        size_bytes: size of `path` on disk; 0 without a path.
        how_to_get: how to put the set on this machine.
        yours: whether it reads a person's own files, which a config names; it is never present.
    """

    name: str
    present: bool
    path: Path | None
    size_bytes: int
    how_to_get: str
    yours: bool = False


def status(root: Path | None = None) -> list[DatasetStatus]:
    """Return the state of every dataset of the catalogue, sorted by name.

    Args:
        root: the folder to look in; `data_root()` by default.

    >>> [entry.name for entry in status() if entry.present and entry.path is None]
    ['shapes']
    """
    return [_status(name, root) for name in DATA.entries()]


def _status(name: str, root: Path | None) -> DatasetStatus:
    cls = DATA.load(name)
    how_to_get = cls.facts.how_to_get
    if issubclass(cls, OwnFiles):
        return DatasetStatus(name, False, None, 0, how_to_get, yours=True)
    # A dataset that computes its images needs no file, so it has no `locate`.
    needs_files = hasattr(cls, "locate")
    path = cls().locate(root) if needs_files else None
    present = path is not None or not needs_files
    return DatasetStatus(name, present, path, _size(path), how_to_get)


def _size(path: Path | None) -> int:
    if path is None:
        return 0
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
