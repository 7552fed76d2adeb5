"""Reads the Free Spoken Digit Dataset: six people say the ten digits, fifty times each.

The recordings are 16-bit WAV files of one channel at 8 kHz, `{digit}_{speaker}_{index}.wav`. They
are looked for in `<root>/spoken_digits/`, in `<root>/fsdd/` and in `<root>/`, where the root is
`$NORMLAB_DATA` or the user's cache folder. They may be a folder `recordings`, a file
`recordings.zip`, or the repository's own archive, packed or unpacked.
"""

import io
import re
import wave
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from normlab.catalogue import later
from normlab.data.dataset import Dataset, Outline, Split, data_root, dataset
from normlab.data.log_mel import at_level, grey, log_mel, standardised
from normlab.data.reading import require_possible, whole
from normlab.errors import UserError, require_field, require_whole

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
LEVELS = ("standardised", "raw")
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE = 8000
QUIETEST, LOUDEST = -95.0, -15.0
"""The levels that are black and white in a raw picture, in decibels relative to a sine of full
scale. Less than one pixel in a thousand of all recordings is brighter. `QUIETEST` is the floor of
every picture."""

SPEECH_LEVEL = -26.0
"""The level of the sound of a standardised picture: a root mean square in decibels relative to full
scale, the nominal level of speech in ITU-T P.830."""

DARKEST, BRIGHTEST = -2.0, 3.5
"""The values that are black and white in a standardised picture, in standard deviations from the
mean. Less than one pixel in a thousand lies outside."""

PUBLISHED_TEST = 5
"""Recordings 0 to 4 of each digit and speaker are the published test split."""

ARCHIVE = "free-spoken-digit-dataset-master"
URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/master.zip"
Key = tuple[str, int, int]
"""A recording: its speaker, digit and index."""

MOST_BYTES = 2_000_000
"""The greatest size of a recording: two minutes; the longest published one has two seconds."""

NAME = re.compile(r"(?:.*/)?([0-9])_([a-z]+)_([0-9]+)\.wav")


