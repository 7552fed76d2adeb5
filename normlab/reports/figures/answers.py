"""Draws a network's answers: the confusion matrix, and the examples that it finds hardest."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from normlab.evidence.answers import HardExample, confusion
from normlab.reports.figures.style import INK, Picture, blank, plain
from normlab.store.outcomes import Outcomes

MOST_NUMBERS = 20
"""A matrix of more classes has no room for numbers in its cells."""


def draw_confusion(outcomes: Outcomes) -> Figure:
    """Draw how many examples of a class are taken for which; the shade is the share of the row."""
    table = confusion(outcomes)
    size = len(table)
    rows = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, rows, out=np.zeros(table.shape), where=rows > 0)
    figure, axes = blank(1.2 + 0.36 * min(size, 30))
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    if size <= MOST_NUMBERS:
        for i, j in np.ndindex(*table.shape):
            shade = "#000000" if shares[i, j] > 0.55 else "#ffffff"
            axes.text(j, i, str(table[i, j]), ha="center", va="center", fontsize=8, color=shade)
    every = 1 + (size - 1) // 40
    names = [plain(name) for name in outcomes.classes][::every]
    axes.set_xticks(range(0, size, every), names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(0, size, every), names, fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.grid(False)
    return figure


def draw_examples(examples: Sequence[HardExample], images: np.ndarray) -> Figure:
    """Draw examples with their class, what they are taken for, and the probability of their class.

    Args:
        examples: the examples, the hardest first.
        images: the test set's, `(N, H, W, C)` in 0..255.
    """
    across = min(4, max(1, len(examples)))
    down = max(1, math.ceil(len(examples) / across))
    figure = Picture(figsize=(1.65 * across, 2.0 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, one in zip(grid, examples, strict=False):
        axes.imshow(_as_rgb(images[one.index]))
        title = f"{plain(one.true)} {one.probability:.2f}\nas {plain(one.taken_for)}"
        if one.name:
            title = f"{plain(_ending(one.name))}\n{title}"
        axes.set_title(title, fontsize=8, color=INK)
    return figure


def _ending(name: str, longest: int = 22) -> str:
    """Return the end of a file's name, which tells it from those beside it."""
    return name if len(name) <= longest else f"...{name[-longest + 3 :]}"


def thumbnail(image: np.ndarray) -> str:
    """Return an image `(H, W, C)` in 0..255 as the address of a PNG that holds it whole."""
    file = io.BytesIO()
    Image.fromarray(_as_rgb(image)).save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """Return an image of three channels; of one, or more than colours have, the first is grey."""
    image = np.asarray(image)
    if image.shape[-1] != 3:
        image = np.repeat(image[..., :1], 3, axis=-1)
    return image.astype(np.uint8)
