"""Turns sound into an image: the log-mel spectrogram, in decibels.

The loudness of the recording may be kept or made equal for all recordings: `at_level` does so for
the sound, and `standardised` for the picture.

Everything is computed in float64, but machines round logarithms and Fourier transforms differently.
About one pixel in ten thousand may therefore differ by one grey level between two machines.
"""

import math
from fractions import Fraction

import numpy as np

from normlab.errors import require_field, require_whole

WINDOW_SECONDS = 0.032
"""Length of a window: long enough to resolve a voice's harmonics, short enough for a consonant."""

LOWEST_HERTZ = 60.0
"""Lower edge of the lowest band: below a voice's fundamental there is only hum."""

SEMITONES = 12


def mel(hertz: float | np.ndarray) -> np.ndarray:
    """Convert hertz to mels (O'Shaughnessy 1987): linear below about 700 Hz, logarithmic above.

    >>> float(mel(1000.0).round())
    1000.0
    """
    return 2595 * np.log10(1 + np.asarray(hertz, np.float64) / 700)


def hertz(mels: float | np.ndarray) -> np.ndarray:
    """Convert mels to hertz; the inverse of `mel`."""
    return 700 * (10 ** (np.asarray(mels, np.float64) / 2595) - 1)


def bands(count: int, rate: int, samples: int) -> np.ndarray:
    """Make the mel filter bank: triangles over the bins of a spectrum, evenly spaced in mels.

    Args:
        count: number of bands.
        rate: samples per second; the highest band ends at half of it.
        samples: samples in one window.

    Returns:
        `(count, samples // 2 + 1)`. Each row sums to one, so that a band is a mean of powers and
        white noise is equally bright in all bands.

    Raises:
        FieldError: the bands are so narrow that one holds no bin.
    """
    edges = hertz(np.linspace(mel(LOWEST_HERTZ), mel(rate / 2), count + 2))
    bins = np.arange(samples // 2 + 1) * rate / samples
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    triangles = np.maximum(0, np.minimum(rising, falling))
    total = triangles.sum(axis=1, keepdims=True)
    enough = f"fewer: {count} bands are too many for {samples} samples at {rate} Hz"
    require_field(bool(total.all()), "mels", count, enough)
    return triangles / total


def log_mel(
    sound: np.ndarray,
    rate: int,
    *,
    mels: int,
    frames: int,
    seconds: float,
    quietest: float,
    speed: float = 1.0,
    pitch: float = 0.0,
) -> np.ndarray:
    """Compute the log-mel spectrogram of a sound, in decibels relative to a sine of full scale.

    The sound stands in the middle of `seconds` of silence; a longer sound is cut at both ends.
    Spectra are taken with a Hann window of 32 ms at `frames` evenly spaced times.

    `speed` changes the distance in time between the spectra, and so the duration but not the pitch.
    `pitch` resamples the sound, which changes both, and restores the duration in the same way. A
    tape that runs 1.2 times as fast is `speed=1.2, pitch=12 * log2(1.2)`.

    Args:
        sound: `(N,)` samples in -1..1.
        rate: samples per second.
        mels: number of bands from 60 Hz to half the sampling rate: the image's height.
        frames: number of spectra: the image's width.
        seconds: duration that the image's width covers.
        quietest: the least power shown, in decibels relative to a sine of full scale: negative.
        speed: factor by which the sound is played faster.
        pitch: number of semitones (twelfths of an octave) by which the sound is raised.

    Returns:
        `(mels, frames)` float64, low pitch at the bottom (the last row).

    Raises:
        FieldError: an argument cannot work.
    """
    require_sound(sound)
    require_whole("mels", mels, 1)
    require_whole("frames", frames, 1)
    for field, value in (("rate", rate), ("seconds", seconds), ("speed", speed)):
        require_field(0 < value < math.inf, field, value, "a positive number")
    require_field(math.isfinite(pitch), "pitch", pitch, "a number of semitones")
    factor = 2 ** (pitch / SEMITONES)
    sound = resampled(np.asarray(sound, np.float64), factor)
    window = round(WINDOW_SECONDS * rate)
    hop = seconds * rate / frames * speed / factor
    centres = len(sound) / 2 + (np.arange(frames) - (frames - 1) / 2) * hop
    starts = np.rint(centres - window / 2).astype(int)
    around = max(0, -starts[0], starts[-1] + window - len(sound))
    padded = np.pad(sound, around)
    taken = padded[(starts + around)[:, None] + np.arange(window)]
    weights = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    # The scale is chosen so that a sine of full scale has power 1 in its bin.
    power = abs(np.fft.rfft(taken * weights) / (weights.sum() / 2)) ** 2
    level = 10 * np.log10(np.maximum(power @ bands(mels, rate, window).T, 1e-20))
    return np.maximum(level, quietest).T[::-1]


def require_sound(sound: np.ndarray) -> None:
    """Raise `FieldError` unless `sound` is `(N,)` finite samples, one or more."""
    sound = np.asarray(sound)
    samples = sound.ndim == 1 and sound.size > 0 and np.isfinite(sound).all()
    found = f"{sound.dtype} of shape {sound.shape}"
    require_field(bool(samples), "sound", found, "finite samples of shape (N,), one or more")


def grey(picture: np.ndarray, black: float, white: float) -> np.ndarray:
    """Convert a picture to uint8 grey levels: 0 at `black` and below, 255 at `white` and above.

    >>> grey(np.array([-100.0, -55.0, 0.0]), black=-95, white=-15)
    array([  0, 128, 255], dtype=uint8)
    """
    return np.rint(255 * np.clip((picture - black) / (white - black), 0, 1)).astype(np.uint8)


def at_level(sound: np.ndarray, decibels: float) -> np.ndarray:
    """Amplify a sound to a root mean square of `decibels` relative to 1; silence stays silence.

    >>> at_level(np.array([0.5, -0.5]), -20.0)
    array([ 0.1, -0.1])
    """
    require_sound(sound)
    level = np.sqrt(np.mean(np.square(sound, dtype=np.float64)))
    return sound * (10 ** (decibels / 20) / level if level else 1.0)


def standardised(picture: np.ndarray) -> np.ndarray:
    """Subtract a picture's mean and divide by its standard deviation; a constant becomes zero.

    >>> standardised(np.array([[-90.0, -50.0]]))
    array([[-1.,  1.]])
    """
    if picture.min() == picture.max():  # otherwise rounding of the mean would be amplified
        return np.zeros_like(picture)
    return (picture - picture.mean()) / picture.std()


def resampled(sound: np.ndarray, factor: float) -> np.ndarray:
    """Resample a sound as if played `factor` times as fast: shorter and higher above 1.

    Frequencies above half the sampling rate are filtered out. The factor is rounded to a fraction
    with a denominator of at most 100, an error below a hundredth of a semitone.

    >>> len(resampled(np.zeros(1000), 1.25))
    800
    """
    if math.isclose(factor, 1):
        return sound
    from scipy.signal import resample_poly  # slow to import

    ratio = Fraction(factor).limit_denominator(100)
    return np.asarray(resample_poly(sound, ratio.denominator, ratio.numerator))
