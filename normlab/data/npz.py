"""Reads a person's own images and labels from an `.npz` file of numpy."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from normlab.data.arrays import held_out, parts_of
from normlab.data.dataset import Dataset, Outline, Split, dataset
from normlab.data.digests import digest_of
from normlab.data.file_facts import facts_of
from normlab.data.labels import read_labels
from normlab.data.own_files import OwnFiles
from normlab.data.parts import PARTS, TEST, TRAIN, VALIDATION, part_called, require_draw
from normlab.data.pictures import Fit, require_fit, resized
from normlab.data.pixels import outline_of
from normlab.data.reading import npz_headers, read_npz, whole
from normlab.errors import FieldError, UserError, require_field

IMAGES = frozenset(["x", "image", "images", "img", "imgs", "data", "pixels", "pictures"])
LABELS = frozenset(["y", "label", "labels", "target", "targets", "class"])
CLASSES = ("classes", "class_names", "label_names", "names", "categories")
"""Usual names of the arrays, which may stand before or after a part: `x_train`, `train_images`."""

Key = tuple[str, Literal["images", "labels"]]
"""The part and the role of an array."""


@dataset(
    licence="as the owner of the file says",
    citation="none",
    how_to_get="your own file of arrays: data: {name: npz, path: FILE.npz}",
)
@dataclass(frozen=True)
class Npz(OwnFiles):
    """Your own images and labels in an `.npz` file.

    The arrays have the names that people use: `x_train`, `y_train`, `x_test`, `y_test`;
    `train_images`, `train_labels`, `val_images`, ...; `x` and `y`; `images` and `labels`; `data`
    and `target`; or `arr_0`, `arr_1`. Without a test split, a share of each class is one. Images
    and labels have any form that `normlab.data.pixels` and `normlab.data.labels` state. An array
    `classes` or `class_names` of strings names the labels.

    Attributes:
        path: the file; relative to the config that names it, or to `$NORMLAB_DATA`.
        contents: a digest of the file, which normlab fills in; runs of other data differ.
        keys: the names of the arrays, if they are not usual ones: `[images, labels]`, in the order
            of training, testing, validation; or `{train_images: A, train_labels: B, ...}`.
        size: height and width to which images are resized, bilinearly with antialiasing; None
            leaves them.
        channels: 1 for grey or 3 for colour; None leaves them.
        fit: how an image gets another aspect: `crop`, `pad` or `stretch`.
        classes: the names of the labels.
        test_share: the share of each class that is the test split, if the file has none.
        seed: the seed by which they are chosen.

    >>> Npz("mine.npz").keys is None
    True
    """

    kind: ClassVar[str] = ".npz file"

    keys: dict[str, str] | tuple[str, ...] | None = None
    size: int | None = None
    channels: Literal[1, 3] | None = None
    fit: Fit = "crop"
    classes: tuple[str, ...] | None = None
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.keys, dict):  # fields must be hashable
            object.__setattr__(self, "keys", tuple(self.keys.items()))
        fits = self.size is None or (isinstance(self.size, int) and 1 <= self.size <= 4096)
        require_field(fits, "size", self.size, "1..4096 or null")
        require_field(self.channels in (1, 3, None), "channels", self.channels, "1, 3 or null")
        require_fit(self.fit)
        require_draw(self.test_share, self.seed)

    def settled(self, root: Path | None = None) -> Self:
        """Fill in `contents`.

        Raises:
            UserError: there is no such file; or `contents` was given and the file has others.
        """
        path = self.found(root)
        if path.is_dir():
            raise UserError(f"{path}: this is a folder, and 'npz' reads a file")
        contents = digest_of([facts_of(path, {path.name: path})[path.name].digest])
        self.require_same(path, contents)
        return replace(self, contents=contents)

    def outline(self, root: Path | None = None) -> Outline:
        """Return the sizes of what `load` returns; only the labels are read."""
        settled = self.settled(root) if self.contents is None or root is not None else self
        return _outline(settled, settled.found(root))

    def load(self, root: Path | None = None) -> Dataset:
        """Load the arrays.

        Args:
            root: the folder in which a relative path is looked for first.

        Raises:
            UserError: the file is damaged, or its arrays cannot be understood.
        """
        path = self.settled(root).found(root)
        keys, classes = self._keys(path)
        with whole(damaged, path, "a whole .npz file"):
            arrays = read_npz(path, keys.values())
        given: dict[str, tuple[Any, Any]] = {
            part: (arrays[keys[part, "images"]], arrays[keys[part, "labels"]])
            for part in PARTS
            if (part, "images") in keys
        }
        parts, names, done = parts_of(
            str(path), given, classes=classes, test_share=self.test_share, seed=self.seed
        )
        splits = {
            part: Split(self._sized(images), labels) for part, (images, labels) in parts.items()
        }
        source = ", ".join([self.kind, *done])
        own = splits.get(VALIDATION)
        return Dataset(path.stem, splits[TRAIN], splits[TEST], names, own, source=source)

    def remarks(self, root: Path | None = None) -> list[str]:
        """Return a sentence on what the file holds, for `normlab check`."""
        described = self.settled(root)
        path = described.found(root)
        (height, width, channels), classes, train, test, own = _outline(described, path)
        keys, _ = self._keys(path)
        validation = f", {own:,} for validation" if own else ""
        return [
            f"{path.name} ({', '.join(keys.values())}): {height}x{width}x{channels}, {classes} "
            f"classes, {train:,} for training{validation}, {test:,} for testing"
        ]

    def _shape(self, path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
        height, width, channels = outline_of(str(path), shape)
        changed = self.size is not None or self.channels not in (None, channels)
        if changed and channels not in (1, 3):
            message = f"images of {channels} channels are neither resized nor recoloured"
            raise FieldError("size", f"{path}: {message}")
        size = (height, width) if self.size is None else (self.size, self.size)
        return *size, self.channels or channels

    def _sized(self, images: np.ndarray) -> np.ndarray:
        *size, channels = self._shape(self.path, images.shape)
        return resized(images, (size[0], size[1]), channels, self.fit)

    def _keys(self, path: Path) -> tuple[dict[Key, str], tuple[str, ...] | None]:
        """Find the arrays of each part, and the names of the classes."""
        with whole(damaged, path, "a whole .npz file"):
            headers = npz_headers(path)
        given: Any = self.keys
        if given and isinstance(given[0], tuple):  # the field was given as a mapping
            given = dict(given)
        keys = _given(path, given, headers) if given else _found(path, headers)
        for name in keys.values():
            if headers[name][1].hasobject:
                raise UserError(
                    f"{path}: '{name}' holds Python's objects, which are not read because they "
                    "could run any program; save it as numbers or text: array.astype(str)"
                )
        named = next((name for name in CLASSES if name in headers), None)
        if self.classes is not None or named is None or headers[named][1].kind not in "SU":
            return keys, self.classes
        with whole(damaged, path, "a whole .npz file"):
            return keys, tuple(read_npz(path, [named])[named].astype(str).ravel().tolist())


@lru_cache(maxsize=64)  # a sweep asks several times for every run; the key has the contents
def _outline(described: Npz, path: Path) -> Outline:
    keys, classes = described._keys(path)
    with whole(damaged, path, "a whole .npz file"):
        headers = npz_headers(path)
        names = [name for (_, role), name in keys.items() if role == "labels"]
        arrays = read_npz(path, names)
    given = {part: arrays[name] for (part, role), name in keys.items() if role == "labels"}
    labels, found = read_labels(str(path), given, classes)
    counts = {part: len(values) for part, values in labels.items()}
    if TEST not in counts:
        taken = held_out(str(path), labels[TRAIN], described.test_share, described.seed)
        counts |= {TRAIN: int((~taken).sum()), TEST: int(taken.sum())}
    shape = described._shape(path, headers[keys[TRAIN, "images"]][0])
    return Outline(shape, len(found), counts[TRAIN], counts[TEST], counts.get(VALIDATION, 0))


def damaged(path: Path, expected: str, found: str) -> UserError:
    """Make the error for a file that numpy has not written in this form."""
    return UserError(
        f"{path}: expected {expected}, found {found}. Copy it again from where it came, or save it "
        "again with numpy.savez"
    )


def _given(path: Path, keys: Any, headers: dict[str, Any]) -> dict[Key, str]:
    """Read the field `keys`: a mapping, or a list in the order of training, testing, validation."""
    if isinstance(keys, dict):
        roles = {_role(name): array for name, array in keys.items()}
        if None in roles:
            wrong = next(name for name in keys if _role(name) is None)
            allowed = "images, labels, train_images, train_labels, test_images, ..."
            raise FieldError("keys", f"keys has the name {wrong!r}; allowed: {allowed}")
    else:
        order = [
            (part, role) for part in (TRAIN, TEST, VALIDATION) for role in ("images", "labels")
        ]
        if len(keys) not in (2, 4, 6):
            raise FieldError("keys", f"keys must be 2, 4 or 6 names, found {len(keys)}")
        roles = dict(zip(order, keys, strict=False))
    if missing := [name for name in roles.values() if name not in headers]:
        raise FieldError(
            "keys", f"{path}: there is no array {', '.join(missing)}; {_holds(headers)}"
        )
    return _complete(path, roles, headers)


def _found(path: Path, headers: dict[str, Any]) -> dict[Key, str]:
    """Recognise the arrays by their names, or by their shapes if numpy named them."""
    roles: dict[Any, str] = {}
    for name in headers:
        if (role := _role(name)) is not None:
            if role in roles:
                raise UserError(
                    f"{path}: '{roles[role]}' and '{name}' may both be the {role[1]} of {role[0]}; "
                    "give 'keys'"
                )
            roles[role] = name
    unnamed = [name for name in headers if re.fullmatch(r"arr_\d+", name)]
    if not roles and len(unnamed) == len(headers):
        pictures = [name for name in unnamed if len(headers[name][0]) >= 3]
        labels = [name for name in unnamed if len(headers[name][0]) < 3]
        for part, image, label in zip((TRAIN, TEST, VALIDATION), pictures, labels, strict=False):
            roles |= {(part, "images"): image, (part, "labels"): label}
    return _complete(path, roles, headers)


def _role(name: str) -> Key | None:
    """Return the part and role that a name means: `x_train`, `val_labels`, `images`.

    >>> _role("X_train"), _role("test_labels"), _role("mean")
    (('train', 'images'), ('test', 'labels'), None)
    """
    apart = re.sub(r"^([xy])(?=train|test|val)", r"\1_", name.lower())
    words = [word for word in re.split(r"[_\W]+", apart) if word]
    parts = [part for word in words if (part := part_called(word))]
    rest = [word for word in words if part_called(word) is None]
    if len(rest) != 1 or len(parts) > 1:
        return None
    part = parts[0] if parts else TRAIN
    if rest[0] in IMAGES:
        return part, "images"
    return (part, "labels") if rest[0] in LABELS else None


def _complete(path: Path, roles: dict[Any, str], headers: dict[str, Any]) -> dict[Key, str]:
    parts = {part for part, _ in roles} | {TRAIN}
    missing = [
        f"{role} of {part}"
        for part in PARTS
        if part in parts
        for role in ("images", "labels")
        if (part, role) not in roles
    ]
    if missing:
        raise UserError(
            f"{path}: which array has the {', the '.join(missing)}? {_holds(headers)}. Give "
            "'keys', such as keys: {train_images: A, train_labels: B}"
        )
    return roles


def _holds(headers: dict[str, Any]) -> str:
    shown = ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in headers.items())
    return f"the file holds {shown or 'no arrays'}"
