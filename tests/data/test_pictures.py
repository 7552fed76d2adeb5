"""Every kind of picture becomes the pixels that Pillow and numpy say, and others are named."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from normlab.data.pictures import Header, UnreadableError, decode, read_header

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(image, form="PNG", size=(6, 10), channels=3, fit="crop", **options):
    return decode(encoded(image, form, **options), size, channels, fit)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
"""By the table of the EXIF standard: where the zeroth row and column of the file are to be seen."""


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientations(orientation, form):
    expected = UPRIGHT[orientation](COLOURS)
    lossless = {"lossless": True} if form == "WEBP" else {}
    whole = encoded(Image.fromarray(COLOURS), form, exif=turned(orientation), **lossless)
    found, done = decode(whole, expected.shape[:2], 3)
    np.testing.assert_array_equal(found, expected)
    assert ("turned" in done) is (orientation > 1)
    assert read_header(whole) == Header(*expected.shape[:2], grey=False)


def test_grey_becomes_three_equal_channels_or_stays():
    grey = Image.fromarray(COLOURS[..., 0])
    found, done = pixels(grey)
    np.testing.assert_array_equal(found, np.repeat(COLOURS[..., :1], 3, axis=-1))
    assert done == {"grey"}
    np.testing.assert_array_equal(pixels(grey, channels=1)[0], COLOURS[..., :1])


def test_colour_becomes_grey_by_the_recommendation_601():
    found, done = pixels(Image.fromarray(COLOURS), channels=1)
    expected = COLOURS.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(found[..., 0] - expected).max() <= 1
    assert done == {"decoloured"}


def test_what_is_transparent_is_laid_over_white():
    alpha = np.random.default_rng(1).integers(0, 256, (6, 10, 1), np.uint8)
    found, done = pixels(Image.fromarray(np.concatenate([COLOURS, alpha], axis=-1)))
    share = alpha / 255
    np.testing.assert_allclose(found, share * COLOURS + (1 - share) * 255.0, atol=1)
    assert done == {"alpha"}


def test_an_opaque_alpha_channel_changes_nothing():
    picture = Image.fromarray(COLOURS)
    picture.putalpha(255)
    np.testing.assert_array_equal(pixels(picture)[0], COLOURS)


def test_grey_with_alpha_and_a_palette_with_a_transparent_colour():
    bands = Image.new("L", (10, 6), 100), Image.new("L", (10, 6), 0)
    found, done = pixels(Image.merge("LA", bands))
    assert (found == 255).all() and done == {"alpha", "grey"}
    palette = Image.new("P", (10, 6), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((3, 2), 0)
    found, done = pixels(palette, transparency=1)
    assert done == {"alpha", "palette"}
    assert found[2, 3].tolist() == [255, 0, 0]
    assert (np.delete(found.reshape(-1, 3), 23, axis=0) == 255).all()


def test_a_transparent_grey_value_and_a_transparent_colour():
    grey = Image.fromarray(np.array([[7, 200]], np.uint8))
    found, _ = pixels(grey, size=(1, 2), transparency=7)
    assert found[0, :, 0].tolist() == [255, 200]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    found, _ = pixels(colour, size=(1, 2), transparency=(1, 2, 3))
    assert found[0].tolist() == [[255] * 3, [4, 5, 6]]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(form):
    values = np.random.default_rng(2).integers(0, 65536, (6, 10), np.uint16)
    values[0, :4] = [0, 65535, 128, 129]
    found, done = pixels(Image.fromarray(values), form, channels=1)
    np.testing.assert_array_equal(found[..., 0], np.rint(values / 257.0))
    assert done == {"sixteen"}
    assert found[0, :4, 0].tolist() == [0, 255, 0, 1]


def test_sixteen_bits_can_be_turned():
    values = np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000
    found, _ = pixels(Image.fromarray(values), size=(10, 6), channels=1, exif=turned(6))
    expected = np.rint(values.T[:, ::-1] / 257.0)
    np.testing.assert_array_equal(found[..., 0], expected)


def test_cmyk_becomes_rgb():
    picture = Image.fromarray(np.full((6, 10, 3), [200, 100, 0], np.uint8)).convert("CMYK")
    found, done = pixels(picture, "TIFF")
    assert (found == [200, 100, 0]).all() and done == {"cmyk"}
    found, _ = pixels(picture, "JPEG", quality=100)
    assert np.abs(found.astype(int) - [200, 100, 0]).max() <= 3


def test_one_bit_a_pixel():
    bits = np.random.default_rng(3).integers(0, 2, (6, 10)).astype(bool)
    found, _ = pixels(Image.fromarray(bits), channels=1)
    np.testing.assert_array_equal(found[..., 0], bits * 255)


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_first_of_several_frames_is_taken(form):
    frames = [Image.new("RGB", (10, 6), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if form == "WEBP" else {}
    found, done = pixels(frames[0], form, save_all=True, append_images=frames[1:], **lossless)
    assert (found == [255, 0, 0]).all()
    assert "first" in done


def test_a_cameras_file_with_a_preview_is_one_picture():
    first, second = Image.new("RGB", (10, 6), "red"), Image.new("RGB", (4, 4), "blue")
    found, done = pixels(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(found.astype(int) - [254, 0, 0]).max() <= 2
    assert done == set()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_other_sizes_are_made_with_antialiasing(fit):
    picture = Image.fromarray(np.random.default_rng(4).integers(0, 256, (90, 150, 3), np.uint8))
    found, _ = pixels(picture, size=(30, 30), fit=fit)
    bilinear = Image.Resampling.BILINEAR
    expected = {
        "crop": lambda: picture.resize((30, 30), bilinear, box=(30, 0, 120, 90)),
        "pad": lambda: ImageOps.pad(picture, (30, 30), bilinear),
        "stretch": lambda: picture.resize((30, 30), bilinear),
    }[fit]()
    np.testing.assert_array_equal(found, np.asarray(expected))
    # Without antialiasing a single source pixel would have nearly its own deviation of 74.
    assert found.std() < 40 or fit == "pad"


def test_a_checkerboard_of_single_pixels_becomes_even_grey():
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found, _ = pixels(Image.fromarray(board), size=(8, 8), channels=1)
    assert np.abs(found[1:-1, 1:-1].astype(int) - 127).max() <= 1


def test_small_pictures_are_enlarged_and_that_is_told():
    found, done = pixels(Image.new("RGB", (2, 2), "red"), size=(8, 8))
    assert (found == [255, 0, 0]).all() and done == {"enlarged"}


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        (b"", "it is empty"),
        (b"<html>Not found</html>", "no picture"),
        (HEIC, "a HEIC picture, which is not read; convert it to JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (encoded(Image.fromarray(COLOURS))[:-40], "cut short"),
        (encoded(Image.effect_noise((200, 200), 50), "JPEG")[:2000], "cut short"),
        (encoded(Image.fromarray(COLOURS.astype(np.float32)[..., 0]), "TIFF"), "fractions"),
        (encoded(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "TIFF"), "70000"),
    ],
    ids=["empty", "html", "heic", "lfs", "cut png", "cut jpeg", "float", "32 bits"],
)
def test_what_cannot_be_read_says_why(contents, why, tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(contents)
    for whole in (contents, file):
        with pytest.raises(UnreadableError, match=why):
            decode(whole, (4, 4), 3)


def test_a_name_may_say_that_it_is_not_read(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"?")
    with pytest.raises(UnreadableError, match="HEIC"):
        read_header(tmp_path / "IMG_1.HEIC")


def test_a_picture_that_claims_gigabytes_takes_no_memory():
    whole = encoded(Image.new("RGB", (1, 1)))
    header = whole[12:29].replace(b"\0\0\0\1\0\0\0\1", b"\0\0\x7f\xff" * 2)
    claims = whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]
    with pytest.raises(UnreadableError, match="megapixels; make it smaller"):
        decode(claims, (4, 4), 3)


def test_randomly_damaged_pictures_are_read_or_refused():
    forms = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")
    rng, refused = np.random.default_rng(5), 0
    for form in forms:
        whole = encoded(Image.fromarray(COLOURS), form, **(
            {"exif": turned(6)} if form in ("PNG", "JPEG", "WEBP") else {}))  # fmt: skip
        for _ in range(60):
            bits = np.frombuffer(whole, np.uint8).copy()
            places = rng.integers(0, len(bits), 3)
            bits[places] ^= (1 << rng.integers(0, 8, 3)).astype(np.uint8)
            for contents in (bits.tobytes(), whole[: places[0]]):
                try:
                    found, _ = decode(contents, (4, 4), 3)
                    assert found.shape == (4, 4, 3)
                except UnreadableError as error:
                    refused += 1
                    assert "\n" not in str(error)
    assert refused > 200
