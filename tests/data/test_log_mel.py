"""Log-mel images are right for sounds whose spectrum is known."""

import numpy as np
import pytest

from normlab.data.log_mel import (
    at_level,
    bands,
    grey,
    hertz,
    log_mel,
    mel,
    resampled,
    standardised,
)
from normlab.errors import FieldError

RATE = 8000
PICTURE = {"mels": 32, "frames": 40, "seconds": 0.8}


def image(sound, rate, **settings):
    """Make grey levels from -95 to -15 decibels."""
    return grey(log_mel(sound, rate, quietest=-95.0, **settings), -95.0, -15.0)


def sine(frequency, seconds=0.4, loudness=0.1):
    return loudness * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


def brightest(image):
    """Return the brightest band, counted from the lowest."""
    return len(image) - 1 - int(image.astype(int).sum(axis=1).argmax())


def width(image):
    return int((image.max(axis=0) > 0).sum())


def test_the_scale_of_pitch():
    assert mel(1000.0) == pytest.approx(1000, abs=0.1)  # what the constants are chosen for
    np.testing.assert_allclose(hertz(mel(np.array([60.0, 4000.0]))), [60, 4000])


def test_white_noise_is_equally_bright_in_all_bands():
    np.testing.assert_allclose(bands(32, RATE, 256).sum(axis=1), 1)
    with pytest.raises(ValueError, match="too many"):
        bands(200, RATE, 256)


@pytest.mark.parametrize("frequency", [200, 700, 1500, 3000])
def test_a_sine_lights_its_own_band(frequency):
    edges = hertz(np.linspace(mel(60.0), mel(4000.0), 34))
    found = brightest(image(sine(frequency), RATE, **PICTURE))
    assert edges[found] <= frequency <= edges[found + 2]


def test_ten_times_the_amplitude_is_twenty_decibels():
    quiet, loud = (image(sine(1000, loudness=a), RATE, **PICTURE).max() for a in (0.01, 0.1))
    assert (int(loud) - int(quiet)) / 255 * 80 == pytest.approx(20, abs=0.4)


def test_full_scale_is_what_the_decibels_count_from():
    frequency = 1000  # in the middle of a bin
    whole = bands(32, RATE, 256)[:, 32].max()
    expected = 255 * (10 * np.log10(0.01 * whole) + 95) / 80
    picture = image(sine(frequency), RATE, **PICTURE)
    # Its two neighbours have a quarter of its power each, and are in the band in part.
    assert expected <= picture.max() <= expected + 255 * 10 * np.log10(1.5) / 80


def test_silence_is_black_and_a_recording_stands_in_the_middle():
    assert not image(np.zeros(1000), RATE, **PICTURE).any()
    light = image(sine(1000, seconds=0.2), RATE, **PICTURE).max(axis=0) > 0
    np.testing.assert_array_equal(light, light[::-1])
    assert width(image(np.ones(1), RATE, **PICTURE)) <= 2


def test_a_long_recording_is_cut_at_both_ends():
    long = np.concatenate([sine(500, 1.0), sine(2000, 0.8), sine(500, 1.0)])
    np.testing.assert_array_equal(
        image(long, RATE, **PICTURE)[:, 2:-2], image(sine(2000, 0.8), RATE, **PICTURE)[:, 2:-2]
    )


def test_speed_changes_the_duration_and_not_the_pitch():
    plain, fast = (image(sine(1000), RATE, **PICTURE, speed=speed) for speed in (1.0, 2.0))
    assert brightest(fast) == brightest(plain)
    assert width(fast) == pytest.approx(width(plain) / 2, abs=2)


def test_pitch_changes_the_pitch_and_not_the_duration():
    low, high = image(sine(500), RATE, **PICTURE), image(sine(500), RATE, **PICTURE, pitch=12)
    assert brightest(high) == brightest(image(sine(1000), RATE, **PICTURE))
    assert width(high) == pytest.approx(width(low), abs=2)


def test_a_tape_that_runs_faster_does_both():
    tape = image(sine(500), RATE, **PICTURE, speed=2.0, pitch=12)
    exact = image(sine(1000, seconds=0.2), RATE, **PICTURE)
    assert np.abs(tape[:, 12:28].astype(int) - exact[:, 12:28]).mean() < 12
    assert brightest(tape) == brightest(exact) and abs(width(tape) - width(exact)) <= 2


def test_what_would_lie_above_half_the_rate_is_filtered_out():
    faster = resampled(sine(3000, 1.0), 2.0)
    assert len(faster) == 4000 and np.abs(faster[200:-200]).max() < 0.003


def test_a_sound_is_brought_to_a_level_and_silence_stays_silence():
    loud = at_level(sine(1000, loudness=0.001), -26.0)
    assert np.sqrt(np.mean(loud**2)) == pytest.approx(0.0501187234, rel=1e-9)
    assert not at_level(np.zeros(10), -26.0).any()


@pytest.mark.parametrize(
    "sound, changed",
    [([], {}), ([[1.0]], {}), ([np.nan], {}), ([1.0], {"seconds": 0.0}), ([1.0], {"frames": 1.5}),
     ([1.0], {"mels": 0}), ([1.0], {"speed": -1.0}), ([1.0], {"pitch": np.inf})],
)  # fmt: skip
def test_sounds_and_sizes_without_a_picture_are_refused(sound, changed):
    with pytest.raises(FieldError):
        image(np.array(sound), RATE, **PICTURE | changed)


def test_a_constant_picture_is_standardised_to_zero_whatever_its_mean_is_rounded_to():
    assert not standardised(np.full((7, 3), -94.99999999999999)).any()
