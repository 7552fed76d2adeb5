"""Remakes the four blurs of Hendrycks and Dietterich 2019 (arXiv:1903.12261).

The amounts are those that the authors chose for 32x32 images (github.com/hendrycks/robustness),
except where a docstring says otherwise; lengths grow with the image. The code is this library's, so
a picture is not one of the published CIFAR-10-C.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from normlab.core import Array
from normlab.data.augment import augmentation
from normlab.data.corruptions import Corruption, as_file
from normlab.data.filters import blurred, linear_matrix, moved, positions, scale_of, zoomed


@augmentation
@dataclass(frozen=True)
class RemadeDefocusBlur(Corruption):
    """Spreads each point over a disk, as a lens out of focus does.

    The disk's radius is 0.3, 0.4, 0.5, 1 or 1.5 pixels. Its points are spread over pixels by linear
    interpolation, where the authors smooth a disk of whole pixels by a Gaussian.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.3, 0.4, 0.5, 1.0, 1.5)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Defocus the images, `(N, H, W, C)` float32 in 0..255 units; the key is not used."""
        scale = scale_of(images)
        most = math.ceil(self.amounts[-1] * scale)
        grid = np.mgrid[-1:1:11j, -1:1:11j].reshape(2, -1)
        points = amount * scale * jnp.asarray(grid[:, (grid**2).sum(axis=0) <= 1], jnp.float32)
        rows, columns = (linear_matrix(most + each, 2 * most + 1) for each in points)
        kernel = (rows.T @ columns / points.shape[1])[:, :, None, None]
        channels = jnp.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3], 1)
        padded = jnp.pad(channels, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
        found = jax.lax.conv_general_dilated(
            padded, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        found = found.reshape(len(images), -1, *images.shape[1:3])
        return as_file(jnp.moveaxis(found, 1, -1))


@augmentation
@dataclass(frozen=True)
class RemadeGlassBlur(Corruption):
    """Looks through frosted glass: pixels are replaced by near ones, between two blurs.

    In each of two rounds, 20, 40, 60, 80 or 100% of the pixels take the value of a random place at
    most one pixel away. The blurs' standard deviation is 0.4 pixels, the authors' largest. The
    authors vary blur and rounds instead, by which the picture does not always move further away.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.2, 0.4, 0.6, 0.8, 1.0)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Put glass before the images, `(N, H, W, C)` float32 in 0..255 units."""
        n, height, width, _ = images.shape
        sigma, most = 0.4 * scale_of(images), max(1, round(scale_of(images)))
        each = jnp.arange(n)[:, None, None]
        row, column = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
        images = blurred(images, sigma)
        for of_round in jax.random.split(key):
            of_place, of_choice = jax.random.split(of_round)
            down, right = jax.random.randint(of_place, (2, n, height, width), -most, most + 1)
            taken = jax.random.bernoulli(of_choice, amount, (n, height, width))
            rows = jnp.clip(row + jnp.where(taken, down, 0), 0, height - 1)
            columns = jnp.clip(column + jnp.where(taken, right, 0), 0, width - 1)
            images = images[each, rows, columns]
        return as_file(blurred(images, sigma))


@augmentation
@dataclass(frozen=True)
class RemadeMotionBlur(Corruption):
    """Moves the camera: a blur along a line that is at most 45 degrees from level.

    Its weights fall off on one side, with a standard deviation of 1, 1.5, 2, 2.25 or 2.5 pixels.
    The authors have 2 at severity 4, with a longer kernel whose end makes no difference.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (1.0, 1.5, 2.0, 2.25, 2.5)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Move the images, `(N, H, W, C)` float32 in 0..255 units."""
        scale = scale_of(images)
        quarter = math.pi / 4
        angle = jax.random.uniform(key, (len(images),), jnp.float32, -quarter, quarter)
        most = math.ceil(4 * self.amounts[-1] * scale) + 1
        return as_file(moved(images, angle, amount * scale, jnp.asarray(most, jnp.float32), most))


@augmentation
@dataclass(frozen=True)
class RemadeZoomBlur(Corruption):
    """Moves the camera forwards: the mean of the image and of it enlarged, in steps of 1%.

    The largest is 5, 10, 15, 20 or 25% larger.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (5.0, 10.0, 15.0, 20.0, 25.0)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Zoom the images, `(N, H, W, C)` float32 in 0..255 units; the key is not used."""
        steps = positions(int(self.amounts[-1]) + 1)

        def add(total: Array, step: Array) -> tuple[Array, None]:
            return total + jnp.where(step <= amount, zoomed(images, 1 + step / 100), 0), None

        total, _ = jax.lax.scan(add, images, steps)
        return as_file(total / (amount + 2))
