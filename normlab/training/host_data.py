"""Feeds a data set that is too large for the device's memory to it, batch by batch.

Such a set stays where it is, in the host's memory or mapped from its disk. For every step the
examples of one batch are copied to the device, in the same order as from a set in its memory. The
same compiled step trains on them, so the numbers are the same. The next batch is gathered while
the device still computes. A library such as Grain is not needed, because pictures were decoded
before: a batch is only looked up in an array. The limit is `$NORMLAB_DATA_MEMORY`, such as `2GB`;
by default it is half of the memory of an accelerator, or a quarter of the computer's, or of what a
container may have of it.
"""

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from normlab.core import Array
from normlab.data.augment import standardised
from normlab.data.dataset import Dataset, Split
from normlab.errors import UserError
from normlab.training.mesh import Spread
from normlab.training.room import memory
from normlab.training.state import DeviceData, DeviceSplit

VARIABLE = "NORMLAB_DATA_MEMORY"
SMALL = 8 * 10**9
"""Bytes of memory that are assumed where nothing tells."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True, eq=False)
class HostData:
    """A dataset on the host, with the attributes of a `DeviceData`.

    Attributes:
        data: the dataset.
        spread: the devices that each batch is cut over; None for one.
    """

    data: Dataset
    spread: Spread | None = None

    def on(self, spread: Spread | None) -> "HostData":
        """Return the dataset for several devices."""
        return replace(self, spread=spread)

    @property
    def train(self) -> Split:
        """The training split."""
        return self.data.train

    @property
    def test(self) -> Split:
        """The test split."""
        return self.data.test

    @property
    def validation(self) -> Split | None:
        """The validation split, or None."""
        return self.data.validation

    @cached_property
    def _statistics(self) -> tuple[Array, Array]:
        found: Any = self.data.channel_statistics()
        return jax.tree.map(jnp.asarray, found) if self.spread is None else self.spread.put(found)

    @property
    def mean(self) -> Array:
        """The training images' mean, in 0..255 units."""
        return self._statistics[0]

    @property
    def std(self) -> Array:
        """The training images' standard deviation, in 0..255 units."""
        return self._statistics[1]

    def standardised(self, images: Array) -> Array:
        """Standardise images `(N, H, W, C)` in 0..255 units; the result is float32."""
        return standardised(images, self.mean, self.std)

    def batch(self, part: str, index: np.ndarray) -> DeviceData:
        """Copy the examples at `index` to the device, as a dataset of nothing else.

        Of several devices, each gets its part of them. A process reads those of its own devices.

        Args:
            part: "train", "test" or "validation".
            index: `(B,)` whole numbers.
        """
        split = DeviceSplit(*(self._taken(array, index) for array in getattr(self.data, part)))
        parts = dict.fromkeys(("train", "test", "validation"))
        # A part that is None has no arrays, and no compiled function asks for it.
        return DeviceData(**{**parts, part: split}, mean=self.mean, std=self.std)  # type: ignore[arg-type]

    def _taken(self, array: np.ndarray, index: np.ndarray) -> Array:
        if self.spread is None:
            return jnp.asarray(array[index])

        def read(where: Any) -> np.ndarray:
            return array[index[where[0]]]

        shape = (len(index), *array.shape[1:])
        return jax.make_array_from_callback(shape, self.spread.by_example, read)


def first_examples(data: DeviceData | HostData, count: int) -> tuple[Array, Array]:
    """Return the first training images, standardised but not augmented, and their labels."""
    images, labels = on_every_device(data, "train", count)
    return data.standardised(images), labels


def on_every_device(
    data: DeviceData | HostData, part: str, count: int | None = None
) -> tuple[Array, Array]:
    """Return the first images and labels of a part, or all, whole on each device of the data."""
    arrays = tuple(array[:count] for array in getattr(data, part))
    spread = data.spread if isinstance(data, HostData) else None
    images, labels = map(jnp.asarray, arrays) if spread is None else spread.put(arrays)
    return images, labels


def placed(data: Dataset, spread: Spread | None = None) -> DeviceData | HostData:
    """Copy a dataset to the device if it fits the limit, and leave it on the host otherwise.

    Several devices get a copy each.

    Raises:
        UserError: the limit in the environment is no size.
    """
    copies = 1
    if spread is not None and jax.local_devices()[0].platform == "cpu":
        copies = len(spread.mesh.local_devices)  # in the memory of one computer
    return DeviceData.put(data, spread) if fits(data, copies) else HostData(data, spread)


def fits(data: Dataset, copies: int = 1) -> bool:
    """Return whether a dataset is copied to the device as a whole.

    Raises:
        UserError: the limit in the environment is no size.
    """
    splits = (data.train, data.test, data.validation)
    size = sum(split.images.nbytes for split in splits if split is not None)
    return copies * size <= most_bytes()


def most_bytes() -> int:
    """Return the size up to which a dataset is copied to the device.

    Raises:
        UserError: the limit in the environment is no size.
    """
    if given := os.environ.get(VARIABLE):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)i?b?", given.strip().lower())
        if match is None:
            raise UserError(f"{VARIABLE} must be a size such as 500MB or 2GB, got {given!r}")
        return int(float(match[1]) * UNITS[match[2]])
    on_processor = jax.local_devices()[0].platform == "cpu"
    return (memory() or SMALL) // (4 if on_processor else 2)
