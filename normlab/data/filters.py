"""Filters of images as matrices and samples, for corruptions: blur, zoom, motion, smooth fields.

Images are `(N, H, W, C)`. Every filter leaves a constant image as it is and takes any size from one
pixel on. Amounts may be traced, so one program serves all severities. Images are float32.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from normlab.core import Array

USUAL = 32
"""The height of the images for which lengths in pixels are given."""


def scale_of(images: Array) -> float:
    """Return by how much lengths in pixels grow from 32x32 images to these."""
    return min(images.shape[1:3]) / USUAL


def positions(count: int) -> Array:
    """Return 0, 1, 2, ... as float32, `(count,)`."""
    return jnp.arange(count, dtype=jnp.float32)


def by_matrices(rows: Array, images: Array, columns: Array) -> Array:
    """Multiply each channel from the left by `rows`, `(H', H)`, and from the right by `columns`.

    >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> by_matrices(jnp.full((1, 2), 0.5), x, jnp.full((1, 2), 0.5)).tolist()
    [[[[1.5]]]]
    """
    return jnp.einsum("ih,nhwc,jw->nijc", rows, images, columns, precision="highest")


def gaussian_matrix(length: int, sigma: Array | float) -> Array:
    """Return the matrix of a Gaussian blur, `(length, length)`; each row sums to 1, at edges too.

    Args:
        length: the number of pixels.
        sigma: the standard deviation in pixels; 0 for no blur.
    """
    distance = positions(length)[:, None] - positions(length)[None, :]
    weights = jnp.exp(-(distance**2) / (2 * jnp.maximum(sigma, 1e-3) ** 2))
    return weights / weights.sum(axis=1, keepdims=True)


def blurred(images: Array, sigma: Array | float) -> Array:
    """Blur by a Gaussian of a standard deviation in pixels."""
    height, width = images.shape[1:3]
    return by_matrices(gaussian_matrix(height, sigma), images, gaussian_matrix(width, sigma))


def linear_matrix(places: Array, length: int) -> Array:
    """Return the matrix of linear interpolation at `places`, `(P,)`; beyond the edge is the edge.

    >>> linear_matrix(jnp.array([0.25, 5.0]), 2).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    places = jnp.clip(places, 0, length - 1)
    return jnp.maximum(0, 1 - jnp.abs(places[:, None] - positions(length)[None, :]))


def zoomed(images: Array, factor: Array | float) -> Array:
    """Enlarge the middle of the images by a factor of at least 1, at the same size."""

    def matrix(length: int) -> Array:
        middle = (length - 1) / 2
        return linear_matrix(middle + (positions(length) - middle) / factor, length)

    height, width = images.shape[1:3]
    return by_matrices(matrix(height), images, matrix(width))


def sampled(images: Array, rows: Array, columns: Array, mode: str = "nearest") -> Array:
    """Sample each image at its own places, `(N, H, W)`, by linear interpolation."""

    def channel(image: Array, row: Array, column: Array) -> Array:
        return map_coordinates(image, [row, column], order=1, mode=mode)

    of_image = jax.vmap(channel, in_axes=(-1, None, None), out_axes=-1)
    return jax.vmap(of_image)(images, rows, columns)


def moved(images: Array, angle: Array, sigma: Array, length: Array, most: int) -> Array:
    """Blur along a line: the mean of images shifted along it, with the weights of half a Gaussian.

    Args:
        images: the images.
        angle: `(N,)`, in radians, from the right upwards.
        sigma: the Gaussian's standard deviation in pixels.
        length: the number of shifted images that count.
        most: the greatest length, which the program is compiled for.
    """
    height, width = images.shape[1:3]
    row = positions(height)[None, :, None]
    column = positions(width)[None, None, :]
    across, up = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    steps = positions(most)
    weights = jnp.where(steps < length, jnp.exp(-(steps**2) / (2 * sigma**2)), 0)
    weights = weights / weights.sum()

    def add(total: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        distance, weight = step
        rows = jnp.broadcast_to(row - distance * up, (len(images), height, width))
        columns = jnp.broadcast_to(column + distance * across, (len(images), height, width))
        return total + weight * sampled(images, rows, columns), None

    return jax.lax.scan(add, jnp.zeros_like(images), (steps, weights))[0]


def fractal(key: Array, images: Array, decay: Array | float) -> Array:
    """Make a fractal field from 0 to 1 for each image, `(N, H, W, 1)`.

    It is a sum of noises on grids of 1, 2, 4, ... places, each interpolated linearly, whose sizes
    fall off by `decay` squared from grid to grid. A constant field is 0.

    Args:
        key: a JAX key.
        images: the images, for their number and size.
        decay: the greater, the smoother.
    """
    n, height, width, _ = images.shape
    field, size, places, longest = jnp.zeros((n, height, width, 1)), 1.0, 2, max(height, width)
    while True:
        key, own = jax.random.split(key)
        noise = jax.random.uniform(own, (n, places, places, 1), minval=-1, maxval=1)
        rows, columns = (
            linear_matrix(positions(length) * (places - 1) / max(longest - 1, 1), places)
            for length in (height, width)
        )
        field = field + size * by_matrices(rows, noise, columns)
        if places >= longest:
            break
        size, places = size / decay**2, min(2 * places, longest)
    low = field.min(axis=(1, 2), keepdims=True)
    span = field.max(axis=(1, 2), keepdims=True) - low
    return (field - low) / jnp.where(span > 0, span, 1)
