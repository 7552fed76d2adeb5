"""`Dataset.from_arrays`: images and labels in any form that people have them, or a question."""

import numpy as np
import pytest

from normlab.data import Dataset
from normlab.errors import FieldError, UserError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 8, 8, 3), np.uint8)
Y = np.arange(20) % 2


def made(x=X, y=Y, **more):
    return Dataset.from_arrays(x, y, test=(x, y), **more)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (X, X),
        (X.astype(np.int64), X),
        (X.astype(np.float32), X),
        (X.astype(np.float64) / 255, X),
        ((X / 255).astype(np.float32), X),
        ((X / 255).astype(np.float16), X),
        (X.astype(np.uint16) * 257, X),
        (X.transpose(0, 3, 1, 2), X),
        ((X.transpose(0, 3, 1, 2) / 255).astype(np.float32), X),
        (X[..., :1].transpose(0, 3, 1, 2), X[..., :1]),
        (X[..., 0], X[..., :1]),
        (X > 100, (X > 100) * np.uint8(255)),
        (X.tolist(), X),
        (X[:, :4, :6], X[:, :4, :6]),
        (X[..., :2], X[..., :2]),
    ],
    ids=["uint8", "int64", "float32", "unit64", "unit32", "unit16", "uint16", "channels first",
         "torch", "grey first", "grey", "bool", "lists", "not square", "two channels"],
)  # fmt: skip
def test_images_of_any_form(given, expected):
    data = made(given)
    assert data.train.images.dtype == np.uint8
    np.testing.assert_array_equal(data.train.images, expected)
    np.testing.assert_array_equal(data.test.images, expected)


def test_one_rule_holds_for_all_parts():
    dark = np.zeros((4, 8, 8, 3))
    data = Dataset.from_arrays(X.astype(float), Y, test=(dark + 1, [0, 1, 0, 1]))
    assert data.test.images.max() == 1
    np.testing.assert_array_equal(data.train.images, X)


def test_whole_floats_need_not_reach_white():
    grey = np.arange(17, dtype=float)[None, :, None].repeat(17, 2).repeat(2, 0)
    assert made(grey, [0, 1]).train.images.max() == 16


def test_transparency_is_laid_over_white():
    alpha = RNG.integers(0, 256, (20, 8, 8, 1), np.uint8)
    data = made(np.concatenate([X, alpha], axis=-1))
    share = alpha / 255
    np.testing.assert_allclose(data.train.images, share * X + (1 - share) * 255.0, atol=0.5001)
    assert "laid over white" in data.source
    opaque = made(np.concatenate([X, np.full_like(alpha, 255)], axis=-1))
    np.testing.assert_array_equal(opaque.train.images, X)


def test_what_was_done_is_told():
    source = made(X.transpose(0, 3, 1, 2) / 255).source
    assert source == "arrays, channels moved last, 0..1 scaled to 0..255"


@pytest.mark.parametrize(
    ("given", "question"),
    [
        (X / 127.5 - 1, r"-1\.\.1\? Then give \(x \+ 1\) / 2"),
        ((X - 128.0) / 60, r"standardised\? Then give them as they were before"),
        (X / 255 * 1.5, r"what is white\? If it is 1\.5, give x / 1\.5"),
        (X.astype(np.int32) * 3, r"what is white\?"),
        (np.where(X > 250, np.nan, X), r"pixels are NaN or infinite"),
        (X.reshape(20, -1), r"flattened grey|flattened colour images of 8x8\? Then give x.reshape"),
        (np.zeros((20, 64)), r"flattened grey images of 8x8\? Then give x.reshape\(-1, 8, 8\)"),
        (np.zeros((20, 65)), r"not flattened ones"),
        (np.zeros((20, 12, 8, 8)), r"are these 12 channels first\? Then give np.moveaxis"),
        (np.zeros((20, 8, 8, 8, 1)), r"must be \(N, H, W, C\)"),
        (np.array(["a"] * 20), r"must be numbers"),
        ([np.zeros((8, 8)), np.zeros((9, 9))] * 10, r"several sizes must be resized first"),
    ],
)
def test_what_may_mean_two_things_is_asked(given, question):
    with pytest.raises(UserError, match=question):
        made(given)


def test_no_images_and_one_image_are_refused():
    with pytest.raises(UserError, match="train has no images"):
        made(np.zeros((0, 8, 8)), [])
    with pytest.raises(UserError, match=r"is this one colour image\? Then give x\[None\]"):
        made(np.zeros((6, 8, 3)), [0] * 6)


