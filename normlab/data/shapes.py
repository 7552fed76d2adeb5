"""Draws a dataset: ten classes of figures in widely varied light, with nothing to download.

The figures are easy to tell apart in even light. But every image has its own gain, contrast, colour
cast and shading, so the scale of a network's input differs from image to image, which is where
normalisation matters. A small network learns the set in a few epochs.

Only sums, products, quotients and square roots are computed (no sines, no exponentials). IEEE 754
defines their rounding, so the images are the same on every machine.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normlab.data.dataset import Dataset, Outline, Split, dataset
from normlab.errors import require_whole

CLASSES = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "cross",
    "horizontal_stripes",
    "vertical_stripes",
    "diagonal_stripes",
    "checkerboard",
)
TEXTURES = CLASSES[6:]
DIAGONAL = math.sqrt(2) - 1  # the tangent of half of 45 degrees
SQRT3 = math.sqrt(3)
CHUNK = 512  # images drawn at a time, so that the work stays in the processor's cache


@dataset(
    licence="the same as normlab's",
    citation="none",
    how_to_get="nothing to get: normlab draws it",
)
@dataclass(frozen=True)
class Shapes:
    """Ten classes of shapes and textures, drawn by normlab itself in varied light.

    The classes are balanced (label i % 10), and a larger set begins with the smaller one.

    Attributes:
        train_examples: number of training images, at least 10.
        test_examples: number of test images, at least 10.
        size: height and width in pixels, 8..64.
        seed: chooses other images of the same kind.

    >>> Shapes(train_examples=20, test_examples=10).load().classes[:3]
    ('disc', 'ring', 'square')
    """

    train_examples: int = 2000
    test_examples: int = 1000
    size: int = 16
    seed: int = 0

    def __post_init__(self):
        for field in ("train_examples", "test_examples"):
            require_whole(field, getattr(self, field), len(CLASSES))
        require_whole("size", self.size, 8, 64)
        require_whole("seed", self.seed, 0)

    def outline(self) -> Outline:
        """Return the sizes of what `load` returns."""
        shape = (self.size, self.size, 3)
        return Outline(shape, len(CLASSES), self.train_examples, self.test_examples)

    def load(self, root: Path | None = None) -> Dataset:
        """Draw the images. Nothing is read; `root` exists because every dataset takes it."""
        return Dataset("shapes", self._split(0), self._split(1), CLASSES, source="drawn by normlab")

    def _split(self, part: int) -> Split:
        n = (self.train_examples, self.test_examples)[part]
        scenes = np.random.default_rng([self.seed, part, 0])
        noise = np.random.default_rng([self.seed, part, 1])
        labels = np.arange(n, dtype=np.int32) % len(CLASSES)
        images = np.empty((n, self.size, self.size, 3), np.uint8)
        for start in range(0, n, CHUNK):
            chunk = slice(start, start + CHUNK)
            images[chunk] = _draw(labels[chunk], self.size, scenes, noise)
        return Split(images, labels)


def _draw(
    labels: np.ndarray, size: int, scenes: np.random.Generator, noise: np.random.Generator
) -> np.ndarray:
    """Draw one image for each label: `(N, size, size, 3)` uint8."""
    n = len(labels)
    draws = scenes.random((n, 20), dtype=np.float32)
    place, colours, light = draws[:, :6], draws[:, 6:12], draws[:, 12:]
    # Pixel centres, -1..1 from edge to edge.
    grid = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
    coverage = np.empty((n, size, size, 1), np.float32)
    for label, name in enumerate(CLASSES):
        here = labels == label
        coverage[here, :, :, 0] = _coverage(name, place[here], grid)
    image = _light(_paint(coverage, colours), light, grid)
    # The sum of two uniform draws is triangular, close to a normal of deviation 0.06 / sqrt(6).
    grain = noise.random((n, 2, size, size, 3), dtype=np.float32).sum(axis=1) - 1
    return np.rint(255 * np.clip(image + 0.06 * grain, 0, 1)).astype(np.uint8)


def _coverage(name: str, place: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Compute the share of every pixel that the figure covers, 0..1, with edges one pixel soft.

    Args:
        name: the class.
        place: `(n, 6)` draws in 0..1 for position, scale, angle, side and phase.
        grid: `(size,)` pixel centres.

    Returns:
        `(n, size, size)` float32.
    """
    x0, y0, scale, turn, side, phase = (column[:, None, None] for column in place.T)
    texture = name in TEXTURES
    # t is the tangent of half the angle. Textures turn less, as their direction is their class.
    t = (0.24 * turn - 0.12) if texture else (turn - 0.5)
    if name == "diagonal_stripes":
        t = t + np.where(side < 0.5, DIAGONAL, -DIAGONAL)
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    unit = (0.45 + 0.45 * scale) if texture else (0.45 + 0.35 * scale)
    x, y = grid[None, None, :] - 0.6 * (x0 - 0.5), grid[None, :, None] - 0.6 * (y0 - 0.5)
    u, v = (x * cos + y * sin) / unit, (y * cos - x * sin) / unit
    distance = _texture(name, u + side, v + phase) if texture else _figure(name, u, v)
    return np.clip(0.5 - distance * unit * (len(grid) / 2), 0, 1)


def _figure(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Compute the signed distance from a figure's edge, negative inside, roughly Euclidean."""
    radius, side = np.sqrt(u * u + v * v), np.maximum(abs(u), abs(v))
    match name:
        case "disc":
            return radius - 0.95
        case "ring":
            return abs(radius - 0.75) - 0.22
        case "square":
            return side - 0.8
        case "frame":
            return abs(side - 0.65) - 0.2
        case "triangle":
            return np.maximum(-v, (abs(u) * SQRT3 + v) / 2) - 0.55
        case _:  # cross
            return np.maximum(side - 0.95, np.minimum(abs(u), abs(v)) - 0.28)


def _texture(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Compute the signed distance from a texture's edges, in periods, negative inside."""
    across, down = (abs(w - np.floor(w) - 0.5) - 0.25 for w in (u, v))
    match name:
        case "vertical_stripes" | "diagonal_stripes":
            return across
        case "horizontal_stripes":
            return down
        case _:  # checkerboard: inside one set of stripes but not both
            return np.maximum(np.minimum(across, down), -np.maximum(across, down))


def _paint(coverage: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Paint the figure on its ground; the figure is lighter than the ground in every channel."""
    ground = 0.45 * colours[:, None, None, :3]
    return ground + coverage * (0.2 + 0.35 * colours[:, None, None, 3:])


def _light(image: np.ndarray, draws: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Light each image differently: `(n, size, size, 3)`, no longer confined to 0..1.

    Args:
        image: `(n, size, size, 3)` float32, 0..1.
        draws: `(n, 8)` in 0..1: contrast, gain, three for the cast, two slopes, haze.
        grid: `(size,)` pixel centres.
    """
    contrast, gain, *_, slope_x, slope_y, haze = (d[:, None, None, None] for d in draws.T)
    cast = 0.6 + 0.8 * draws[:, None, None, 2:5]
    across, down = grid[None, None, :, None], grid[None, :, None, None]
    shade = 1 + 0.8 * ((slope_x - 0.5) * across + (slope_y - 0.5) * down)
    level = (0.3 + 1.2 * gain * gain) * cast * shade
    return level * (haze + (0.3 + 0.7 * contrast) * (image - haze))
