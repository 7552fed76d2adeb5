"""Augmentations: pure functions of a key and a batch of images, for use inside a jitted step.

An augmentation is a frozen dataclass marked with `@augmentation`. Calling it with a key and images,
`(N, H, W, C)` float32 in 0..255 units, returns images of the same shape and dtype. Every example is
changed by its own draw and sees no other example.
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
    """What `apply_all` takes: anything that maps a key and images to images."""

    def __call__(self, key: Array, images: Array) -> Array:
        """The images, `(N, H, W, C)` float32 in 0..255 units, changed at random."""
        ...


Described = TypeVar("Described", bound=type)


def augmentation(cls: Described) -> Described:
    """Mark a frozen dataclass as an augmentation of the catalogue."""
    cls.catalogue_kind = "augmentation"
    return cls


def apply_all(augmentations: Sequence[Augmentation], key: Array, images: Array) -> Array:
    """Apply every augmentation in turn, each with a key of its own.

    Args:
        augmentations: in the order in which they are applied.
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
    """Raise `UserError` unless images are float32 of shape `(N, H, W, C)`, or another float."""
    require_layout(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(
            "an augmentation that reckons with grey levels takes float32 images in 0..255 units, "
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
        """The images, `(N, H, W, C)` of any dtype, each mirrored or not."""
        require_layout(images)
        mirror = jax.random.bernoulli(key, shape=_one_each(images))
        return jnp.where(mirror, images[:, :, ::-1], images)


@augmentation
@dataclass(frozen=True)
class Crop:
    """Shift an image at random: pad it by reflection and cut its own size out again.

    Attributes:
        padding: pixels on each side, so the greatest shift; less than the image's size.

    The usual augmentation of CIFAR (He et al. 2016, section 4.2), with reflection instead of zeros,
    so that no black edge enters the statistics that this library compares.
    """

    padding: int = 4

    def __post_init__(self):
        require_whole("padding", self.padding, 1)

    def __call__(self, key: Array, images: Array) -> Array:
        """The images, `(N, H, W, C)` of any dtype, each shifted."""
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
        size: the square's side in pixels. Its centre is any pixel, so it may stick out.
        fill: the value it is covered with, 0..255.
    """

    size: int = 8
    fill: float = 127.5

    def __post_init__(self):
        require_whole("size", self.size, 1)
        require_field(0 <= self.fill <= 255, "fill", self.fill, "in 0..255")

    def __call__(self, key: Array, images: Array) -> Array:
        """The images, `(N, H, W, C)` float32 in 0..255 units, each with its square."""
        require_images(images)
        n, height, width, _ = images.shape
        row_key, column_key = jax.random.split(key)
        rows = self._covered(row_key, n, height)
        columns = self._covered(column_key, n, width)
        covered = rows[:, :, None, None] & columns[:, None, :, None]
        return jnp.where(covered, jnp.asarray(self.fill, images.dtype), images)

    def _covered(self, key: Array, n: int, length: int) -> Array:
        """Which positions along one axis the square covers: `(n, length)` booleans."""
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
        """The images, `(N, H, W, C)` float32 in 0..255 units, each times its factor."""
        require_images(images)
        return jnp.clip(images * _factors(key, images, self.amount), 0.0, 255.0)


@augmentation
@dataclass(frozen=True)
class Contrast:
    """Move an image away from its own mean, or towards it, by a random factor.

    Attributes:
        amount: the factor is uniform in 1 - amount .. 1 + amount; in 0..1.
    """

    amount: float = 0.2

    def __post_init__(self):
        require_field(0 <= self.amount <= 1, "amount", self.amount, "in 0..1")

    def __call__(self, key: Array, images: Array) -> Array:
        """The images, `(N, H, W, C)` float32 in 0..255 units, each spread or drawn together."""
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
    """Images `(N, H, W, C)` in 0..255 units as a model takes them: float32, `(image - mean) / std`.

    Args:
        images: whole or float grey levels.
        mean, std: `(C,)` float32, of the training images.

    >>> image = jnp.full((1, 1, 1, 1), 150, jnp.uint8)
    >>> standardised(image, jnp.array([100.0]), jnp.array([25.0])).item()
    2.0
    """
    channels = (1, 1, 1, -1)
    return (images.astype(jnp.float32) - mean.reshape(channels)) / std.reshape(channels)
