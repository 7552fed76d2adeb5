"""Draws which elements of a batch share statistics."""

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from normlab.reports.figures.style import COLOURS, FAINT, INK, Picture, label

APART, SHARED, CHOSEN = 0, 1, 2
PALE = "#e8eaee"


def draw(name: str, shared: np.ndarray, chosen: tuple[int, ...]) -> Figure:
    """Draw a batch as small images, a row for each example and a column for each channel.

    Args:
        name: the normaliser, for the title.
        shared: `(N, H, W, C)` booleans, the elements that move the chosen output.
        chosen: the index of that output.
    """
    examples, _, _, channels = shared.shape
    figure = Picture(figsize=(1.0 + 0.55 * channels, 1.3 + 0.55 * examples), layout="constrained")
    grid = figure.subplots(examples, channels, squeeze=False)
    values = np.where(shared, SHARED, APART)
    values[chosen] = CHOSEN
    colours = ListedColormap([PALE, COLOURS[5], COLOURS[1]])
    for (example, channel), axes in np.ndenumerate(grid):
        axes.imshow(values[example, :, :, channel], cmap=colours, vmin=APART, vmax=CHOSEN)
        axes.set_xticks(np.arange(-0.5, shared.shape[2]), [])
        axes.set_yticks(np.arange(-0.5, shared.shape[1]), [])
        axes.grid(True, color="#ffffff", linewidth=1.2)
        axes.tick_params(length=0)
        axes.spines[:].set_color(FAINT)
        if example == examples - 1:
            axes.set_xlabel(str(channel), fontsize=8, color=INK)
        if channel == 0:
            axes.set_ylabel(str(example), fontsize=8, color=INK)
    figure.supxlabel("channel", fontsize=9, color=INK)
    figure.supylabel("example", fontsize=9, color=INK)
    width = int(12 * figure.get_figwidth())
    title = f"{label(name, width)}\n{label(in_words(shared, chosen), width)}"
    figure.suptitle(title, fontsize=9, color=INK, x=0.01, ha="left")
    return figure


def in_words(shared: np.ndarray, chosen: tuple[int, ...]) -> str:
    """Say in words which elements share statistics with the chosen one.

    >>> shared = np.zeros((4, 3, 3, 8), bool)
    >>> shared[1, :, :, 2:4] = True
    >>> in_words(shared, (1, 1, 1, 2))
    '18 of 288 elements share statistics: example 1, all positions, channels 2 and 3'
    """
    count = int(shared.sum())
    if count == 1:
        return (
            "no other element shares statistics with the marked one: there are none, or they come "
            "from earlier batches"
        )
    places = [
        _of(np.flatnonzero(shared.any(axis=(1, 2, 3))), len(shared), "example"),
        "all positions" if shared.any(axis=(0, 3)).all() else (
            f"{int(shared.any(axis=(0, 3)).sum())} position"
            + ("s" if shared.any(axis=(0, 3)).sum() > 1 else "")),
        _of(np.flatnonzero(shared.any(axis=(0, 1, 2))), shared.shape[3], "channel"),
    ]  # fmt: skip
    return f"{count} of {shared.size} elements share statistics: {', '.join(places)}"


def _of(found: np.ndarray, total: int, word: str) -> str:
    if len(found) == total:
        return f"all {word}s"
    if len(found) == 1:
        return f"{word} {found[0]}"
    return f"{word}s {', '.join(map(str, found[:-1]))} and {found[-1]}"
