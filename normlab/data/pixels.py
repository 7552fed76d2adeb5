"""Reads images from arrays in the forms that people have them, as `(N, H, W, C)` uint8.

Values are 0..255, or 0..1 in floats and bools, or 0..65535 in uint16. Channels are last, first if
that is the only sense of the shape, or absent for grey. A fourth channel is transparency, laid over
white. Arrays that may mean two things are refused with a question.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from normlab.errors import UserError

CHUNK = 4096
"""Images that are converted at a time, so that no second copy of all of them is made in floats."""


def read_pixels(where: str, given: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Convert the images of all parts of a data set together.

    Args:
        where: the beginning of error messages.
        given: by part, images of shape `(N, H, W, C)`, `(N, C, H, W)` or `(N, H, W)`.

    Returns:
        `(N, H, W, C)` uint8 by part, and what was done, in words.

    Raises:
        UserError: the shape or the values could mean several things or nothing.

    >>> images, done = read_pixels("x", {"train": np.ones((2, 3, 8, 8))})
    >>> images["train"].shape, images["train"].max().item(), done
    ((2, 8, 8, 3), 255, ['channels moved last', '0..1 scaled to 0..255'])
    """
    arrays = {part: _array(f"{where}: {part}", images) for part, images in given.items()}
    done: list[str] = []
    shapes = {part: _laid_out(f"{where}: {part}", array, done) for part, array in arrays.items()}
    convert = _scale(where, shapes, done)
    return {part: _converted(array, convert, done) for part, array in shapes.items()}, done


def outline_of(where: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the `(H, W, C)` that `read_pixels` makes of images of a shape.

    >>> outline_of("x", (100, 28, 28))
    (28, 28, 1)
    """
    images = _laid_out(where, np.broadcast_to(np.uint8(0), shape), [])
    height, width, channels = images.shape[1:]
    return height, width, 3 if channels == 4 else channels


def _array(where: str, images: Any) -> np.ndarray:
    try:
        array = np.asarray(images)
    except Exception as error:  # other libraries' arrays raise their own; so do ragged lists
        raise UserError(
            f"{where} images are no array: {str(error).splitlines()[0]}. Images of several sizes "
            "must be resized first; Dataset.from_folder does that with files"
        ) from error
    if array.dtype.kind == "O":
        raise UserError(
            f"{where} images are Python's objects of shape {array.shape}, not numbers; images of "
            "several sizes must be resized first: Dataset.from_folder does that with files"
        )
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where} images must be numbers, found {array.dtype}")
    if array.size == 0:
        raise UserError(f"{where} has no images: its shape is {array.shape}")
    return array


def _laid_out(where: str, array: np.ndarray, done: list[str]) -> np.ndarray:
    """Return the images with their channels last, as a view."""
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[0] != array.shape[1]:
        _ask_single(where, array)
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 2:
        raise UserError(f"{where} {_flat_hint(array.shape)}")
    if array.ndim != 4:
        raise UserError(f"{where} images must be (N, H, W, C) or (N, H, W), found {array.shape}")
    _, first, height, last = array.shape
    if last in (1, 3, 4):
        return array
    if first in (1, 3, 4):
        _note(done, "channels moved last")
        return np.moveaxis(array, 1, -1)
    if height == last != first:
        raise UserError(
            f"{where} images have the shape {array.shape}: are these {first} channels first? Then "
            f"give np.moveaxis(x, 1, -1). Or are they {first} high and {height} wide, of {last} "
            "channels? normlab takes 1, 3 or 4 without asking; make such a set by "
            "normlab.data.Dataset"
        )
    return array


def _ask_single(where: str, array: np.ndarray) -> None:
    raise UserError(
        f"{where} images have the shape {array.shape}: is this one colour image? Then give "
        "x[None]. Grey images are (N, H, W)"
    )


def _flat_hint(shape: tuple[int, ...]) -> str:
    for channels, kind in ((1, "grey"), (3, "colour")):
        side = round((shape[1] / channels) ** 0.5)
        if side * side * channels == shape[1]:
            form = f"x.reshape(-1, {side}, {side}{', 3' if channels == 3 else ''})"
            planes = f", or x.reshape(-1, 3, {side}, {side}) if the colours are one after the other"
            return (
                f"images have the shape {shape}: are these flattened {kind} images of "
                f"{side}x{side}? Then give {form}{planes if channels == 3 else ''}"
            )
    return f"images have the shape {shape}: give (N, H, W, C), not flattened ones"


def _scale(
    where: str, arrays: dict[str, np.ndarray], done: list[str]
) -> Callable[[np.ndarray], np.ndarray]:
    """Find the meaning of the values of all parts, and return the conversion to uint8."""
    kinds = {array.dtype.kind for array in arrays.values()}
    if all(array.dtype == np.uint8 for array in arrays.values()):
        return lambda pixels: pixels
    if kinds == {"b"}:
        _note(done, "false and true as 0 and 255")
        return lambda pixels: pixels.astype(np.uint8) * np.uint8(255)
    with np.errstate(invalid="ignore"):
        low = min(float(array.min()) for array in arrays.values())
        high = max(float(array.max()) for array in arrays.values())
    if not np.isfinite([low, high]).all():
        count = sum(int((~np.isfinite(array)).sum()) for array in arrays.values())
        raise UserError(f"{where}: {count:,} pixels are NaN or infinite; mend them first")
    if "f" not in kinds and low >= 0 and high <= 255:
        return lambda pixels: pixels.astype(np.uint8)
    if all(array.dtype == np.uint16 for array in arrays.values()):
        _note(done, "16 bits reduced to 8")
        return lambda pixels: ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if "f" in kinds and low >= 0 and high <= 1:
        _note(done, "0..1 scaled to 0..255")
        return lambda pixels: np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)
    bright = high > 127
    whole = all((array[:100] == np.round(array[:100])).all() for array in arrays.values())
    if low >= 0 and high <= 255 and "f" in kinds and (bright or whole):
        return lambda pixels: np.rint(pixels).astype(np.uint8)
    if -1 <= low < 0 and high <= 1:
        question = "are they scaled to -1..1? Then give (x + 1) / 2"
    elif low < 0:
        question = "are they standardised? Then give them as they were before, as 0..255 or 0..1"
    else:
        question = f"what is white? If it is {high:g}, give x / {high:g}"
    raise UserError(
        f"{where}: pixels must be 0..255, or 0..1 in floats, found {low:g}..{high:g}: {question}. "
        "normlab itself standardises every channel by the training images"
    )


def _converted(
    array: np.ndarray, convert: Callable[[np.ndarray], np.ndarray], done: list[str]
) -> np.ndarray:
    channels = array.shape[-1]
    if array.dtype == np.uint8 and channels != 4:
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
    found = np.empty((*array.shape[:-1], 3 if channels == 4 else channels), np.uint8)
    for start in range(0, len(array), CHUNK):
        pixels = convert(array[start : start + CHUNK])
        found[start : start + CHUNK] = _over_white(pixels, done) if channels == 4 else pixels
    return found


def _over_white(pixels: np.ndarray, done: list[str]) -> np.ndarray:
    if (alpha := pixels[..., 3:].astype(np.uint32)).min() == 255:
        return pixels[..., :3]
    _note(done, "transparent parts laid over white")
    return ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _note(done: list[str], words: str) -> None:
    if words not in done:
        done.append(words)
