"""Defines what a corruption is: an augmentation with five severities.

A network can be trained with a corruption (`augment: [{name: fog, severity: 2}]`), looked at under
it (the probe `under_corruption`), and judged on a stream of corrupted test images (`evaluate`).
`normlab.data.light` has five of this library's own. The `remade_...` files have the fifteen of
Hendrycks and Dietterich 2019 (arXiv:1903.12261), remade by this library's own code from the paper's
definitions. A picture made here is not one of the published CIFAR-10-C, and results on both must
not be compared; the names say so. The data set `cifar10_c` reads the published files.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from normlab.catalogue import AUGMENTATIONS
from normlab.core import Array
from normlab.data.augment import require_images
from normlab.errors import FieldError, UserError, require_whole

FIFTEEN = (
    *("remade_gaussian_noise", "remade_shot_noise", "remade_impulse_noise"),
    *("remade_defocus_blur", "remade_glass_blur", "remade_motion_blur", "remade_zoom_blur"),
    *("remade_snow", "remade_frost", "remade_fog", "remade_brightness"),
    *("remade_contrast", "remade_elastic_transform", "remade_pixelate", "remade_jpeg"),
)
"""The names of the fifteen corruptions of the paper, in the order of its tables."""


@dataclass(frozen=True)
class Corruption:
    """Base class of the corruptions: five severities, each with its amount of corruption.

    A new corruption inherits from it, defines `amounts` and `corrupt`, and is marked
    `@augmentation`.

    Attributes:
        severity: 1..5.
    """

    amounts: ClassVar[tuple[Any, ...]]
    """A number for each severity, or a tuple of numbers."""

    severity: int = 3

    def __post_init__(self) -> None:
        require_whole("severity", self.severity, 1, len(self.amounts))

    def __call__(self, key: Array, images: Array) -> Array:
        """Corrupt the images, `(N, H, W, C)` float32 in 0..255 units, at this severity."""
        require_images(images)
        amount = jnp.asarray(self.amounts[self.severity - 1], images.dtype)
        return self.corrupt(key, images, amount)

    def corrupt(self, key: Array, images: Array, amount: Array) -> Array:
        """Corrupt the images by any amount, in whole grey levels; the severity is not used.

        The amount is a number, or a vector where `amounts` has tuples.
        """
        raise NotImplementedError


def corruption(name: str, severity: int = 3) -> Corruption:
    """Make the corruption of a name.

    Raises:
        FieldError: there is none, or it has no such severity.

    >>> corruption("fog", 2)
    Fog(severity=2)
    """
    try:
        loaded = AUGMENTATIONS.load(name)
    except UserError as error:
        raise FieldError("corruptions", f"corruptions: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Corruption)):
        raise FieldError(
            "corruptions",
            f"corruptions: '{name}' has no severities; it must be a class that inherits from "
            "normlab.data.corruptions.Corruption",
        )
    return loaded(severity)


def as_file(images: Array) -> Array:
    """Round images in 0..255 units to whole grey levels, as in an image file."""
    return jnp.round(jnp.clip(images, 0, 255))
