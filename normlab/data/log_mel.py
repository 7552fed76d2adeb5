"""Sound as an image: the power in bands of pitch, by time, in decibels.

Its loudness is that of the recording, or all recordings get one: `at_level` does so for the sound,
`standardised` for the picture.

All is computed in float64, but logarithms and Fourier transforms are not rounded alike on every
machine, so a pixel in some ten thousand may differ by one grey level between two machines.
"""

import math
from fractions import Fraction

import numpy as np

from normlab.errors import require_field, require_whole

WINDOW_SECONDS = 0.032
"""Of one spectrum: long enough to tell harmonics of a voice apart, short enough for a consonant."""

LOWEST_HERTZ = 60.0
"""Where the lowest band begins: below a voice's fundamental there is only hum."""

SEMITONES = 12


def mel(hertz: float | np.ndarray) -> np.ndarray:
    """Pitch as it is heard, in mels (O'Shaughnessy 1987): linear below about 700 Hz, then a log.

    >>> float(mel(1000.0).round())
    1000.0
    """
    return 2595 * np.log10(1 + np.asarray(hertz, np.float64) / 700)


def hertz(mels: float | np.ndarray) -> np.ndarray:
    """The inverse of `mel`."""
    return 700 * (10 ** (np.asarray(mels, np.float64) / 2595) - 1)


def bands(count: int, rate: int, samples: int) -> np.ndarray:
    """Triangles over the bins of a spectrum, evenly spaced in mels up to half the sampling rate.

    Args:
        count: how many bands.
        rate: samples a second.
        samples: in one window.

    Returns:
        `(count, samples // 2 + 1)`; each row sums to one, so that a band is a mean of powers and
        white noise is equally bright in all.

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
    """The logarithmic mel spectrogram of a sound, in decibels below a sine of full scale.

    The sound stands in the middle of `seconds` of silence; what is longer is cut at both ends.
    Spectra are taken with a Hann window of 32 ms at `frames` evenly spaced times.

    `speed` sets the times of the spectra nearer together or further apart in the sound, which
    changes its duration and not its pitch. `pitch` resamples the sound, which changes both, and
    takes the duration back in the same way. A tape that runs 1.2 times as fast is
    `speed=1.2, pitch=12 * log2(1.2)`.

    Args:
        sound: `(N,)` samples in -1..1.
        rate: samples a second.
        mels: bands, from 60 Hz to half the sampling rate: the image's height.
        frames: spectra: the image's width.
        seconds: what the image's width is in time.
        quietest: the least power that is told, in decibels below a sine of full scale: negative.
        speed: by what factor it is played faster.
        pitch: by how many semitones (twelfths of an octave) it is higher.

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
    # A sine of full scale has power 1 in its bin: the window's sum is what it would add up to.
    power = abs(np.fft.rfft(taken * weights) / (weights.sum() / 2)) ** 2
    level = 10 * np.log10(np.maximum(power @ bands(mels, rate, window).T, 1e-20))
    return np.maximum(level, quietest).T[::-1]


def require_sound(sound: np.ndarray) -> None:
    """Raise `FieldError` unless it is `(N,)` finite samples, one or more."""
    sound = np.asarray(sound)
    samples = sound.ndim == 1 and sound.size > 0 and np.isfinite(sound).all()
    found = f"{sound.dtype} of shape {sound.shape}"
    require_field(bool(samples), "sound", found, "finite samples of shape (N,), one or more")


def grey(picture: np.ndarray, black: float, white: float) -> np.ndarray:
    """A picture as grey levels, uint8: 0 at `black` and below, 255 at `white` and above.

    >>> grey(np.array([-100.0, -55.0, 0.0]), black=-95, white=-15)
    array([  0, 128, 255], dtype=uint8)
    """
    return np.rint(255 * np.clip((picture - black) / (white - black), 0, 1)).astype(np.uint8)


def at_level(sound: np.ndarray, decibels: float) -> np.ndarray:
    """The sound, amplified to that root mean square, in decibels over 1; silence stays silence.

    >>> at_level(np.array([0.5, -0.5]), -20.0)
    array([ 0.1, -0.1])
    """
    require_sound(sound)
    level = np.sqrt(np.mean(np.square(sound, dtype=np.float64)))
    return sound * (10 ** (decibels / 20) / level if level else 1.0)


def standardised(picture: np.ndarray) -> np.ndarray:
    """A picture less its mean, over its standard deviation; a constant picture is all zero.

    >>> standardised(np.array([[-90.0, -50.0]]))
    array([[-1.,  1.]])
    """
    if picture.min() == picture.max():  # rounding of the mean would pass for a picture
        return np.zeros_like(picture)
    return (picture - picture.mean()) / picture.std()


def resampled(sound: np.ndarray, factor: float) -> np.ndarray:
    """The sound as it is when played `factor` times as fast: shorter and higher for more than 1.

    What would lie above half the sampling rate is filtered out. The factor is taken as a fraction
    with a denominator of at most 100, which is off by less than a hundredth of a semitone.

    >>> len(resampled(np.zeros(1000), 1.25))
    800
    """
    if math.isclose(factor, 1):
        return sound
    from scipy.signal import resample_poly  # slow to import

    ratio = Fraction(factor).limit_denominator(100)
    return np.asarray(resample_poly(sound, ratio.denominator, ratio.numerator))
