"""The parts that all data sets of a person's own pictures share, in folders, lists or tables.

A kind of layout lists its pictures (`Listing`). The rest is common: the size and the channels of
decoded pictures, the identity of their contents, the split, and the decoding.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import numpy as np

from normlab.data.dataset import Dataset, Outline, Split
from normlab.data.own_files import OwnFiles
from normlab.data.parts import (
    PARTS,
    TEST,
    TRAIN,
    VALIDATION,
    require_classes,
    require_draw,
    shared_out,
)
from normlab.data.picture_store import Decoding, Encoded, Stored, decoded, stored
from normlab.data.pictures import (
    KINDS,
    Fit,
    Header,
    UnreadableError,
    read_header,
    require_fit,
    so_many,
)
from normlab.errors import UserError, require_field

USUAL = 64
"""The size of decoded pictures if the files' sizes differ or are large: cheap for a processor."""

LARGEST_AS_IS = 128
"""Pictures that all have one size keep it if neither side is longer."""

MOST_NAMED = 20
"""The number of pictures that an error names."""


@dataclass(frozen=True, eq=False)
class Listing:
    """Encoded pictures, their labels and their parts, before anything is decoded.

    Attributes:
        names: the name of each picture in errors.
        labels: `(N,)` int32.
        parts: the part of each picture; None if a split is to be made.
        classes: the names of the labels.
        contents: the digest of all pictures, names and labels.
        headers: the sizes of each picture, or the reason why it cannot be read; for all pictures
            or for the first ones.
        pictures: a function that returns the encoded pictures, in this order.
        remarks: sentences for people on how the files were read.
    """

    names: Sequence[str]
    labels: np.ndarray
    parts: Sequence[str] | None
    classes: tuple[str, ...]
    contents: str
    headers: Sequence[Header | str]
    pictures: Callable[[], Iterable[Encoded]]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnPictures(OwnFiles):
    """The fields and methods that data sets of a person's own pictures share.

    The fields are described in `Folder`.
    """

    size: int | tuple[int, int] | None = None
    channels: Literal[1, 3] | None = None
    fit: Fit = "crop"
    classes: tuple[str, ...] | None = None
    test_share: float = 0.2
    seed: int = 0
    skip_broken: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        size = 1 if self.size is None else self.size
        sides = size if isinstance(size, tuple) else (size, size)
        fits = len(sides) == 2 and all(
            isinstance(side, int) and 1 <= side <= 4096 for side in sides
        )
        require_field(fits, "size", self.size, "1..4096, [height, width], or null")
        allowed = "1 for grey, 3 for colour, or null"
        require_field(self.channels in (1, 3, None), "channels", self.channels, allowed)
        require_fit(self.fit)
        require_draw(self.test_share, self.seed)
        if self.classes is not None:
            distinct = len(set(self.classes)) == len(self.classes) >= 2
            require_field(distinct, "classes", self.classes, "two or more names, once each")

    def listing(self, path: Path) -> Listing:
        """List the pictures at a place, with the fields of this object as given."""
        raise NotImplementedError

    def settled(self, root: Path | None = None) -> Self:
        """Fill in the fields that the files decide: `size`, `channels` and `contents`.

        Raises:
            UserError: there are no such files, or they cannot be used; or `contents` was given
                and the files have others.
        """
        return self._settled(root)[0]

    def outline(self, root: Path | None = None) -> Outline:
        """Return the sizes of what `load` returns.

        Files are read, but pictures are not decoded, unless `skip_broken` is set.

        Raises:
            UserError: as for `settled`.
        """
        if self.contents is not None and root is None:
            return _outline(self)  # the same contents have the same outline
        return self._outline(root)

    def load(self, root: Path | None = None) -> Dataset:
        """Decode the pictures, or take them from the cache.

        Args:
            root: the folder in which a relative path is looked for first.

        Raises:
            UserError: pictures are broken, and `skip_broken` is not set; or as for `settled`.
        """
        described, listing = self._settled(root)
        store = described._decoded(listing)
        described._refuse_broken(listing, store)
        chosen = described._split(listing, store.broken)
        splits = {
            part: Split(store.images, listing.labels).chosen(index)
            for part, index in chosen.items()
            if len(index)
        }
        return Dataset(
            described.found(root).resolve().stem,
            splits[TRAIN],
            splits[TEST],
            listing.classes,
            splits.get(VALIDATION),
            source=described._source(listing, store),
            test_names=tuple(str(listing.names[index]) for index in chosen[TEST]),
        )

    def prepare(self, root: Path | None = None) -> None:
        """Decode the pictures now, so that `load` finds them in the cache."""
        described, listing = self._settled(root)
        described._refuse_broken(listing, described._decoded(listing))

    def remarks(self, root: Path | None = None) -> list[str]:
        """Return sentences on how the files are read, for `normlab check`."""
        described, listing = self._settled(root)
        _, classes, train, test, validation = described.outline(root)
        own = f", {validation:,} for validation" if validation else ""
        used = train + validation + test
        broken = len(listing.names) - used
        left_out = f" ({broken:,} broken left out)" if broken else ""
        first = (
            f"{so_many(used)} of {classes} classes{left_out}, {train:,} for training{own}, "
            f"{test:,} for testing; {described._sizing(listing)}"
        )
        return [first, *listing.remarks]

    def _settled(self, root: Path | None) -> tuple[Self, Listing]:
        path = self.found(root)
        listing = self.listing(path)
        self.require_same(path, listing.contents)
        readable = [header for header in listing.headers if isinstance(header, Header)]
        if not readable:
            first = listing.names[0] if listing.names else path
            why = listing.headers[0] if listing.headers else "there are none"
            raise UserError(
                f"{path}: none of its {len(listing.names):,} pictures can be read; {first}: {why}"
            )
        sizes = {(header.height, header.width) for header in readable}
        height, width = next(iter(sizes))
        as_is = len(sizes) == 1 and max(height, width) <= LARGEST_AS_IS
        size = self.size or ((height, width) if as_is else USUAL)
        if isinstance(size, tuple) and size[0] == size[1]:
            size = size[0]
        channels = self.channels or (1 if all(header.grey for header in readable) else 3)
        found = replace(self, size=size, channels=channels, contents=listing.contents)
        if len(readable) < len(listing.headers):
            # All are decoded then, so that the error names all broken ones at once.
            found._refuse_broken(listing, found._decoded(listing))
        elif (store := stored(listing.contents, len(listing.names), found._decoding())) is not None:
            found._refuse_broken(listing, store)
        return found, listing

    def _outline(self, root: Path | None) -> Outline:
        described, listing = self._settled(root)
        broken = described._decoded(listing).broken if self.skip_broken else {}
        sizes = {part: len(index) for part, index in described._split(listing, broken).items()}
        decoding = described._decoding()
        shape = (*decoding.size, decoding.channels)
        return Outline(
            shape, len(listing.classes), sizes[TRAIN], sizes[TEST], sizes.get(VALIDATION, 0)
        )

    def _decoding(self) -> Decoding:
        assert self.size is not None and self.channels is not None  # the object is settled
        size = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        return Decoding(size, self.channels, self.fit)

    def _decoded(self, listing: Listing) -> Stored:
        count = len(listing.names)
        name = self.path.name or "pictures"
        return decoded(name, listing.contents, count, listing.pictures, self._decoding())

    def _refuse_broken(self, listing: Listing, store: Stored) -> None:
        if self.skip_broken or not store.broken:
            return
        count, total = len(store.broken), len(listing.names)
        raise UserError(
            in_lines(
                f"{self.path}: {so_many(count)} of {total:,} cannot be read:",
                [f"{listing.names[n]}: {why}" for n, why in store.broken.items()],
                "Mend or replace them, or give skip_broken: true to go on without them "
                "(they are then counted in the report)",
            )
        )

    def _split(self, listing: Listing, broken: Iterable[int]) -> dict[str, np.ndarray]:
        """Choose the pictures of every part: sorted indices."""
        whole = np.ones(len(listing.names), bool)
        whole[list(broken)] = False
        given = np.array(listing.parts if listing.parts is not None else [TRAIN] * len(whole))
        chosen = {part: np.flatnonzero(whole & (given == part)) for part in PARTS}
        if not len(chosen[TEST]):
            index = chosen[TRAIN]
            taken = shared_out(listing.labels[index], self.test_share, self.seed)
            chosen |= {TRAIN: index[~taken], TEST: index[taken]}
        labels = {part: listing.labels[index] for part, index in chosen.items()}
        require_classes(str(self.path), listing.classes, labels)
        if not len(chosen[TEST]):
            raise UserError(
                f"{self.path}: no class has two pictures, so none can be held out for testing"
            )
        return chosen

    def _sizing(self, listing: Listing) -> str:
        decoding = self._decoding()
        height, width = decoding.size
        words = {"crop": "cropped and resized", "pad": "padded and resized", "stretch": "stretched"}
        sizes = {h[:2] for h in listing.headers if isinstance(h, Header)}
        how = f"{words[self.fit]} to " if sizes != {decoding.size} else ""
        colour = "grey" if decoding.channels == 1 else "RGB"
        return f"{how}{height}x{width} {colour}"

    def _source(self, listing: Listing, store: Stored) -> str:
        parts = [f"{self.kind}, {self._sizing(listing)}"]
        parts += [f"{store.counts[kind]:,} {KINDS[kind]}" for kind in KINDS if kind in store.counts]
        if listing.parts is None or TEST not in set(listing.parts):
            parts.append(f"{self.test_share:.0%} of each class for testing by seed {self.seed}")
        if store.broken:
            parts.append(f"{len(store.broken):,} broken left out")
        return ", ".join(parts)


def in_lines(first: str, faults: Sequence[str], last: str) -> str:
    """Write an error with a line for each fault, up to `MOST_NAMED`, and a count of the rest.

    >>> print(in_lines("broken:", ["a.png", "b.png"], "Mend them"))
    broken:
      a.png
      b.png
    Mend them
    """
    more = len(faults) - MOST_NAMED
    rest = [f"and {more:,} more"] if more > 0 else []
    return "\n".join([first, *(f"  {line}" for line in [*faults[:MOST_NAMED], *rest]), last])


@lru_cache(maxsize=64)  # a sweep asks several times for every run
def _outline(described: OwnPictures) -> Outline:
    return described._outline(None)


def look(file: Path) -> list[int] | str:
    """Return a picture's header, or the reason why it has none, as JSON can hold it."""
    try:
        return list(map(int, read_header(file)))
    except UnreadableError as error:
        return str(error)


def header_of(seen: list[int] | str) -> Header | str:
    """Return the header or the reason from the result of `look`."""
    return seen if isinstance(seen, str) else Header(seen[0], seen[1], bool(seen[2]))
