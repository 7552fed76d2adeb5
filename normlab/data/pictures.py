"""Decodes pictures as people have them, from any camera or program, to pixels of one size.

A picture is turned as its EXIF orientation says. The first picture is taken of an animation, or of
a file of several pages. Transparent parts are laid over white. CMYK, palettes and the like become
RGB; colour profiles are ignored. A 16-bit grey value becomes 8 bits as `round(value / 257)`. Grey
becomes three equal channels, and colour becomes grey by ITU-R 601 (as Pillow's `convert("L")`).
Then the picture is resized bilinearly with antialiasing (Pillow's `BILINEAR`).
"""

import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from normlab.errors import in_one_line, require_field

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["crop", "pad", "stretch"]

READ = {
    *(".apng", ".avif", ".bmp", ".gif", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
}
"""The endings of the names of files that are decoded."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF",
           "ICO", "TGA")  # fmt: skip
"""The formats of these files, by Pillow's names; a camera's MPO opens as a JPEG."""

NOT_READ = {
    ".heic": "a HEIC picture",
    ".heif": "a HEIF picture",
    ".cr2": "a raw photograph",
    ".cr3": "a raw photograph",
    ".dng": "a raw photograph",
    ".nef": "a raw photograph",
    ".arw": "a raw photograph",
    ".jxl": "a JPEG XL picture",
    ".svg": "an SVG drawing",
}
"""Kinds of pictures that Pillow cannot decode. They are reported, because they would be missing."""

SUFFIXES = READ | NOT_READ.keys()

ORIENTATION = 0x0112
"""The EXIF tag of the orientation, 1..8; the sides of 5 to 8 are exchanged."""

KINDS = {
    "turned": "turned as EXIF says",
    "grey": "grey",
    "palette": "with a palette",
    "alpha": "laid over white where transparent",
    "cmyk": "converted from CMYK",
    "sixteen": "reduced from 16 bits to 8",
    "first": "the first of several frames or pages",
    "enlarged": "enlarged",
    "decoloured": "turned from colour to grey",
}
"""Changes that may be made to a picture, in the words of a report."""


class UnreadableError(Exception):
    """A picture cannot be decoded; the message says why, and gives a remedy."""


class Header(NamedTuple):
    """A picture's sizes, read without decoding it.

    Attributes:
        height: in pixels, after it is turned as its EXIF orientation says.
        width: in pixels, after it is turned.
        grey: whether it has no colour.
    """

    height: int
    width: int
    grey: bool


def read_header(encoded: bytes | Path) -> Header:
    """Read the sizes of a picture, from its file or its bytes.

    Raises:
        UnreadableError: it is no picture that can be decoded.

    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("L", (3, 2)).save(file, "PNG")
    >>> read_header(file.getvalue())
    Header(height=2, width=3, grey=True)
    """
    with _open(encoded) as image:
        width, height = image.size
        if _orientation(image) >= 5 and image.format != "TIFF":  # Pillow itself turns a TIFF's
            width, height = height, width
        return Header(height, width, _is_grey(image))


def decode(
    encoded: bytes | Path, size: tuple[int, int], channels: int, fit: Fit = "crop"
) -> tuple[np.ndarray, set[str]]:
    """Decode a picture, and return its pixels and what was done with it.

    Args:
        encoded: its file, or its bytes.
        size: the height and the width that it gets.
        channels: 1 for grey, 3 for RGB.
        fit: how it gets another aspect: `crop` cuts off what is beyond the middle, `pad` fills up
            with black, and `stretch` distorts.

    Returns:
        `(height, width, channels)` uint8, and some of the keys of `KINDS`.

    Raises:
        UnreadableError: it is no picture, or it is damaged.

    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(file, "PNG")
    >>> decode(file.getvalue(), (2, 2), 3)[0][0, 0].tolist()
    [255, 255, 255]
    """
    with _open(encoded) as image:
        try:
            done = _notable(image, channels)
            image.load()
        except Exception as error:  # damaged bytes raise exceptions of any class
            raise UnreadableError(_damage(error)) from error
        try:
            plain = _opaque(_eight_bits(_upright(image)))
            plain = plain.convert("L" if channels == 1 else "RGB")
            if plain.width < size[1] or plain.height < size[0]:
                done.add("enlarged")
            pixels = np.asarray(fitted(plain, size, fit))
        except UnreadableError:
            raise
        except Exception as error:
            raise UnreadableError(_damage(error)) from error
    return pixels.reshape(*size, channels), done


def so_many(count: int) -> str:
    """Count pictures in words.

    >>> so_many(1), so_many(2000)
    ('1 picture', '2,000 pictures')
    """
    return f"{count:,} {'picture' if count == 1 else 'pictures'}"


def require_fit(fit: str) -> None:
    """Raise `FieldError` unless `fit` is one of the ways in which a picture gets another aspect."""
    require_field(fit in get_args(Fit), "fit", fit, f"one of {', '.join(get_args(Fit))}")


def fitted(image: "Image", size: tuple[int, int], fit: Fit) -> "Image":
    """Resize a picture to a height and a width, with antialiasing."""
    from PIL import ImageOps
    from PIL.Image import Resampling

    target = size[1], size[0]
    if image.size == target:
        return image
    if fit == "crop":
        return ImageOps.fit(image, target, Resampling.BILINEAR)
    if fit == "pad":
        return ImageOps.pad(image, target, Resampling.BILINEAR)
    return image.resize(target, Resampling.BILINEAR)


def resized(
    images: np.ndarray, size: tuple[int, int], channels: int, fit: Fit = "crop"
) -> np.ndarray:
    """Resize and recolour images `(N, H, W, 1 or 3)` uint8, as `decode` does.

    >>> resized(np.full((1, 4, 4, 1), 9, np.uint8), (2, 2), 3).shape
    (1, 2, 2, 3)
    """
    from PIL import Image

    if images.shape[1:] == (*size, channels):
        return images
    found = np.empty((len(images), *size, channels), np.uint8)

    def one(number: int) -> None:
        pixels = images[number]
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        picture = picture.convert("L" if channels == 1 else "RGB")
        found[number] = np.asarray(fitted(picture, size, fit)).reshape(found.shape[1:])

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(one, range(len(images))):
            pass
    return found


@cache
def formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are decoded, as far as it has them.

    Pillow knows others, for some of which it starts another program.
    """
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(encoded: bytes | Path) -> "Image":
    from PIL import Image

    if isinstance(encoded, Path) and encoded.suffix.lower() in NOT_READ:
        raise UnreadableError(_not_read(NOT_READ[encoded.suffix.lower()]))
    try:
        stream = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
        return Image.open(stream, formats=formats())
    except Exception as error:
        raise UnreadableError(_no_picture(encoded, error)) from error


def _no_picture(encoded: bytes | Path, error: Exception) -> str:
    """Return the reason why Pillow does not open a file."""
    from PIL import Image

    if isinstance(error, Image.DecompressionBombError):
        return (
            f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels; make it smaller"
        )
    try:
        if isinstance(encoded, bytes):
            start = encoded[:64]
        else:
            with encoded.open("rb") as file:
                start = file.read(64)
    except OSError as failure:
        return f"it cannot be opened ({failure.strerror or failure})"
    if not start:
        return "it is empty"
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return _not_read("a HEIC picture")
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in place of the picture; run 'git lfs pull'"
    if not isinstance(error, Image.UnidentifiedImageError):
        return _damage(error)
    return "it is no picture that Pillow knows"


def _not_read(what: str) -> str:
    return f"{what}, which is not read; convert it to JPEG or PNG"


def _damage(error: Exception) -> str:
    cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
    return "it is cut short" if cut else f"damage ({in_one_line(error, longest=100)})"


def _orientation(image: "Image") -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
        return found if isinstance(found, int) and 1 <= found <= 8 else 1
    except Exception:  # EXIF data of broken programs; the pixels are none the worse
        return 1


def _is_grey(image: "Image") -> bool:
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _notable(image: "Image", channels: int) -> set[str]:
    found = {
        "turned": _orientation(image) > 1,
        "grey": channels == 3 and _is_grey(image),
        "decoloured": channels == 1 and not _is_grey(image),
        "palette": image.mode in ("P", "PA"),
        "alpha": image.has_transparency_data,
        "cmyk": image.mode == "CMYK",
        "sixteen": image.mode.startswith("I"),
        # A camera's MPO file is a JPEG with a preview or a second view, not an animation.
        "first": image.format != "MPO" and getattr(image, "n_frames", 1) > 1,
    }
    return {kind for kind, here in found.items() if here}


def _upright(image: "Image") -> "Image":
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as in `_orientation`
        return image


def _eight_bits(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "F":
        raise UnreadableError("its pixels are fractions; save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise UnreadableError(f"its pixels are {low}..{high}; save it with 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _opaque(image: "Image") -> "Image":
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image)
