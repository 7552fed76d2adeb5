"""Finds a person's own files, and identifies them by their contents."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from normlab.errors import FieldError, UserError
from normlab.places import data_root


@dataclass(frozen=True)
class OwnFiles:
    """The fields that all data sets of a person's own files share.

    Attributes:
        path: the file or folder.
        contents: a digest of the files' contents, which a resolved config holds.
    """

    kind: ClassVar[str]
    """A word on the layout, for reports."""

    path: Path
    contents: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | Path) or not str(self.path):
            raise FieldError("path", f"path must be a file or a folder, got {self.path!r}")
        object.__setattr__(self, "path", Path(self.path).expanduser())
        for field in fields(self):  # they must be hashable, and people give lists
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))

    def locate(self, root: Path | None = None) -> Path | None:
        """Return the file or folder that `load` would read, or None.

        A relative path is looked for in `root` if that is given, in the current folder, and then
        in `data_root()`.
        """
        roots = [Path(root)] if root is not None else []
        places = [*(folder / self.path for folder in roots), self.path, data_root() / self.path]
        return next((place for place in places if place.exists()), None)

    def found(self, root: Path | None = None) -> Path:
        """Return the file or folder that `locate` finds.

        Raises:
            FieldError: there is no such file or folder.
        """
        place = self.locate(root)
        if place is None:
            beside = "" if self.path.is_absolute() else f", nor in {data_root()} ($NORMLAB_DATA)"
            near = ""
            if self.path.parent.is_dir():
                names = sorted(p.name for p in self.path.parent.iterdir() if p.name[0] != ".")
                near = f"; {self.path.parent} holds {', '.join(names[:10]) or 'nothing'}"
            message = f"there is no file or folder {self.path}{beside}{near}"
            raise FieldError("path", message)
        return place

    def require_same(self, path: Path, contents: str) -> None:
        """Raise `UserError` if the files do not have the contents that were given."""
        if self.contents is not None and self.contents != contents:
            raise UserError(
                f"{path}: these files are not those that the run was planned with (contents "
                f"{contents}, not {self.contents}). Restore them; or leave out 'contents' and "
                "give the command again, which makes runs of the new files"
            )
