"""Remakes snow, frost, fog and brightness of Hendrycks and Dietterich 2019 (arXiv:1903.12261).

The amounts are those that the authors chose for 32x32 images (github.com/hendrycks/robustness),
except where a docstring says otherwise; lengths grow with the image. The code is this library's, so
a picture is not one of the published CIFAR-10-C.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.data.augment import augmentation
from normlab.data.corruptions import Corruption, as_file
from normlab.data.filters import fractal, moved, scale_of, zoomed

OF_GREY = (299.0, 587.0, 114.0)
"""The weights of red, green and blue in grey, in thousandths (ITU-R BT.601)."""


@augmentation
@dataclass(frozen=True)
class RemadeSnow(Corruption):
    """Lets snow fall: bright flakes that move, before a scene that is paler.

    A field of normal noise (its mean and deviation are the first two numbers) is enlarged (the
    third), cut off below the fourth, and moved downwards (half a Gaussian: the fifth is half its
    length, the sixth its deviation). It is added, once as it is and once turned by half. The scene
    keeps the seventh part, and the rest is whitened. The authors cut off below 0.55 at severity 3,
    which moves the picture no further than their severity 2.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[tuple[float, ...], ...]] = (
        (0.1, 0.2, 1.0, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.5, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Let snow fall on the images, `(N, H, W, C)` float32 in 0..255 units."""
        mean, deviation, zoom, floor, radius, sigma, kept = amount
        scale, x = scale_of(images), images / 255
        of_field, of_angle = jax.random.split(key)
        field = mean + deviation * jax.random.normal(of_field, (*x.shape[:3], 1), x.dtype)
        field = zoomed(field, zoom * max(scale, 1))
        field = jnp.clip(jnp.where(field < floor, 0, field), 0, 1)
        low, high = -3 * math.pi / 4, -math.pi / 4
        angle = jax.random.uniform(of_angle, (len(x),), x.dtype, low, high)
        most = math.ceil((2 * self.amounts[-1][4] + 1) * scale)
        flakes = moved(field, angle, sigma * scale, (2 * radius + 1) * scale, max(most, 1))
        whitened = jnp.maximum(x, 1.5 * grey(x) + 0.5)
        x = kept * x + (1 - kept) * whitened
        return as_file(255 * (x + flakes + flakes[:, ::-1, ::-1]))


@augmentation
@dataclass(frozen=True)
class RemadeFrost(Corruption):
    """Lays ice crystals over the image: a part of it, and a part of a picture of frost.

    The parts are 1 and 0.2, 1 and 0.3, 0.9 and 0.4, 0.85 and 0.48, or 0.75 and 0.6. The authors
    take photographs of frost, with 0.4 and 0.45 at severities 4 and 5. Here the frost is drawn:
    sharp ridges of fractal fields, white on pale blue. It does not look like theirs.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[tuple[float, ...], ...]] = (
        (1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.48), (0.75, 0.6)
    )  # fmt: skip

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Lay frost on the images, `(N, H, W, C)` float32 in 0..255 units."""
        kept, laid = amount
        of_needles, of_cover = jax.random.split(key)
        needles = 1 - jnp.abs(2 * fractal(of_needles, images, 1.4) - 1)
        cover = fractal(of_cover, images, 2.0)
        ice = jnp.clip(needles**4 + 0.5 * cover, 0, 1)
        pale = jnp.linspace(0.35, 0.6, images.shape[-1])[None, None, None, :]  # bluish
        frost = pale + (1 - pale) * ice
        return as_file(kept * images + laid * 255 * frost)


@augmentation
@dataclass(frozen=True)
class RemadeFog(Corruption):
    """Adds fog: a fractal field, and the whole is made as bright as the image was.

    The field is weighed by 0.2, 0.5, 0.75, 1 or 1.5 of white. Its noises fall off by the square of
    3, 3, 2.5, 2 or 1.75 from grid to grid. The authors' field is made by diamonds and squares.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[tuple[float, ...], ...]] = (
        (0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)
    )  # fmt: skip

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Add fog to the images, `(N, H, W, C)` float32 in 0..255 units."""
        weight, decay = amount
        x = images / 255
        most = x.max(axis=(1, 2, 3), keepdims=True)
        x = x + weight * fractal(key, images, decay)
        return as_file(255 * x * most / (most + weight))


@augmentation
@dataclass(frozen=True)
class RemadeBrightness(Corruption):
    """Adds 0.05, 0.1, 0.15, 0.2 or 0.3 to the value of each colour (in hue, saturation, value).

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15, 0.2, 0.3)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Brighten the images, `(N, H, W, C)` float32 in 0..255 units; the key is not used."""
        x = images / 255
        value = x.max(axis=-1, keepdims=True)
        brighter = jnp.clip(value + amount, 0, 1)
        # Hue and saturation are ratios of the channels, so these keep theirs; black has none.
        x = jnp.where(value > 0, x / jnp.where(value > 0, value, 1), 1) * brighter
        return as_file(255 * x)


def grey(images: Array) -> Array:
    """Return the grey of colour images, `(N, H, W, 1)`; of other images, the channels' mean."""
    if images.shape[-1] != len(OF_GREY):
        return images.mean(axis=-1, keepdims=True)
    weights = jnp.asarray(OF_GREY, images.dtype) / sum(OF_GREY)
    return (images * weights[None, None, None, :]).sum(axis=-1, keepdims=True)
