"""Every augmentation keeps one contract, and each does what its docstring says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import AUGMENTATIONS
from normlab.data import Brightness, Contrast, Crop, Cutout, Flip, LowContrast, apply_all
from normlab.data.corruptions import Corruption
from normlab.errors import FieldError, UserError

ENTRIES = [AUGMENTATIONS.load(name)() for name in AUGMENTATIONS.entries()]
every = pytest.mark.parametrize("augment", ENTRIES, ids=lambda a: type(a).__name__)
KEY = jax.random.key(7)
FIXED = ("LowContrast", *(f"Remade{name}" for name in (
    "Brightness", "Contrast", "DefocusBlur", "Jpeg", "Pixelate", "ZoomBlur")))  # fmt: skip
"""Those in which nothing is random."""


def batch(n=16, height=12, width=10, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3))
    return jnp.asarray(pixels, jnp.float32)


@every
def test_takes_images_alone(augment):
    square = batch(height=12, width=12)
    for images in (square[0], square.transpose(0, 3, 1, 2)):
        with pytest.raises(UserError, match=r"channels first|images of shape"):
            augment(KEY, images)


@every
def test_what_reckons_with_grey_levels_takes_floats_alone(augment):
    square = batch(height=12, width=12)
    narrow = square.astype(jnp.uint8)
    if isinstance(augment, Flip | Crop):  # they only move pixels
        assert (augment(KEY, narrow).astype(jnp.float32) == augment(KEY, square)).all()
        return
    with pytest.raises(UserError, match=r"got uint8: use images\.astype\(jnp\.float32\)"):
        augment(KEY, narrow)


@pytest.mark.parametrize(
    "make",
    [lambda: Crop(padding=1.5), lambda: Crop(padding=True), lambda: Cutout(size=2.5),
     lambda: LowContrast(severity=2.5), lambda: Brightness(amount=float("nan"))],
)  # fmt: skip
def test_settings_of_another_kind_are_refused(make):
    with pytest.raises(FieldError):
        make()


def test_the_catalogue_holds_them():
    assert {Brightness, Contrast, Crop, Cutout, Flip} <= {type(a) for a in ENTRIES}


def assert_same(augment, found, expected):
    """Compare up to rounding; images in whole grey levels may rarely differ by one level."""
    level = 1.001 if isinstance(augment, Corruption) else 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=level)
    assert (np.abs(np.asarray(found) - np.asarray(expected)) > 0.5).mean() < 1e-2


@every
def test_keeps_shape_dtype_and_range(augment):
    images = batch()
    out = augment(KEY, images)
    assert (out.shape, out.dtype) == (images.shape, images.dtype)
    assert out.min() >= 0 and out.max() <= 255
    assert not np.array_equal(out, images)


@every
def test_jit_equals_eager(augment):
    assert_same(augment, jax.jit(augment)(KEY, batch()), augment(KEY, batch()))


@every
def test_the_key_decides(augment):
    np.testing.assert_array_equal(augment(KEY, batch()), augment(KEY, batch()))
    if type(augment).__name__ in FIXED:
        return
    assert not np.array_equal(augment(KEY, batch()), augment(jax.random.key(8), batch()))


@every
def test_an_example_depends_on_no_other(augment):
    images, others = batch(), batch(seed=1)
    alone = others.at[3].set(images[3])
    np.testing.assert_array_equal(augment(KEY, alone)[3], augment(KEY, images)[3])


@every
def test_examples_are_drawn_independently(augment):
    if type(augment).__name__ in FIXED:
        return
    same = jnp.broadcast_to(batch(1), (16, 12, 10, 3))
    out = np.asarray(augment(KEY, same)).reshape(16, -1)
    assert len(np.unique(out, axis=0)) >= 2


@every
def test_works_under_vmap_and_is_a_static_argument(augment):
    keys, images = jax.random.split(KEY, 2), jnp.stack([batch(), batch(seed=1)])
    mapped = jax.vmap(augment)(keys, images)
    assert_same(augment, mapped[1], augment(keys[1], images[1]))
    assert hash(augment) == hash(type(augment)())


def test_flip_mirrors_half_of_the_images_exactly():
    images = batch(1000, 2, 3)
    out = Flip()(KEY, images)
    mirrored = (np.asarray(out) == np.asarray(images[:, :, ::-1])).all(axis=(1, 2, 3))
    kept = (np.asarray(out) == np.asarray(images)).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 430 < mirrored.sum() < 570  # within 4.4 standard deviations of half


def test_crop_is_a_shift_of_the_reflected_image():
    images = np.asarray(batch(400, 6, 5))
    out = np.asarray(Crop(padding=2)(KEY, jnp.asarray(images)))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    seen = set()
    for i in range(len(images)):
        shifts = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(out[i], padded[i, y : y + 6, x : x + 5])
        ]
        assert len(shifts) == 1
        seen.update(shifts)
    assert len(seen) == 25


def test_cutout_covers_one_square_and_nothing_else():
    images = np.asarray(batch(500, 9, 9)) % 100
    out = np.asarray(Cutout(size=4, fill=200.0)(KEY, jnp.asarray(images)))
    covered = out == 200
    np.testing.assert_array_equal(out[~covered], images[~covered])
    sizes = set()
    for mask in covered:
        rows, columns = mask.any(axis=(1, 2)), mask.any(axis=(0, 2))
        np.testing.assert_array_equal(mask, (rows[:, None] & columns)[..., None] & np.ones(3, bool))
        for line in (rows, columns):
            assert np.abs(np.diff(line.astype(int))).sum() <= 2  # in one piece
        sizes.add((rows.sum(), columns.sum()))
    # The centre is any pixel, so 4 wide unless it sticks out: by 2 at the start, by 1 at the end.
    assert {rows for rows, _ in sizes} == {columns for _, columns in sizes} == {2, 3, 4}


def test_brightness_multiplies_and_clips():
    images = jnp.full((2000, 1, 1, 1), 100.0)
    factor = np.asarray(Brightness(amount=0.3)(KEY, images)).ravel() / 100
    assert 0.7 <= factor.min() < 0.71 and 1.29 < factor.max() <= 1.3001
    assert factor.mean() == pytest.approx(1, abs=0.02)
    assert Brightness(amount=1.0)(KEY, jnp.full((50, 1, 1, 1), 250.0)).max() == 255


def test_contrast_keeps_the_mean_and_scales_the_rest():
    # Far enough from 0 and 255 that nothing is clipped.
    images = 100 + batch(200) / 10
    out = np.asarray(Contrast(amount=0.4)(KEY, images))
    np.testing.assert_allclose(out.mean(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3)), rtol=1e-5)
    factor = out.std(axis=(1, 2, 3)) / np.asarray(images).std(axis=(1, 2, 3))
    assert 0.6 <= factor.min() < 0.63 and 1.37 < factor.max() <= 1.401


def test_apply_all_is_in_order_and_gives_each_its_own_key():
    images = batch()
    twice = apply_all([Flip(), Flip()], KEY, images)
    by_hand = Flip()(jax.random.fold_in(KEY, 1), Flip()(jax.random.fold_in(KEY, 0), images))
    np.testing.assert_array_equal(twice, by_hand)
    # With one key for both, the second flip would undo the first.
    assert not np.array_equal(twice, images)
    np.testing.assert_array_equal(apply_all([], KEY, images), images)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Crop(padding=0), "padding"),
        (lambda: Crop(padding=8)(KEY, batch(height=8)), "padding"),
        (lambda: Cutout(size=0), "size"),
        (lambda: Cutout(fill=256.0), "fill"),
        (lambda: Brightness(amount=-0.1), "amount"),
        (lambda: Contrast(amount=1.5), "amount"),
    ],
)
def test_impossible_fields_are_refused(make, field):
    with pytest.raises(FieldError) as raised:
        make()
    assert raised.value.field == field