DTYPES = [
    np.int8,
    np.uint8,
    np.int32,
    np.int64,
    np.uint64,
    np.float16,
    np.float32,
    np.float64,
    bool,
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_of_any_dtype(dtype):
    data = made(y=Y.astype(dtype))
    assert data.train.labels.dtype == np.int32
    np.testing.assert_array_equal(data.train.labels, Y)
    assert data.classes == ("0", "1")


NAMES = np.array(["dog", "cat"])[Y]


@pytest.mark.parametrize(
    ("labels", "expected", "classes"),
    [
        (Y[:, None], Y, ("0", "1")),
        (np.eye(2)[Y], Y, ("0", "1")),
        (np.eye(2, dtype=bool)[Y], Y, ("0", "1")),
        (Y.tolist(), Y, ("0", "1")),
        (Y * 5 + 3, Y, ("3", "8")),
        (Y * 2 - 1, Y, ("-1", "1")),
        (NAMES, 1 - Y, ("cat", "dog")),
        (NAMES.astype(object), 1 - Y, ("cat", "dog")),
        (NAMES.astype("S3"), 1 - Y, ("cat", "dog")),
        (NAMES[:, None].tolist(), 1 - Y, ("cat", "dog")),
        (np.array([" dog", "cat\n"] * 10), 1 - Y, ("cat", "dog")),
    ],
)  # fmt: skip
def test_labels_of_any_form(labels, expected, classes):
    data = made(y=labels)
    np.testing.assert_array_equal(data.train.labels, expected)
    assert data.classes == classes


def test_classes_can_be_named():
    assert made(classes=("even", "odd")).classes == ("even", "odd")
    data = made(y=NAMES, classes=("dog", "cat"))
    np.testing.assert_array_equal(data.train.labels, Y)
    assert made(y=np.eye(2)[Y], classes=["a", "b"]).classes == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y + 0.37, r"numbers such as 0\.37: normlab compares classifiers.*regression is not"),
        (np.where(Y, 1.0, np.nan), r"lacks 10 labels, the first at number 0"),
        ([None, "a"] * 10, r"lacks 10 labels, the first at number 0"),
        (["a", 1] * 10, r"of two kinds: number 0 is 'a', number 1 is 1"),
        (np.ones((20, 2)), r"row 0 of its labels has 2: it has several labels an example"),
        ([[0], [0, 1]] * 10, r"several labels an example|no array"),
        (RNG.random((20, 2)), r"for probabilities or scores give labels.argmax"),
        (np.zeros((20, 2, 2)), r"must be \(N,\), \(N, 1\) or one-hot"),
        (Y[:-1], r"train has 20 images and 19 labels"),
        (3, r"train has 20 images and None labels"),
        (np.zeros(20), r"two or more classes, found the class '0' alone"),
        (Y.astype(complex), r"of numbers or strings, found complex"),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        Dataset.from_arrays(X, labels, test=(X, Y if isinstance(labels, int) else labels))


def test_classes_must_fit_the_labels():
    with pytest.raises(UserError, match=r"must lie in 0\.\.0 for 1 classes, found 0\.\.1"):
        made(classes=("a",))
    with pytest.raises(UserError, match=r"'cat', 'dog' are not among the classes"):
        made(y=NAMES, classes=("Cat", "Dog"))
    with pytest.raises(UserError, match="no training examples of 2; test has 2"):
        Dataset.from_arrays(X, Y, test=(X, Y * 2))
    with pytest.raises(UserError, match="one kind in all parts, found train numbers, test texts"):
        Dataset.from_arrays(X, Y, test=(X, NAMES))
    with pytest.raises(UserError, match=r"test must be \(images, labels\), got ndarray"):
        Dataset.from_arrays(X, Y, test=X)  # type: ignore[arg-type]


def test_the_test_split_is_drawn_by_class_and_seed():
    labels = np.array([0] * 10 + [1] * 5 + [2] * 4 + [3])
    one, again, other = (Dataset.from_arrays(X, labels, seed=seed) for seed in (0, 0, 1))
    assert np.bincount(one.test.labels, minlength=4).tolist() == [2, 1, 1, 0]
    assert np.bincount(one.train.labels).tolist() == [8, 4, 3, 1]
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert "20% of each class for testing by seed 0" in one.source
    together = np.concatenate([one.train.images, one.test.images])
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in X)
    half = Dataset.from_arrays(X, Y, test_share=0.5)
    assert len(half.test.labels) == 10
    with pytest.raises(FieldError, match="test_share must be above 0 and below 1"):
        Dataset.from_arrays(X, Y, test_share=1.0)
    with pytest.raises(FieldError, match="seed must be at least 0, got -1"):
        Dataset.from_arrays(X, Y, seed=-1)
    with pytest.raises(UserError, match="no class has two examples"):
        Dataset.from_arrays(X[:2], Y[:2])


def test_a_validation_split_can_be_given():
    data = made(validation=(X[:4], Y[:4]))
    assert data.validation is not None
    np.testing.assert_array_equal(data.validation.images, X[:4])


def test_a_folder_can_be_read(tmp_path):
    from PIL import Image

    for name, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (4, 4), colour).save(tmp_path / name / f"{i}.png")
    data = Dataset.from_folder(str(tmp_path), size=2, test_share=0.5)
    assert data.train.images[:, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert data.classes == ("cat", "dog")
