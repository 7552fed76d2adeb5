"""Corrupts images by bad light or bad air, in five ways and five severities.

The idea is from Hendrycks & Dietterich 2019 (arXiv:1903.12261):
corruptions that were not seen in training, at stated severities. The definitions are this library's
own, follow the physics of light and scale with the image's size, so results are not comparable with
CIFAR-10-C.

Light is mixed in the stored pixel values, and the result is rounded to whole grey levels, as in an
image file: scaling cannot restore what is lost in the dark. At severity 5 a person can still
recognise most of the images.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from normlab.core import Array
from normlab.data.augment import augmentation
from normlab.data.corruptions import Corruption, as_file
from normlab.errors import UserError


@augmentation
@dataclass(frozen=True)
class Darkness(Corruption):
    """Too little light: fewer photons, so the image is darker and its grain coarser.

    The light is 1/2, 1/3, 1/5, 1/8 or 1/12 of daylight. The standard deviation of a photon count is
    its square root (shot noise); in full light a white pixel counts 1,000 photons.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (1 / 2, 1 / 3, 1 / 5, 1 / 8, 1 / 12)
    photons: ClassVar[float] = 1000.0

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Darken the images, `(N, H, W, C)` float32 in 0..255 units."""
        mean = images / 255 * amount * self.photons
        # A normal draw with the moments of a Poisson count: cheap, and close above a few photons.
        counted = mean + jnp.sqrt(mean) * jax.random.normal(key, images.shape, images.dtype)
        return as_file(counted / self.photons * 255)


@augmentation
@dataclass(frozen=True)
class Glare(Corruption):
    """The sun in the picture: a blinding spot whose light spreads over the whole image.

    The spot is at a random place in the upper half. Its light falls off as a Gaussian with a
    standard deviation of 0.4 of the image's height. At the centre it adds 0.3, 0.5, 0.75, 1.0 or
    1.3 times white, and values above white are clipped.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.3, 0.5, 0.75, 1.0, 1.3)
    spread: ClassVar[float] = 0.4

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Add glare to the images, `(N, H, W, C)` float32 in 0..255 units."""
        n, height, width, _ = images.shape
        place = jax.random.uniform(key, (n, 2), images.dtype)
        down = jnp.arange(height, dtype=images.dtype)[None, :, None] / height
        across = jnp.arange(width, dtype=images.dtype)[None, None, :] / width
        square = (down - place[:, :1, None] / 2) ** 2 + (across - place[:, 1:, None]) ** 2
        light = amount * jnp.exp(-square / (2 * self.spread**2))
        return as_file(images + 255 * light[..., None])


@augmentation
@dataclass(frozen=True)
class LowContrast(Corruption):
    """Flat light: every pixel is drawn towards the image's own mean.

    Its distance from the mean is multiplied by 0.6, 0.4, 0.25, 0.15 or 0.08.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.6, 0.4, 0.25, 0.15, 0.08)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Flatten the images, `(N, H, W, C)` float32 in 0..255 units; the key is not used."""
        mean = images.mean(axis=(1, 2, 3), keepdims=True)
        return as_file(mean + amount * (images - mean))


@augmentation
@dataclass(frozen=True)
class ColourCast(Corruption):
    """Coloured light, as from a street lamp or under trees: each image's channels are scaled.

    The colour is a random hue. The weakest channel keeps 0.75, 0.55, 0.4, 0.25 or 0.1 of its light
    and the strongest keeps all of it.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.75, 0.55, 0.4, 0.25, 0.1)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Tint the images, `(N, H, W, 3)` float32 in 0..255 units."""
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
        return as_file(images * gain[:, None, None, :])


@augmentation
@dataclass(frozen=True)
class Fog(Corruption):
    """Fog, thicker in some places than in others: light is lost on the way and white is added.

    The scene's light is multiplied by exp(-d), and white times 0.9 (1 - exp(-d)) is added (the law
    of atmospheric scattering, Koschmieder 1924). The optical depth d is 0.3, 0.6, 0.9, 1.3 or 1.8,
    times a smooth random field between 0.5 and 1.5.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.3, 0.6, 0.9, 1.3, 1.8)
    white: ClassVar[float] = 0.9

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Add fog to the images, `(N, H, W, C)` float32 in 0..255 units."""
        n, height, width, _ = images.shape
        # Random values on a 4x4 grid, with cubic interpolation between them.
        coarse = jax.random.uniform(key, (n, 4, 4), images.dtype, minval=0.5, maxval=1.5)
        field = jnp.clip(jax.image.resize(coarse, (n, height, width), "cubic"), 0.5, 1.5)
        arriving = jnp.exp(-amount * field)[..., None]
        return as_file(images * arriving + 255 * self.white * (1 - arriving))
