"""The fifteen corruptions get worse with severity, repeat with their key, and take any picture."""

import colorsys
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from normlab.catalogue import AUGMENTATIONS
from normlab.data.corruptions import FIFTEEN, corruption
from normlab.data.filters import blurred, fractal, moved, zoomed
from normlab.errors import FieldError, UserError
from tests.shared.thorough import mostly_thorough

KEY = jax.random.key(3)
FIXED = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg")


def scenes(n=6, size=24, channels=3):
    """Make images with shades and details of all sizes, as photographs have."""
    noise = np.random.default_rng(0).normal(0, 1, (n, size, size, channels))
    parts = [ndimage.gaussian_filter(noise, (0, s, s, 0), mode="wrap") for s in (0.7, 2, 5)]
    image = sum(part / part.std() for part in parts)
    return jnp.asarray(np.clip(120 + 35 * image, 0, 255).round(), jnp.float32)


def at_all(name, images, key=KEY):
    """Corrupt at the five severities, by one compiled program."""
    kind = corruption(name)
    corrupt = jax.jit(kind.corrupt)
    return [np.asarray(corrupt(key, images, jnp.asarray(a, jnp.float32))) for a in kind.amounts]


def test_the_catalogue_has_all_fifteen_and_no_other_of_such_a_name():
    named = [name for name in AUGMENTATIONS.entries() if name.startswith("remade")]
    assert sorted(named) == sorted(FIFTEEN) and len(FIFTEEN) == 15
    with pytest.raises(FieldError, match="'flip' has no severities"):
        corruption("flip")


@pytest.mark.parametrize("name", FIFTEEN)
def test_each_severity_is_further_from_the_picture_and_a_key_repeats_it(name):
    images = scenes()
    found = at_all(name, images)
    lost = [float(np.sqrt(((one - images) ** 2).mean())) for one in found]
    assert lost == sorted(lost) and lost[4] > 1.2 * lost[0] > 1
    for one in found:
        assert one.shape == images.shape and one.dtype == np.float32
        assert one.min() >= 0 and one.max() <= 255 and (one == one.round()).all()
    np.testing.assert_array_equal(at_all(name, images)[2], found[2])
    other = at_all(name, images, jax.random.key(4))[2]
    assert (other != found[2]).any() == (name.removeprefix("remade_") not in FIXED)


@pytest.mark.parametrize("name", mostly_thorough(FIFTEEN, ["remade_fog", "remade_motion_blur"]))
@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (1, 8, 8, 1), (2, 5, 9, 3)])
def test_any_picture_comes_out_as_a_picture(name, shape):
    """One pixel, grey, constant (black, white and grey), and higher than wide."""
    for value in (0.0, 128.0, 255.0):
        found = np.asarray(corruption(name, 5)(KEY, jnp.full(shape, value)))
        assert found.shape == shape and np.isfinite(found).all()
        assert found.min() >= 0 and found.max() <= 255
    if "blur" in name or name.rpartition("_")[2] in ("contrast", "pixelate", "transform"):
        np.testing.assert_array_equal(found, np.full(shape, 255.0))


def test_filters_are_those_of_scipy_away_from_the_edges():
    images = np.asarray(scenes(2, 32))
    inner = (slice(None), slice(12, -12), slice(12, -12))
    expected = ndimage.gaussian_filter(images, (0, 1.5, 1.5, 0), truncate=8)
    found = np.asarray(blurred(jnp.asarray(images), 1.5))
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-2)
    middle = 15.5
    places = middle + (np.arange(32) - middle) / 1.25
    rows, columns = np.meshgrid(places, places, indexing="ij")
    by_hand = ndimage.map_coordinates(images[0, :, :, 1], [rows, columns], order=1)
    enlarged = np.asarray(zoomed(jnp.asarray(images), 1.25))[0, :, :, 1]
    np.testing.assert_allclose(enlarged, by_hand, atol=1e-2)


def test_motion_is_a_mean_of_shifted_pictures():
    images = np.asarray(scenes(2, 16))
    angle = jnp.zeros(2)
    found = moved(jnp.asarray(images), angle, jnp.asarray(2.0), jnp.asarray(4.0), 6)
    weights = np.exp(-(np.arange(4) ** 2) / 8)
    weights /= weights.sum()
    padded = np.pad(images, ((0, 0), (0, 0), (0, 6), (0, 0)), mode="edge")
    expected = sum(w * padded[:, :, i : i + 16] for i, w in enumerate(weights))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_fractal_field_spans_0_to_1_and_is_smoother_the_greater_its_decay():
    rough, smooth = (np.asarray(fractal(KEY, jnp.zeros((4, 32, 32, 3)), d)) for d in (1.2, 3.0))
    for field in (rough, smooth):
        np.testing.assert_allclose(field.min(axis=(1, 2, 3)), 0)
        np.testing.assert_allclose(field.max(axis=(1, 2, 3)), 1, rtol=1e-6)
    assert np.abs(np.diff(rough, axis=1)).mean() > 2 * np.abs(np.diff(smooth, axis=1)).mean()


def test_noises_have_the_moments_that_they_say():
    grey = jnp.full((4, 64, 64, 3), 127.5)
    noisy = np.asarray(corruption("remade_gaussian_noise", 2)(KEY, grey))
    assert noisy.std() == pytest.approx(0.06 * 255, rel=0.02)
    counted = np.asarray(corruption("remade_shot_noise", 4)(KEY, grey))
    assert counted.std() == pytest.approx(255 * np.sqrt(0.5 / 75), rel=0.02)
    struck = np.asarray(corruption("remade_impulse_noise", 5)(KEY, grey))
    assert (struck == 0).mean() == pytest.approx(0.035, abs=0.005)
    assert (struck == 255).mean() == pytest.approx(0.035, abs=0.005)


def test_brightness_moves_the_value_and_keeps_hue_and_saturation():
    found = np.asarray(corruption("remade_brightness", 2)(KEY, scenes(2)))
    pairs = (np.asarray(one)[0, ::5, ::5].reshape(-1, 3) for one in (scenes(2), found))
    for before, after in zip(*pairs, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before / 255)
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.1, 1))) * 255
        np.testing.assert_allclose(after, expected, atol=0.51)


def test_pixelate_is_what_pillow_does_by_boxes():
    image = np.asarray(scenes(1, 32))[0].astype(np.uint8)
    small = Image.fromarray(image).resize((int(32 * 0.65),) * 2, Image.Resampling.BOX)
    expected = np.asarray(small.resize((32, 32), Image.Resampling.BOX)).astype(float)
    found = np.asarray(corruption("remade_pixelate", 5)(KEY, jnp.asarray(image[None], jnp.float32)))
    np.testing.assert_allclose(found[0], expected, atol=1)  # Pillow rounds in between


def test_jpeg_is_pillows_also_for_grey_and_says_what_it_cannot_do():
    for channels in (1, 3):
        image = np.asarray(scenes(2, 16, channels))
        found = np.asarray(jax.jit(corruption("remade_jpeg", 5))(KEY, jnp.asarray(image)))
        file = io.BytesIO()
        pixels = image[1].astype(np.uint8)
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "JPEG", quality=40)
        np.testing.assert_array_equal(found[1].squeeze(), np.asarray(Image.open(file)))
    with pytest.raises(UserError, match="these have 2 channels"):
        corruption("remade_jpeg")(KEY, jnp.zeros((1, 8, 8, 2)))
