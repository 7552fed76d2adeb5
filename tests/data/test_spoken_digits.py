"""Spoken digits are read from small files that the tests make, and from real ones if present."""

import io
import wave
import zipfile

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import scipy.stats

from normlab.data import SpokenDigits
from normlab.data.spoken_digits import PUBLISHED_TEST, SPEAKERS
from normlab.errors import FieldError, UserError


class Few(SpokenDigits):
    """The same set with six recordings of each digit and speaker."""

    per_digit = 6


def wav(sound, rate=8000, channels=1, width=2):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(sound)
    return buffer.getvalue()


def tone(digit, speaker, index):
    """Make a sine whose pitch encodes the digit and whose loudness encodes the speaker."""
    time = np.arange(800 + 10 * index) / 8000
    loudness = 0.1 / (1 + SPEAKERS.index(speaker))
    sound = loudness * np.sin(2 * np.pi * 300 * (digit + 1) * time)
    return wav((sound * 32767).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def files():
    return {
        f"{digit}_{speaker}_{index}.wav": tone(digit, speaker, index)
        for speaker in SPEAKERS
        for digit in range(10)
        for index in range(Few.per_digit)
    }


def zipped(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, contents in [*files.items(), ("README.md", b"text")]:
            archive.writestr(f"some-folder/recordings/{name}", contents)
    return path


def unpacked(folder, files):
    folder.mkdir(parents=True)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    return folder


@pytest.fixture(scope="module")
def root(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    zipped(root / "fsdd" / "recordings.zip", files)
    return root


def test_the_test_split_is_of_voices_that_were_not_heard(root):
    few = Few(test_speakers=("theo",), validation_speakers=("lucas",), level="raw")
    data = few.load(root)
    sizes = [len(split.labels) for split in (data.train, data.validation, data.test)]
    assert sizes == [240, 60, 60]
    for split in (data.train, data.validation, data.test):
        assert np.bincount(split.labels).tolist() == [len(split.labels) // 10] * 10
    # Theo is the fifth and Lucas the third of the speakers, each quieter than the one before.
    loudest = [split.images.max() for split in (data.train, data.validation, data.test)]
    assert loudest[0] > loudest[1] > loudest[2]
    assert data.train.images.min(axis=(0, 1, 2, 3)) == 0


def test_without_test_speakers_the_published_split_is_taken(root):
    data = Few(test_speakers=()).load(root)
    assert len(data.test.labels) == 10 * len(SPEAKERS) * PUBLISHED_TEST
    assert len(data.train.labels) == 10 * len(SPEAKERS) * (Few.per_digit - PUBLISHED_TEST)


@pytest.mark.parametrize(
    "settings",
    [{}, {"test_speakers": ()}, {"validation_speakers": ("lucas",)},
     {"test_speakers": (), "validation_speakers": ("lucas", "theo"), "mels": 20, "frames": 24}],
)  # fmt: skip
def test_the_outline_is_that_of_what_is_loaded(settings, root):
    described = Few(**settings)
    data, outline = described.load(root), described.outline()
    assert data.train.images.shape == (outline.train_examples, *outline.image_shape)
    assert data.test.images.shape == (outline.test_examples, *outline.image_shape)
    assert (0 if data.validation is None else len(data.validation.labels)) == (
        outline.validation_examples
    )


def test_speed_and_pitch_change_the_test_part_alone(root):
    plain = Few(level="raw").load(root)
    changed = Few(test_speed=2.0, test_pitch=12.0, level="raw").load(root)
    np.testing.assert_array_equal(plain.train.images, changed.train.images)

    def lit(data, axis):
        """Return the extent of the image of a digit 'two', and its brightest row."""
        image = data.test.images[2 * Few.per_digit, :, :, 0].astype(int)
        return (image.sum(axis=0) > 0).sum() if axis else 31 - image.sum(axis=1).argmax()

    assert lit(changed, 1) < 0.75 * lit(plain, 1)
    assert lit(changed, 0) > lit(plain, 0)


def by_hand(sound):
    """Compute a picture of 32 bands and times in decibels by the definition, a loop over both."""
    sound = np.pad(sound, 4000)
    edges = 700 * np.expm1(np.linspace(*np.log1p(np.array([60, 4000]) / 700), 34))
    frequencies = np.arange(129) * 8000 / 256
    picture = np.empty((32, 32))
    for time in range(32):
        start = round(len(sound) / 2 + (time - 15.5) * 200 - 128)
        part = sound[start : start + 256] * scipy.signal.windows.hann(256, sym=False)
        power = np.abs(scipy.fft.fft(part)[:129]) ** 2 / 64**2
        for band in range(32):
            triangle = np.interp(frequencies, edges[band : band + 3], [0, 1, 0], 0, 0)
            mean = np.average(power, weights=triangle)
            picture[31 - band, time] = max(-95, 10 * np.log10(max(mean, 1e-20)))
    return picture


def noise(loudness, seed=0, seconds=0.3):
    """Make noise that fades, with quieter noise before and after it."""
    draw = np.random.default_rng(seed)
    fades = np.exp(-np.linspace(0, 4, round(8000 * seconds)))
    sound = loudness * np.concatenate([draw.normal(0, 0.02, 800), draw.normal(0, fades)])
    return np.rint(32767 * sound.clip(-1, 1)).astype("<i2")


@pytest.mark.parametrize("level", ["raw", "standardised"])
def test_a_picture_is_what_its_definition_says(level, files, tmp_path):
    sound = noise(0.1)
    zipped(tmp_path / "recordings.zip", {**files, "0_george_0.wav": wav(sound.tobytes())})
    picture = Few(level=level).load(tmp_path).train.images[0, :, :, 0]
    sound = sound / 2**15
    if level == "raw":
        expected = 255 * (by_hand(sound) + 95) / 80
    else:
        decibels = by_hand(sound * 10 ** (-26 / 20) / np.sqrt(np.mean(sound**2)))
        expected = 255 * (scipy.stats.zscore(decibels, axis=None) + 2) / 5.5
    np.testing.assert_allclose(picture, expected.clip(0, 255), atol=0.5 + 1e-6)


def test_standardised_pictures_do_not_tell_how_loud_a_recording_is(files, tmp_path):
    loud, quiet = noise(0.2), noise(0.01)
    sounds = {"0_george_0.wav": loud, "0_george_1.wav": quiet}
    changed = {name: wav(sound.tobytes()) for name, sound in sounds.items()}
    zipped(tmp_path / "recordings.zip", {**files, **changed})
    first, second = Few(level="raw").load(tmp_path).train.images[:2].astype(int)
    assert (first - second).mean() > 30  # 26 decibels of 80 in 256 grey levels, less the floor
    first, second = Few().load(tmp_path).train.images[:2].astype(int)
    # The quiet one has 16 bits less 26 decibels: its rounding is what is left.
    assert abs(first - second).mean() < 1
    assert abs(first.mean() - second.mean()) < 0.2 and abs(first.std() - second.std()) < 0.2


def test_silence_has_a_picture_without_anything_in_it(files, tmp_path):
    zipped(tmp_path / "recordings.zip", {**files, "0_george_0.wav": wav(bytes(1000))})
    assert np.ptp(Few().load(tmp_path).train.images[0]) == 0


def test_a_folder_and_an_archive_give_the_same(files, root, tmp_path):
    unpacked(tmp_path / "spoken_digits" / "recordings", files)
    assert Few().load(tmp_path).fingerprint == Few().load(root).fingerprint


def test_a_missing_set_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError) as raised:
        SpokenDigits().load(tmp_path)
    for text in ("recordings.zip", "free-spoken-digit-dataset", "NORMLAB_DATA", str(tmp_path)):
        assert text in str(raised.value)


def test_an_incomplete_set_is_refused(files, tmp_path):
    lacking = {name: file for name, file in files.items() if name != "3_lucas_1.wav"}
    path = zipped(tmp_path / "recordings.zip", lacking)
    with pytest.raises(UserError, match=r"found 359 of them, without 3_lucas_1\.wav") as raised:
        Few().load(tmp_path)
    assert str(path) in str(raised.value)


DAMAGE = {
    "no WAV": (b"RIFF", "a WAV file 3_lucas_1.wav, found damage"),
    "another rate": (wav(bytes(200), rate=16000), "found 1 of 16 bits at 16000 Hz"),
    "two channels": (wav(bytes(200), channels=2), "found 2 of 16 bits"),
    "eight bits": (wav(bytes(200), width=1), "found 1 of 8 bits"),
    "silence without length": (wav(b""), "0 bytes"),
}


@pytest.mark.parametrize("contents, found", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_recording_is_named(contents, found, files, tmp_path):
    zipped(tmp_path / "recordings.zip", {**files, "3_lucas_1.wav": contents})
    with pytest.raises(UserError) as raised:
        Few().load(tmp_path)
    assert found in str(raised.value) and "3_lucas_1.wav" in str(raised.value)


def test_a_torn_archive_is_damaged(files, tmp_path):
    path = zipped(tmp_path / "recordings.zip", files)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a whole \.zip archive, found damage"):
        Few().load(tmp_path)


@pytest.mark.parametrize(
    "field, value",
    [("test_speakers", ("anna",)), ("test_speakers", ("theo", "theo")), ("test_speakers", SPEAKERS),
     ("validation_speakers", ("theo",)), ("test_speed", 0.0), ("test_pitch", 30.0), ("mels", 4),
     ("frames", 4), ("seconds", 0.0), ("level", "loud")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(field, value):
    with pytest.raises(FieldError) as raised:
        SpokenDigits(**{field: value})
    assert raised.value.field == field


def real():
    if SpokenDigits().locate() is None:
        pytest.skip("the spoken digits are not in NORMLAB_DATA or the cache folder")


def test_the_real_recordings_are_all_there():
    real()
    data = SpokenDigits(validation_speakers=("nicolas",)).load()
    assert np.bincount(data.train.labels).tolist() == [150] * 10
    assert np.bincount(data.test.labels).tolist() == [100] * 10
    assert (data.train.images == 255).mean() < 1e-3


def test_loudness_tells_the_real_voices_apart_in_raw_pictures_alone():
    real()
    spread = {}
    for level in ("raw", "standardised"):
        data = SpokenDigits(level=level).load()
        voices = data.train.images.reshape(4, 500, -1), data.test.images.reshape(2, 500, -1)
        pictures = np.concatenate(voices).astype(float)
        means, deviations = pictures.mean(axis=2).mean(axis=1), pictures.std(axis=2).mean(axis=1)
        spread[level] = np.ptp(means), np.ptp(deviations)
    assert spread["raw"][0] > 45 and spread["raw"][1] > 25
    assert max(spread["standardised"]) < 0.1
