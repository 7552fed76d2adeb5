"""Remakes contrast, elastic, pixelate and JPEG of Hendrycks and Dietterich 2019 (arXiv:1903.12261).

The amounts are those that the authors chose for 32x32 images (github.com/hendrycks/robustness),
except where a docstring says otherwise; lengths grow with the image. The code is this library's, so
a picture is not one of the published CIFAR-10-C.
"""

import io
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from normlab.core import Array
from normlab.data.augment import augmentation
from normlab.data.corruptions import Corruption, as_file
from normlab.data.filters import blurred, by_matrices, positions, sampled
from normlab.errors import UserError


@augmentation
@dataclass(frozen=True)
class RemadeContrast(Corruption):
    """Draws each channel towards its mean: 0.75, 0.5, 0.4, 0.3 or 0.15 of the distance is left.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.75, 0.5, 0.4, 0.3, 0.15)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Flatten the images, `(N, H, W, C)` float32 in 0..255 units; the key is not used."""
        mean = images.mean(axis=(1, 2), keepdims=True)
        return as_file(mean + amount * (images - mean))


@augmentation
@dataclass(frozen=True)
class RemadeElasticTransform(Corruption):
    """Stretches the image: a random affine map, then a smooth random displacement.

    In parts of the height, the corners of the map move by at most 0.02, 0.04, 0.06, 0.08 or 0.1.
    The displacement is uniform noise, blurred by a Gaussian of 0.06, 0.06, 0.05, 0.04 or 0.03,
    times 0.02, 0.04, 0.06, 0.08 or 0.1. The authors let the affine part shrink as the other grows,
    so that theirs does not move further with each severity; these do.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[tuple[float, ...], ...]] = (
        (0.02, 0.06, 0.02), (0.04, 0.06, 0.04), (0.06, 0.05, 0.06), (0.08, 0.04, 0.08),
        (0.1, 0.03, 0.1),
    )  # fmt: skip

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Stretch the images, `(N, H, W, C)` float32 in 0..255 units."""
        n, height, width, _ = images.shape
        size = min(height, width)
        strength, sigma, corners = amount * size
        of_map, of_field = jax.random.split(key)
        row = positions(height)[None, :, None] - (height - 1) / 2
        column = positions(width)[None, None, :] - (width - 1) / 2
        # Three corners of a square that is a third of the image to each side move at random.
        side = max(size // 3, 1)
        shift = jax.random.uniform(of_map, (n, 3, 2), images.dtype, -1, 1) * corners
        first, second, third = (shift[:, i, :, None, None] for i in range(3))
        down, along = (first - second) / (2 * side), (second - third) / (2 * side)
        middle = (first + third) / 2
        affine = middle + row[:, None] * along + column[:, None] * down
        field = jax.random.uniform(of_field, (n, height, width, 2), images.dtype, -1, 1)
        moves = affine + strength * jnp.moveaxis(blurred(field, sigma), -1, 1)
        rows = row + (height - 1) / 2 + moves[:, 0]
        columns = column + (width - 1) / 2 + moves[:, 1]
        return as_file(sampled(images, rows, columns, mode="reflect"))


@augmentation
@dataclass(frozen=True)
class RemadePixelate(Corruption):
    """Makes pixels larger: the image is reduced to 0.95, 0.9, 0.85, 0.75 or 0.65 of its size.

    It is enlarged again by repeating pixels. A large pixel is the mean of those whose middle is in
    it, as Pillow's boxes are.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (0.95, 0.9, 0.85, 0.75, 0.65)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Pixelate the images, `(N, H, W, C)` float32 in 0..255 units; the key is not used."""
        rows, columns = (_reduced_and_back(length, amount) for length in images.shape[1:3])
        return as_file(by_matrices(rows, images, columns))


def _reduced_and_back(length: int, share: Array) -> Array:
    """Return the matrix of means to fewer pixels, which are then repeated, `(length, length)`."""
    few = jnp.maximum(jnp.floor(length * share + 1e-4), 1)
    width = length / few  # of a large pixel, in small ones
    large, small = positions(length)[:, None], positions(length)[None, :] + 0.5
    place = small / width - (large + 0.5)  # of a small pixel's middle within a large one
    inside = (place > -0.4999) & (place <= 0.5001) & (large < few)  # ties, whatever the rounding
    inside, owner = (
        found.astype(jnp.float32) for found in (inside, jnp.floor(small / width + 1e-4) == large)
    )
    return owner.T @ (inside / jnp.maximum(inside.sum(axis=1, keepdims=True), 1))


@augmentation
@dataclass(frozen=True)
class RemadeJpeg(Corruption):
    """Compresses the image as JPEG does, at a quality of 80, 65, 58, 50 or 40 (by Pillow).

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[float, ...]] = (80.0, 65.0, 58.0, 50.0, 40.0)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Compress the images, `(N, H, W, C)` float32 in 0..255 units; the key is not used."""
        if images.shape[-1] not in (1, 3):
            raise UserError(
                f"remade_jpeg needs grey or colour images, and these have {images.shape[-1]} "
                "channels: leave it out"
            )
        shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
        return jax.pure_callback(
            _compressed, shape, as_file(images), amount, vmap_method="sequential"
        )


def _compressed(given: Array, quality: Array) -> np.ndarray:
    images = np.asarray(given)
    found = np.empty_like(images)
    for index, image in enumerate(images.astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            file, "JPEG", quality=int(quality)
        )
        found[index] = np.asarray(Image.open(file)).reshape(image.shape)
    return found
