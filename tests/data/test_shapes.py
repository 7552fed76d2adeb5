"""The drawn set is the same everywhere, balanced, and not too easy."""

import time

import numpy as np
import pytest

from normlab.data import Shapes
from normlab.errors import FieldError


@pytest.mark.parametrize(
    ("shapes", "fingerprint"),
    [
        (Shapes(), "e2be15c3ce37274b"),
        (Shapes(train_examples=100, test_examples=50, size=32, seed=3), "c05eb2719c0b1554"),
    ],
)
def test_images_are_the_same_on_every_machine(shapes, fingerprint):
    assert shapes.load().fingerprint == fingerprint


def test_shapes_and_balance():
    shapes = Shapes(train_examples=205, test_examples=20, size=24)
    assert shapes.outline() == ((24, 24, 3), 10, 205, 20, 0)
    data = shapes.load()
    assert data.name == "shapes" and len(set(data.classes)) == 10
    assert data.train.images.shape == (205, 24, 24, 3)
    assert data.test.images.shape == (20, 24, 24, 3)
    assert set(np.bincount(data.train.labels, minlength=10)) == {20, 21}
    assert np.bincount(data.test.labels, minlength=10).tolist() == [2] * 10


def test_a_larger_set_begins_with_the_smaller():
    # Across the boundary of a chunk, on both sides.
    small, large = (Shapes(train_examples=n, test_examples=10).load() for n in (515, 1030))
    np.testing.assert_array_equal(small.train.images, large.train.images[:515])
    np.testing.assert_array_equal(small.test.images, large.test.images)


def test_splits_and_seeds_differ():
    first, second = (Shapes(train_examples=50, test_examples=50, seed=s).load() for s in (0, 1))
    images = [split.images for data in (first, second) for split in (data.train, data.test)]
    everything = np.concatenate(images).reshape(200, -1)
    assert len(np.unique(everything, axis=0)) == 200


def test_light_varies_from_image_to_image():
    images = Shapes().load().train.images.astype(float)
    level, spread = images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))
    for amount in (level, spread):
        low, high = np.quantile(amount, [0.1, 0.9])
        assert high > 3 * low


def test_neither_light_nor_position_gives_the_class_away():
    # The nearest class mean is right for 10% by chance. Pixels alone must not say much more.
    data = Shapes().load()
    flat = [
        split.images.reshape(len(split.images), -1).astype(float)
        for split in (data.train, data.test)
    ]
    means = np.stack([flat[0][data.train.labels == c].mean(axis=0) for c in range(10)])
    distance = ((flat[1][:, None, :] - means[None]) ** 2).sum(axis=-1)
    assert (distance.argmin(axis=1) == data.test.labels).mean() < 0.3


def test_textures_run_the_way_their_names_say():
    data = Shapes(train_examples=1000).load()
    grey = data.train.images.astype(float).mean(axis=-1)
    along_rows = np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    down_columns = np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2))
    ratio = {
        name: np.median((along_rows / down_columns)[data.train.labels == label])
        for label, name in enumerate(data.classes)
    }
    assert ratio.pop("vertical_stripes") > 1.5
    assert ratio.pop("horizontal_stripes") < 1 / 1.5
    assert all(0.8 < other < 1.25 for other in ratio.values())


def test_drawing_is_fast():
    def seconds():
        start = time.process_time()
        Shapes(train_examples=10_000, test_examples=10).load()
        return time.process_time() - start

    # The processor's own time, whatever else it does; the limit catches a loop over images.
    assert min(seconds() for _ in range(3)) < 2


@pytest.mark.parametrize(
    "fields",
    [{"train_examples": 9}, {"test_examples": 0}, {"size": 7}, {"size": 65}, {"seed": -1}],
)
def test_impossible_fields_are_refused(fields):
    with pytest.raises(FieldError) as raised:
        Shapes(**fields)
    assert raised.value.field == next(iter(fields))
