"""Bad light and bad air: five ways in which a camera sees worse, each in five severities.

They are augmentations like any other, pure functions of a key and images, so a network may be
trained in bad light (`augment: [{name: fog, severity: 2}]`); the probe `under_corruption` judges
one that was trained in daylight. The idea is that of Hendrycks & Dietterich 2019
(arXiv:1903.12261): corruptions that no training saw, at severities that are stated. The definitions
are this library's own, from what light does, and scale with the image's size, so their figures are
no figures of CIFAR-10-C.

Light is mixed in the values as they stand in the file, and the result is rounded to whole grey
levels, as a file's would be: what is lost in the dark cannot be brought back by scaling. At
severity 5 a person can still tell most of the images.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from normlab.core import Array
from normlab.data.augment import augmentation, require_images
from normlab.errors import UserError, require_whole


@dataclass(frozen=True)
class Corruption:
    """What all of them share: five severities, each with an amount of what it is.

    One of your own inherits from it, gives `amounts` and `corrupt`, and is marked `@augmentation`.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]]

    severity: int = 3

    def __post_init__(self) -> None:
        require_whole("severity", self.severity, 1, len(self.amounts))

    def __call__(self, key: Array, images: Array) -> Array:
        """The images, `(N, H, W, C)` float32 in 0..255 units, at this severity."""
        require_images(images)
        return self.corrupt(key, images, self.amounts[self.severity - 1])

    def corrupt(self, key: Array, images: Array, amount: Array | float) -> Array:
        """The images with any amount of it, in whole grey levels; the severity plays no part."""
        raise NotImplementedError


@augmentation
@dataclass(frozen=True)
class Darkness(Corruption):
    """Too little light: fewer photons, so the image is darker and its grain coarser.

    The light is 1/2, 1/3, 1/5, 1/8 or 1/12 of daylight. Photons are counted, so
    that their number scatters by its root (shot noise); in full light a white pixel has 1,000.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (1 / 2, 1 / 3, 1 / 5, 1 / 8, 1 / 12)
    photons: ClassVar[float] = 1000.0

    def corrupt(self, key: Array, images: Array, amount: Array | float) -> Array:
        """The images, `(N, H, W, C)` float32 in 0..255 units, in little light."""
        mean = images / 255 * amount * self.photons
        # A Poisson count by its first two moments: exact enough above a few photons, and cheap.
        counted = mean + jnp.sqrt(mean) * jax.random.normal(key, images.shape, images.dtype)
        return _as_file(counted / self.photons * 255)


@augmentation
@dataclass(frozen=True)
class Glare(Corruption):
    """The sun in the picture: a blinding spot whose light spreads over all of it.

    The spot is at a random place in the upper half. It adds light that falls off as a Gaussian (of
    a deviation of 0.4 of the image's height), at its middle 0.3, 0.5, 0.75, 1.0 or 1.3 times white,
    and what exceeds white is lost.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.3, 0.5, 0.75, 1.0, 1.3)
    spread: ClassVar[float] = 0.4

    def corrupt(self, key: Array, images: Array, amount: Array | float) -> Array:
        """The images, `(N, H, W, C)` float32 in 0..255 units, against the light."""
        n, height, width, _ = images.shape
        place = jax.random.uniform(key, (n, 2), images.dtype)
        down = jnp.arange(height, dtype=images.dtype)[None, :, None] / height
        across = jnp.arange(width, dtype=images.dtype)[None, None, :] / width
        square = (down - place[:, :1, None] / 2) ** 2 + (across - place[:, 1:, None]) ** 2
        light = amount * jnp.exp(-square / (2 * self.spread**2))
        return _as_file(images + 255 * light[..., None])


@augmentation
@dataclass(frozen=True)
class LowContrast(Corruption):
    """Flat light: every pixel is drawn towards the image's own mean.

    Of the distance 0.6, 0.4, 0.25, 0.15 or 0.08 are left.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.6, 0.4, 0.25, 0.15, 0.08)

    def corrupt(self, key: Array, images: Array, amount: Array | float) -> Array:
        """The images, `(N, H, W, C)` float32 in 0..255 units, each flatter; the key is not used."""
        mean = images.mean(axis=(1, 2, 3), keepdims=True)
        return _as_file(mean + amount * (images - mean))


@augmentation
@dataclass(frozen=True)
class ColourCast(Corruption):
    """Light of one colour, as of a street lamp or under trees: each image's channels are scaled.

    The colour is a random hue; its weakest channel keeps 0.75, 0.55, 0.4, 0.25 or 0.1 of its light
    and the strongest all of it.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.75, 0.55, 0.4, 0.25, 0.1)

    def corrupt(self, key: Array, images: Array, amount: Array | float) -> Array:
        """The images, `(N, H, W, 3)` float32 in 0..255 units, each in its own light."""
        channels = images.shape[-1]
        if channels != 3:
            raise UserError(
                f"colour_cast needs images of three colours, and these have {channels} channels: "
                "leave it out"
            )
        hue = jax.random.uniform(key, (len(images), 1), images.dtype)
        third = jnp.arange(3, dtype=images.dtype)[None, :] / 3
        wave = jnp.cos(2 * np.pi * (hue - third))
        low, high = wave.min(axis=1, keepdims=True), wave.max(axis=1, keepdims=True)
        gain = amount + (1 - amount) * (wave - low) / (high - low)
        return _as_file(images * gain[:, None, None, :])


@augmentation
@dataclass(frozen=True)
class Fog(Corruption):
    """Fog, thicker in some places than in others: light is lost on the way and white is added.

    Of the scene's light exp(-d) arrives and 0.9 (1 - exp(-d)) of white is added (the law of
    atmospheric scattering, Koschmieder 1924). The depth d is 0.3, 0.6, 0.9, 1.3 or 1.8, times a
    smooth random field between 0.5 and 1.5.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.3, 0.6, 0.9, 1.3, 1.8)
    white: ClassVar[float] = 0.9

    def corrupt(self, key: Array, images: Array, amount: Array | float) -> Array:
        """The images, `(N, H, W, C)` float32 in 0..255 units, each in its own fog."""
        n, height, width, _ = images.shape
        # Random at four places by four, and between them by cubic interpolation.
        coarse = jax.random.uniform(key, (n, 4, 4), images.dtype, minval=0.5, maxval=1.5)
        field = jnp.clip(jax.image.resize(coarse, (n, height, width), "cubic"), 0.5, 1.5)
        arriving = jnp.exp(-amount * field)[..., None]
        return _as_file(images * arriving + 255 * self.white * (1 - arriving))


def _as_file(images: Array) -> Array:
    return jnp.round(jnp.clip(images, 0, 255))
