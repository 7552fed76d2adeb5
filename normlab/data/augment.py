"""Augmentations: pure functions of a key and a batch of images, for use inside a jitted step.

An augmentation is a frozen dataclass marked with `@augmentation`. It is called with a key and
images, `(N, H, W, C)` float32 in 0..255 units, and returns images of the same shape and dtype.
Every example has its own random draw and does not depend on the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.errors import (
    UserError,
    require_channels_last,
    require_field,
    require_whole,
)


class Augmentation(Protocol):
    """Anything that maps a key and images to images; `apply_all` takes a list of them."""

    def __call__(self, key: Array, images: Array) -> Array:
        """Return the images, `(N, H, W, C)` float32 in 0..255 units, changed at random."""
        ...


Described = TypeVar("Described", bound=type)


def augmentation(cls: Described) -> Described:
    """Mark a frozen dataclass as an augmentation of the catalogue."""
    cls.catalogue_kind = "augmentation"
    return cls


def apply_all(augmentations: Sequence[Augmentation], key: Array, images: Array) -> Array:
    """Apply the augmentations in turn, each with its own key.

    Args:
        augmentations: the augmentations, in the order in which they are applied.
        key: a JAX key for this batch; the same key gives the same images.
        images: `(N, H, W, C)` float32 in 0..255 units.

    >>> images = jnp.zeros((2, 8, 8, 3))
    >>> apply_all([Crop(padding=2), Flip()], jax.random.key(0), images).shape
    (2, 8, 8, 3)
    """
    for index, augment in enumerate(augmentations):
        images = augment(jax.random.fold_in(key, index), images)
    return images


def require_images(images: Array) -> None:
    """Raise `UserError` unless images are `(N, H, W, C)` of a floating dtype."""
    require_layout(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(
            "an augmentation that changes grey levels takes float32 images in 0..255 units, "
            f"got {images.dtype}: use images.astype(jnp.float32)"
        )


def require_layout(images: Array) -> None:
    """Raise `UserError` unless images are `(N, H, W, C)`, of any dtype."""
    if images.ndim != 4:
        raise UserError(
            f"an augmentation takes images of shape (N, H, W, C), got {images.dtype} of shape "
            f"{images.shape}"
        )
    require_channels_last("images", images.shape)


@augmentation
@dataclass(frozen=True)
class Flip:
    """Mirror an image left to right, half of the time."""

    def __call__(self, key: Array, images: Array) -> Array:
        """Mirror each of the images, `(N, H, W, C)` of any dtype, with probability 1/2."""
        require_layout(images)
        mirror = jax.random.bernoulli(key, shape=_one_each(images))
        return jnp.where(mirror, images[:, :, ::-1], images)


@augmentation
@dataclass(frozen=True)
class Crop:
    """Shift an image at random: pad it by reflection and crop it to its size again.

    This is the usual augmentation for CIFAR (He et al. 2016, section 4.2), with reflection instead
    of zeros, so that no black edge enters the statistics that this library compares.

    Attributes:
        padding: pixels added on each side, which is the greatest shift; less than the image's size.
    """

    padding: int = 4

    def __post_init__(self):
        require_whole("padding", self.padding, 1)

    def __call__(self, key: Array, images: Array) -> Array:
        """Shift each of the images, `(N, H, W, C)` of any dtype."""
        require_layout(images)
        n, height, width, channels = images.shape
        require_field(
            self.padding < min(height, width),
            "padding",
            self.padding,
            f"less than the images' height and width, here {height} and {width}",
        )
        pad = (self.padding, self.padding)
        padded = jnp.pad(images, ((0, 0), pad, pad, (0, 0)), mode="reflect")
        corners = jax.random.randint(key, (n, 2), 0, 2 * self.padding + 1)

        def cut(image: Array, corner: Array) -> Array:
            start = (corner[0], corner[1], 0)
            return jax.lax.dynamic_slice(image, start, (height, width, channels))

        return jax.vmap(cut)(padded, corners)


@augmentation
@dataclass(frozen=True)
class Cutout:
    """Cover a square at a random place (DeVries and Taylor 2017, arXiv:1708.04552).

    Attributes:
        size: the square's side in pixels. Its centre may be any pixel, so it may extend beyond the
            image.
        fill: the value of the covered pixels, 0..255.
    """

    size: int = 8
    fill: float = 127.5

    def __post_init__(self):
        require_whole("size", self.size, 1)
        require_field(0 <= self.fill <= 255, "fill", self.fill, "in 0..255")

    def __call__(self, key: Array, images: Array) -> Array:
        """Cover a square in each of the images, `(N, H, W, C)` float32 in 0..255 units."""
        require_images(images)
        n, height, width, _ = images.shape
        row_key, column_key = jax.random.split(key)
        rows = self._covered(row_key, n, height)
        columns = self._covered(column_key, n, width)
        covered = rows[:, :, None, None] & columns[:, None, :, None]
        return jnp.where(covered, jnp.asarray(self.fill, images.dtype), images)

    def _covered(self, key: Array, n: int, length: int) -> Array:
        """Mark the positions along one axis that the square covers: `(n, length)` booleans."""
        start = jax.random.randint(key, (n, 1), 0, length) - self.size // 2
        position = jnp.arange(length)[None, :]
        return (position >= start) & (position < start + self.size)


@augmentation
@dataclass(frozen=True)
class Brightness:
    """Multiply an image by a random factor.

    Attributes:
        amount: the factor is uniform in 1 - amount .. 1 + amount; in 0..1.
    """

    amount: float = 0.2

    def __post_init__(self):
        require_field(0 <= self.amount <= 1, "amount", self.amount, "in 0..1")

    def __call__(self, key: Array, images: Array) -> Array:
        """Scale each of the images, `(N, H, W, C)` float32 in 0..255 units, by its factor."""
        require_images(images)
        return jnp.clip(images * _factors(key, images, self.amount), 0.0, 255.0)


@augmentation
@dataclass(frozen=True)
class Contrast:
    """Scale an image's distance from its own mean by a random factor.

    Attributes:
        amount: the factor is uniform in 1 - amount .. 1 + amount; in 0..1.
    """

    amount: float = 0.2

    def __post_init__(self):
        require_field(0 <= self.amount <= 1, "amount", self.amount, "in 0..1")

    def __call__(self, key: Array, images: Array) -> Array:
        """Change the contrast of each of the images, `(N, H, W, C)` float32 in 0..255 units."""
        require_images(images)
        mean = images.mean(axis=(1, 2, 3), keepdims=True)
        factors = _factors(key, images, self.amount)
        return jnp.clip(mean + (images - mean) * factors, 0.0, 255.0)


def _one_each(images: Array) -> tuple[int, int, int, int]:
    return (images.shape[0], 1, 1, 1)


def _factors(key: Array, images: Array, amount: float) -> Array:
    return jax.random.uniform(
        key, _one_each(images), images.dtype, minval=1 - amount, maxval=1 + amount
    )


def standardised(images: Array, mean: Array, std: Array) -> Array:
    """Standardise images `(N, H, W, C)` in 0..255 units: `(image - mean) / std`, float32.

    Args:
        images: grey levels, of an integer or floating dtype.
        mean, std: `(C,)` float32, of the training images.

    >>> image = jnp.full((1, 1, 1, 1), 150, jnp.uint8)
    >>> standardised(image, jnp.array([100.0]), jnp.array([25.0])).item()
    2.0
    """
    channels = (1, 1, 1, -1)
    return (images.astype(jnp.float32) - mean.reshape(channels)) / std.reshape(channels)
