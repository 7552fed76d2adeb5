"""Remakes the three noises of Hendrycks and Dietterich 2019 (arXiv:1903.12261).

The amounts are those that the authors chose for 32x32 images (github.com/hendrycks/robustness). The
code is this library's, so a picture is not one of the published CIFAR-10-C.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.data.augment import augmentation
from normlab.data.corruptions import Corruption, as_file


@augmentation
@dataclass(frozen=True)
class RemadeGaussianNoise(Corruption):
    """Adds normal noise, as of a sensor in low light.

    Its standard deviation is 0.04, 0.06, 0.08, 0.09 or 0.1 of white.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.04, 0.06, 0.08, 0.09, 0.1)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Add noise to the images, `(N, H, W, C)` float32 in 0..255 units."""
        return as_file(images + 255 * amount * jax.random.normal(key, images.shape, images.dtype))


@augmentation
@dataclass(frozen=True)
class RemadeShotNoise(Corruption):
    """Counts photons: each value is a Poisson count, 500, 250, 100, 75 or 50 for white.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (500.0, 250.0, 100.0, 75.0, 50.0)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Count the photons of the images, `(N, H, W, C)` float32 in 0..255 units."""
        counted = jax.random.poisson(key, images / 255 * amount).astype(images.dtype)
        return as_file(255 * counted / amount)


@augmentation
@dataclass(frozen=True)
class RemadeImpulseNoise(Corruption):
    """Sets values to black or white (salt and pepper): 1, 2, 3, 5 or 7% of them.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.01, 0.02, 0.03, 0.05, 0.07)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Strike the images, `(N, H, W, C)` float32 in 0..255 units."""
        draw = jax.random.uniform(key, images.shape, images.dtype)
        salted = jnp.where(draw < amount / 2, 255, images)
        return as_file(jnp.where(draw > 1 - amount / 2, 0, salted))
