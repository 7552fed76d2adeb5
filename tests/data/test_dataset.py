"""Every dataset keeps its contract, and the shared helpers work."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.data import Dataset, DatasetFacts, Outline, Split, data_root, mean_pool, stratified
from normlab.data.dataset import dataset
from normlab.errors import FieldError, UserError

ROOT = Path(__file__).parents[2]


def split(n=4, shape=(4, 4, 3), classes=2, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)
    return Split(images, np.arange(n, dtype=np.int32) % classes)


def a_dataset(train=None, test=None):
    return Dataset("toy", train or split(), test or split(2), ("a", "b"))


def test_channel_statistics_equal_float64_ones():
    images = np.random.default_rng(1).integers(0, 256, (1500, 3, 5, 3), np.uint8)
    mean, std = a_dataset(
        Split(images, np.zeros(1500, np.int32)), split(2, (3, 5, 3))
    ).channel_statistics()
    exact = images.reshape(-1, 3).astype(np.float64)
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_array_equal(mean, exact.mean(axis=0).astype(np.float32))
    np.testing.assert_allclose(std, exact.std(axis=0), rtol=1e-7)


def test_statistics_come_from_the_training_split_alone():
    assert a_dataset(test=split(2, seed=5)).channel_statistics()[0].tolist() == (
        a_dataset(test=split(2, seed=6)).channel_statistics()[0].tolist()
    )


def test_constant_channel_has_unit_deviation():
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)
    images[..., 1] = 200
    mean, std = a_dataset(Split(images, np.zeros(4, np.int32))).channel_statistics()
    assert (mean[1], std[1]) == (200, 1)
    assert std[0] > 10 and std[2] > 10


def test_fingerprint_sees_every_array():
    def changed(index, position):
        arrays = [array.copy() for array in (*split(), *split(2))]
        flat = arrays[index].reshape(-1)
        flat[position] = 1 - flat[position] if index % 2 else flat[position] ^ 1
        return a_dataset(Split(*arrays[:2]), Split(*arrays[2:])).fingerprint

    found = {a_dataset().fingerprint} | {changed(i, p) for i in range(4) for p in (0, -1)}
    assert len(found) == 9
    assert a_dataset().fingerprint == a_dataset().fingerprint
    assert len(a_dataset().fingerprint) == 16


def test_fingerprint_sees_the_shape():
    wide, tall = (
        Split(np.zeros((1, *shape, 3), np.uint8), np.zeros(1, np.int32))
        for shape in ((2, 4), (4, 2))
    )
    assert a_dataset(wide, wide).fingerprint != a_dataset(tall, tall).fingerprint


def test_fingerprint_does_not_depend_on_memory_layout():
    images, labels = split()
    fortran = Split(np.asfortranarray(images), labels)
    assert a_dataset(fortran).fingerprint == a_dataset().fingerprint


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda i, y: (i.astype(np.float32), y), r"train\.images must be uint8.*got float32"),
        (lambda i, y: (i[..., 0], y), r"train\.images.*shape \(4, 4, 4\)"),
        (lambda i, y: (i[:0], y[:0]), r"train\.images.*shape \(0, 4, 4, 3\)"),
        (lambda i, y: (i, y[:-1]), r"train\.labels must be int32 of shape \(4,\).*\(3,\)"),
        (lambda i, y: (i, y.astype(np.int64)), r"train\.labels.*got int64"),
        (lambda i, y: (i, y + 1), r"labels must lie in 0\.\.1 for 2 classes, got 1\.\.2"),
        (lambda i, y: (i, y - 1), r"labels must lie in 0\.\.1 for 2 classes, got -1\.\.0"),
        (
            lambda i, y: (i[:, :2], y),
            r"training images are \(2, 4, 3\) but test images \(4, 4, 3\)",
        ),
        (lambda i, y: (i.tolist(), y), r"train\.images must be a numpy array, got list"),
        (lambda i, y: (i, list(y)), r"train\.labels must be a numpy array, got list"),
        (lambda i, y: (i, y.astype(np.float32)), r"train\.labels.*got float32"),
        (lambda i, y: (i, y[:, None]), r"train\.labels.*shape \(4, 1\)"),
    ],
)
def test_broken_arrays_are_refused(broken, message):
    with pytest.raises(UserError, match=message):
        a_dataset(Split(*broken(*split())))


@pytest.mark.parametrize(
    "classes", ["ab", (), ("a", "a"), ("a", 1), (0, 1)], ids=["text", "none", "twice", "one", "two"]
)
def test_names_of_classes_that_are_not_texts_that_differ_are_refused(classes):
    with pytest.raises(UserError, match="classes must be the names of the labels"):
        Dataset("toy", split(), split(2), classes)


def test_a_part_that_is_no_split_is_refused():
    with pytest.raises(UserError, match=r"test must be Split\(images, labels\), got NoneType"):
        Dataset("toy", split(), None, ("a", "b"))  # type: ignore[arg-type]


def test_validation_images_of_another_shape_are_refused():
    with pytest.raises(UserError, match=r"\(4, 4, 3\) but validation images \(2, 2, 3\)"):
        Dataset("toy", split(), split(2), ("a", "b"), validation=split(2, (2, 2, 3)))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_their_channels_first_are_refused(channels):
    """Refuse only a square of more than four pixels after an axis of length one or three."""
    first = split(4, (channels, 8, 8))
    with pytest.raises(UserError, match=r"channels first.*transpose\(0, 2, 3, 1\)"):
        a_dataset(first, first)
    for shape in ((channels, 4, 4), (channels, 8, 7), (2, 8, 8), (8, 8, channels), (3, 3, 3)):
        a_dataset(split(4, shape), split(2, shape))
    with pytest.raises(UserError, match="channels first"):
        mean_pool(first.images, 4)


@pytest.mark.parametrize(
    "labels", [np.zeros(4), np.zeros((4, 1), int), np.array(["a", "b"])], ids=["float", "2", "text"]
)
def test_labels_that_are_no_list_of_whole_numbers_are_not_stratified(labels):
    with pytest.raises(FieldError, match="labels must be whole numbers of shape"):
        stratified(labels, 1)
    with pytest.raises(FieldError, match=r"n must be in 1\.\.4 and whole"):
        stratified(np.zeros(4, int), 2.0)  # type: ignore[arg-type]


def test_mean_pool_takes_images_alone():
    with pytest.raises(UserError, match="uint8 of shape"):
        mean_pool(np.zeros((1, 4, 4, 1)), 2)
    with pytest.raises(UserError, match="uint8 of shape"):
        mean_pool(np.zeros((4, 4, 1), np.uint8), 2)


def test_decorator_attaches_facts():
    @dataset(licence="CC0", citation="nobody", how_to_get="make it")
    class Toy:
        pass

    marks = vars(Toy)
    assert marks["catalogue_kind"] == "dataset"
    assert marks["facts"] == DatasetFacts("CC0", "nobody", "make it")


labels_and_sizes = st.lists(st.integers(0, 4), min_size=1, max_size=60).flatmap(
    lambda labels: st.tuples(
        st.just(np.array(labels)),
        st.integers(1, len(labels)),
        st.integers(1, len(labels)),
        st.integers(0, 3),
    )
)


@given(labels_and_sizes)
@settings(max_examples=100, deadline=None)
def test_stratified_subsets_are_balanced_sorted_and_nested(case):
    labels, a, b, seed = case
    small, large = (stratified(labels, n, seed) for n in sorted((a, b)))
    assert len(large) == max(a, b)
    assert (np.diff(large) > 0).all()
    assert set(small) <= set(large)
    taken, there = (np.bincount(x, minlength=5) for x in (labels[large], labels))
    # A class lags behind another by more than one only where it has run out.
    assert all(taken[c] == there[c] for c in range(5) if taken[c] < taken.max() - 1)


def test_stratified_is_the_same_everywhere():
    labels = np.arange(1000) % 10
    assert stratified(labels, 10).tolist() == [92, 196, 269, 403, 504, 608, 657, 850, 855, 921]


def test_stratified_shuffles_and_the_seed_matters():
    labels = np.zeros(1000, int)
    assert stratified(labels, 500).mean() == pytest.approx(500, abs=50)
    assert stratified(labels, 500).tolist() != stratified(labels, 500, seed=1).tolist()


@pytest.mark.parametrize("n", [0, -1, 11])
def test_stratified_refuses_impossible_sizes(n):
    with pytest.raises(FieldError, match=r"n must be in 1\.\.10"):
        stratified(np.zeros(10, int), n)


def test_mean_pool_by_hand():
    image = np.array([[0, 1, 255, 255], [0, 0, 255, 254], [1, 1, 10, 20], [0, 0, 30, 41]], np.uint8)
    images = np.stack([image, image[::-1]], axis=-1)[None]
    pooled = mean_pool(images, 2)
    # 1/4 rounds down, 1019/4 = 254.75 up, 2/4 half up, 101/4 = 25.25 down.
    assert pooled[0, :, :, 0].tolist() == [[0, 255], [1, 25]]
    assert pooled[0, :, :, 1].tolist() == [[1, 25], [0, 255]]
    assert pooled.dtype == np.uint8
    np.testing.assert_array_equal(mean_pool(images, 4), images)


@pytest.mark.parametrize(("shape", "size"), [((4, 4), 3), ((4, 4), 0), ((4, 8), 4), ((4, 4), 8)])
def test_mean_pool_refuses_sizes_that_do_not_divide(shape, size):
    with pytest.raises(FieldError, match="size must be a divisor"):
        mean_pool(np.zeros((1, *shape, 1), np.uint8), size)


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("NORMLAB_DATA", "~/sets")
    assert data_root() == Path.home() / "sets"
    for unset in (
        lambda: monkeypatch.setenv("NORMLAB_DATA", ""),
        lambda: monkeypatch.delenv("NORMLAB_DATA"),
    ):
        unset()
        assert data_root().is_absolute() and data_root().name == "normlab"


def test_importing_the_package_brings_in_nothing_heavy():
    program = (
        "import sys, normlab.data, normlab.data.listing; "
        "print(*{'jax', 'pyarrow', 'PIL', 'requests', 'rich'} & sys.modules.keys()); "
        "from normlab.data import Flip, apply_all; print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines() == ["", "True"], done.stderr


def test_package_has_no_other_names():
    import normlab.data

    for name in normlab.data.__all__:
        found = getattr(normlab.data, name)
        assert getattr(found, "__name__", name) == name  # the names of a group have none
    with pytest.raises(AttributeError, match="no attribute 'Flop'"):
        _ = normlab.data.Flop


def test_the_validation_split_is_the_sets_own_or_held_out_or_none():
    part = blank(np.arange(10) % 2)
    whole = Dataset("ten", part, part, ("even", "odd"), validation=blank(np.arange(4) % 2))
    outline = Outline((2, 2, 1), 2, 10, 10, 4)
    for asked, train, validation in ((None, 10, 0), ("own", 10, 4), (6, 4, 6)):
        found = whole.validated(asked)
        assert len(found.train.labels) == train
        assert (0 if found.validation is None else len(found.validation.labels)) == validation
        assert outline.validated(asked) == ((2, 2, 1), 2, train, 10, validation)
    with pytest.raises(FieldError, match="this set has none of its own"):
        outline._replace(validation_examples=0).validated("own")


def blank(labels):
    return Split(np.zeros((len(labels), 2, 2, 1), np.uint8), labels.astype(np.int32))