@dataset(
    licence="CC BY-SA 4.0",
    citation="Jackson et al. 2018, Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401",
    how_to_get=f"download {URL} into that folder; no checksum is published",
)
@dataclass(frozen=True)
class SpokenDigits:
    """Digits spoken by six voices, as log-mel images; the test voices are not heard in training.

    An image is grey, `mels` high and `frames` wide (see `normlab.data.log_mel`). Every voice has
    500 recordings. All speakers are men; four have an accent.

    The recording levels of the voices differ by up to 21 dB; `theo` and `yweweler` are the
    quietest. A standardised picture hides this. The sound is scaled to one RMS level (-26 dB
    relative to full scale), which removes the gain exactly even though the picture has a floor.
    Then the log-mel picture is scaled to one mean and standard deviation (per-utterance mean and
    variance normalisation, Viikki and Laurila 1998), which removes differences of background noise
    and pauses.

    Attributes:
        test_speakers: the speakers of the test split, from `george`, `jackson`, `lucas`, `nicolas`,
            `theo` and `yweweler`. An empty list ([]) chooses the published test split, which has
            the voices of the training split: recordings 0 to 4 of each digit and speaker.
        validation_speakers: the speakers of the dataset's own validation split
            (`data.validation: own`).
        test_speed: factor by which the test recordings are played faster, at the same pitch.
        test_pitch: number of semitones by which they are raised, at the same speed.
        mels: the image's height: mel bands from 60 Hz to 4 kHz, 8..40.
        frames: the image's width: spectra of 32 ms, 8..128.
        seconds: the duration of an image. A recording stands in its middle; a longer one is cut.
        level: `standardised`, or `raw` for pictures on one common scale of decibels, whose mean and
            deviation differ between voices.

    >>> SpokenDigits(test_speakers=("lucas",)).outline().test_examples
    500
    """

    per_digit: ClassVar[int] = 50

    test_speakers: tuple[str, ...] = ("theo", "yweweler")
    validation_speakers: tuple[str, ...] = ()
    test_speed: float = 1.0
    test_pitch: float = 0.0
    mels: int = 32
    frames: int = 32
    seconds: float = 0.8
    level: Literal["standardised", "raw"] = later("standardised", before="raw")

    def __post_init__(self) -> None:
        require_field(self.level in LEVELS, "level", self.level, f"one of {', '.join(LEVELS)}")
        taken: set[str] = set()
        for field in ("test_speakers", "validation_speakers"):
            speakers = getattr(self, field)
            known = set(speakers) <= set(SPEAKERS) - taken and len(set(speakers)) == len(speakers)
            names = ", ".join(sorted(set(SPEAKERS) - taken))
            require_field(known, field, list(speakers), f"a list of speakers, once each: {names}")
            taken |= set(speakers)
            left = len(taken) < len(SPEAKERS)
            require_field(left, field, list(speakers), "such that a speaker is left to train on")
        require_field(0.25 <= self.test_speed <= 4, "test_speed", self.test_speed, "in 0.25..4")
        require_field(-24 <= self.test_pitch <= 24, "test_pitch", self.test_pitch, "in -24..24")
        require_whole("mels", self.mels, 8, 40)
        require_whole("frames", self.frames, 8, 128)
        require_field(0.1 <= self.seconds <= 3, "seconds", self.seconds, "in 0.1..3")

    def outline(self) -> Outline:
        """Return the sizes of what `load` returns."""
        voice = self.per_digit * len(CLASSES)
        own = voice * len(self.validation_speakers)
        if self.test_speakers:
            test = voice * len(self.test_speakers)
            train = voice * len(SPEAKERS) - test - own
        else:
            heard = len(SPEAKERS) - len(self.validation_speakers)
            test = PUBLISHED_TEST * len(CLASSES) * heard
            train = voice * heard - test
        return Outline((self.mels, self.frames, 1), len(CLASSES), train, test, own)

    def load(self, root: Path | None = None) -> Dataset:
        """Load the recordings as images, in the order of speaker, digit and index.

        Args:
            root: the folder to look in; `data_root()` by default.

        Raises:
            UserError: the recordings are missing, incomplete or damaged; the message says which.
        """
        path = self.locate(root)
        if path is None:
            raise UserError(self._missing(root))
        parts: dict[str, list[tuple[np.ndarray, int]]] = {"train": [], "own": [], "test": []}
        for (speaker, digit, index), contents in self._recordings(path):
            part = self._part(speaker, index)
            name = f"{digit}_{speaker}_{index}.wav"
            parts[part].append((self._image(path, name, contents, part == "test"), digit))
        train, own, test = map(_split, parts.values())
        assert train is not None and test is not None  # the fields leave speakers for both
        source = f"{path.name}, {self.level} level"
        return Dataset("spoken_digits", train, test, CLASSES, validation=own, source=source)

    def locate(self, root: Path | None = None) -> Path | None:
        """Return the folder or archive of recordings that `load` would read, or None."""
        for folder in self._folders(root):
            for place in (folder / "recordings", folder / ARCHIVE / "recordings"):
                if next(place.glob("*.wav"), None) is not None:
                    return place
            for archive in (folder / "recordings.zip", folder / f"{ARCHIVE}.zip"):
                if archive.is_file():
                    return archive
        return None

    def _folders(self, root: Path | None) -> tuple[Path, ...]:
        root = data_root() if root is None else Path(root)
        return root / "spoken_digits", root / "fsdd", root

    def _missing(self, root: Path | None) -> str:
        folders = self._folders(root)
        return (
            f"spoken_digits is not on this machine: there is no folder 'recordings' and no "
            f"recordings.zip or {ARCHIVE}.zip in {', '.join(map(str, folders))}. Either download "
            f"{URL} into {folders[0]}; or set NORMLAB_DATA to the folder that holds it"
        )

    def _part(self, speaker: str, index: int) -> str:
        if speaker in self.validation_speakers:
            return "own"
        held_out = index < PUBLISHED_TEST if not self.test_speakers else False
        return "test" if held_out or speaker in self.test_speakers else "train"

    def _recordings(self, path: Path) -> Iterator[tuple[Key, bytes]]:
        """Yield the key and the contents of every recording, sorted."""
        if path.is_dir():
            files = {key: file for file in path.glob("*.wav") if (key := _key(file.name))}
            for key in self._complete(path, files):
                yield key, files[key].read_bytes()
            return
        with whole(damaged, path, "a whole .zip archive"), zipfile.ZipFile(path) as archive:
            members = {key: name for name in archive.namelist() if (key := _key(name))}
            for key in self._complete(path, members):
                info = archive.getinfo(members[key])
                require_possible(info.file_size, info.compress_size)
                if info.file_size > MOST_BYTES:
                    raise ValueError(f"{info.filename} claims {info.file_size:,} bytes")
                yield key, archive.read(info)

    def _complete(self, path: Path, found: Mapping[Key, object]) -> list[Key]:
        wanted = {
            (speaker, digit, index)
            for speaker in SPEAKERS
            for digit in range(len(CLASSES))
            for index in range(self.per_digit)
        }
        if missing := sorted(wanted - found.keys()):
            speaker, digit, index = missing[0]
            count, name = len(wanted), f"{digit}_{speaker}_{index}.wav"
            raise damaged(
                path,
                f"{count} recordings, {self.per_digit} of each digit by {', '.join(SPEAKERS)}",
                f"{count - len(missing)} of them, without {name}",
            )
        return sorted(wanted)

    def _image(self, path: Path, name: str, contents: bytes, test: bool) -> np.ndarray:
        with (
            whole(damaged, path, f"a WAV file {name}"),
            wave.open(io.BytesIO(contents)) as file,
        ):
            form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            sound = file.readframes(file.getnframes())
        if form != (1, 16, RATE) or len(sound) < 2 or len(sound) % 2:
            expected = f"1 channel of 16 bits at {RATE} Hz in {name}"
            found = f"{form[0]} of {form[1]} bits at {form[2]} Hz, {len(sound)} bytes"
            raise damaged(path, expected, found)
        samples = np.frombuffer(sound, "<i2") / 2**15
        raw = self.level == "raw"
        picture = log_mel(
            samples if raw else at_level(samples, SPEECH_LEVEL),
            RATE,
            mels=self.mels,
            frames=self.frames,
            seconds=self.seconds,
            quietest=QUIETEST,
            speed=self.test_speed if test else 1.0,
            pitch=self.test_pitch if test else 0.0,
        )
        if raw:
            return grey(picture, QUIETEST, LOUDEST)
        return grey(standardised(picture), DARKEST, BRIGHTEST)


def damaged(path: Path, expected: str, found: str) -> UserError:
    """Make the error for recordings that differ from what was published."""
    return UserError(f"{path}: expected {expected}, found {found}. Please download it again: {URL}")


def _key(name: str) -> Key | None:
    match = NAME.fullmatch(name)
    return (match[2], int(match[1]), int(match[3])) if match else None


def _split(examples: list[tuple[np.ndarray, int]]) -> Split | None:
    if not examples:
        return None
    images, digits = zip(*examples, strict=True)
    return Split(np.stack(images)[..., None], np.array(digits, np.int32))
