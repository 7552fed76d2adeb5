"""Each corruption changes images as its docstring says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.data import ColourCast, Darkness, Fog, Glare, LowContrast
from normlab.errors import FieldError, UserError

KINDS = [Darkness, Glare, LowContrast, ColourCast, Fog]
every = pytest.mark.parametrize("kind", KINDS)
KEY = jax.random.key(3)


def scenes(n=32, size=16):
    """Make images with large and small objects, of all greys and colours."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (n, size // 4, size // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return jnp.asarray(np.clip(coarse + rng.normal(0, 10, (n, size, size, 3)), 0, 255).round(),
                       jnp.float32)  # fmt: skip


@every
def test_there_are_five_severities_each_worse_than_the_one_before(kind):
    images = scenes()
    assert len(kind.amounts) == 5
    lost = [float(jnp.abs(kind(severity)(KEY, images) - images).mean()) for severity in range(1, 6)]
    assert lost == sorted(lost) and lost[4] > 1.5 * lost[0] > 3
    for severity in (0, 6):
        with pytest.raises(FieldError, match=r"severity must be in 1\.\.5"):
            kind(severity)


@every
def test_what_comes_out_could_stand_in_a_file(kind):
    found = np.asarray(kind(5)(KEY, scenes()))
    np.testing.assert_array_equal(found, found.round())
    assert found.min() >= 0 and found.max() <= 255


@every
def test_an_amount_of_its_own_is_what_a_severity_stands_for(kind):
    images = scenes()
    amount = jnp.asarray(kind.amounts[1], jnp.float32)
    found = np.asarray(kind().corrupt(KEY, images, amount))
    np.testing.assert_allclose(found, kind(2)(KEY, images), atol=1.001)


def test_darkness_scales_the_light_and_makes_grain_by_the_root_of_it():
    grey = jnp.full((4, 64, 64, 3), 204.0)  # 800 photons in daylight
    for severity, light in enumerate(Darkness.amounts, 1):
        found = np.asarray(Darkness(severity)(KEY, grey))
        assert found.mean() == pytest.approx(204 * light, rel=0.01)
        grain = 255 / 1000 * np.sqrt(800 * light)
        assert found.std() == pytest.approx(np.sqrt(grain**2 + 1 / 12), rel=0.03)  # and rounding
    assert not np.asarray(Darkness(5)(KEY, jnp.zeros((1, 8, 8, 3)))).any()


def test_glare_adds_light_most_of_all_at_one_place_in_the_upper_half():
    dark = jnp.zeros((64, 32, 32, 1))
    found = np.asarray(Glare(4)(KEY, dark))[..., 0]
    assert found.max(axis=(1, 2)) == pytest.approx(255, abs=2)
    brightest = found.reshape(64, -1).argmax(axis=1) // 32
    assert brightest.max() <= 16 and len(np.unique(brightest)) > 5


def test_low_contrast_leaves_the_mean_and_a_share_of_the_rest():
    images = scenes()
    found = LowContrast(3)(KEY, images)
    axes = (1, 2, 3)
    np.testing.assert_allclose(found.mean(axes), images.mean(axes), atol=0.3)
    np.testing.assert_allclose(found.std(axes), 0.25 * images.std(axes), rtol=0.03)


def test_a_colour_cast_scales_channels_between_the_weakest_and_one():
    found = np.asarray(ColourCast(3)(KEY, jnp.full((500, 4, 4, 3), 200.0))) / 200
    gains = found[:, 0, 0]
    np.testing.assert_allclose(gains.max(axis=1), 1, atol=0.004)
    np.testing.assert_allclose(gains.min(axis=1), 0.4, atol=0.004)
    assert set(gains.argmin(axis=1)) == {0, 1, 2}
    with pytest.raises(UserError, match="colour_cast needs images of three colours"):
        ColourCast()(KEY, jnp.zeros((2, 4, 4, 1)))


def test_fog_takes_contrast_and_adds_white_by_one_law():
    shape = (8, 32, 32, 1)
    black, white = (np.asarray(Fog(4)(KEY, jnp.full(shape, v))) for v in (0.0, 255.0))
    arriving = (white - black) / 255
    assert 0.1 < arriving.min() < 0.25 and 0.4 < arriving.max() < 0.55  # exp of -1.95 and -0.65
    np.testing.assert_allclose(black, 255 * 0.9 * (1 - arriving), atol=1.5)
