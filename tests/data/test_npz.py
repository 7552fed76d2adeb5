"""A person's own arrays in an `.npz` file, under the names that people use."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from normlab.data import Npz, Outline, mapped
from normlab.data.npz import _role
from normlab.errors import FieldError, UserError
from tests.data.test_damage import damaged

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20) % 2
TX, TY = RNG.integers(0, 256, (6, 8, 8, 3), np.uint8), np.arange(6) % 2


def saved(folder, save=np.savez, **arrays):
    save(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


FORMS = [
    ("x_train", "y_train", "x_test", "y_test"),
    ("X_train", "Y_train", "X_test", "Y_test"),
    ("xtrain", "ytrain", "xtest", "ytest"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images_train", "labels_train", "images_testing", "labels_testing"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("train_data", "train_targets", "test_data", "test_targets"),
    ("train/image", "train/label", "test/image", "test/label"),
]


@pytest.mark.parametrize("names", FORMS, ids=[form[0] for form in FORMS])
def test_names_that_people_use(names, tmp_path):
    path = saved(tmp_path, **dict(zip(names, (X, Y, TX, TY), strict=True)))
    data = Npz(path).load()
    np.testing.assert_array_equal(data.train.images, X)
    np.testing.assert_array_equal(data.train.labels, Y)
    np.testing.assert_array_equal(data.test.images, TX)
    np.testing.assert_array_equal(data.test.labels, TY)
    assert Npz(path).outline() == Outline((8, 8, 3), 2, 20, 6, 0)


@pytest.mark.parametrize(
    "names", [("x", "y"), ("X", "y"), ("images", "labels"), ("data", "target"), ("arr_0", "arr_1")]
)
def test_without_a_test_split_one_is_drawn(names, tmp_path):
    path = saved(tmp_path, **dict(zip(names, (X, Y), strict=True)))
    assert Npz(path).outline() == Outline((8, 8, 3), 2, 16, 4, 0)
    data, other = Npz(path).load(), Npz(path, seed=1).load()
    assert (len(data.train.labels), len(data.test.labels)) == (16, 4)
    assert data.fingerprint != other.fingerprint
    assert data.source == ".npz file, 20% of each class for testing by seed 0"


def test_arrays_without_names_are_told_apart_by_their_shapes(tmp_path):
    for order in ((X, Y, TX, TY), (X, TX, Y, TY)):
        np.savez(tmp_path / "mine.npz", *order)
        data = Npz(tmp_path / "mine.npz").load()
        np.testing.assert_array_equal(data.test.images, TX)
        np.testing.assert_array_equal(data.test.labels, TY)


def test_the_layout_of_medmnist_is_read(tmp_path):
    labels = {"train_labels": Y[:, None], "val_labels": TY[:, None], "test_labels": TY[:, None]}
    path = saved(tmp_path, train_images=X, val_images=TX, test_images=TX, **labels)
    assert Npz(path).outline() == Outline((8, 8, 3), 2, 20, 6, 6)
    validation = Npz(path).load().validation
    assert validation is not None
    np.testing.assert_array_equal(validation.images, TX)


@pytest.mark.parametrize(
    "keys",
    [("a", "b", "c", "d"),
     ["a", "b", "c", "d"],
     {"train_images": "a", "train_labels": "b", "test_images": "c", "test_labels": "d"},
     {"x": "a", "y": "b", "x_test": "c", "y_test": "d"}],
    ids=["tuple", "list", "mapping", "short"],
)  # fmt: skip
def test_keys_can_be_given(keys, tmp_path):
    described = Npz(saved(tmp_path, a=X, b=Y, c=TX, d=TY, mean=X[0]), keys=keys)
    np.testing.assert_array_equal(described.load().test.images, TX)
    assert hash(described) == hash(described.settled()) or described.settled().contents


def test_other_forms_of_pixels_and_labels(tmp_path):
    names = np.array(["dog", "cat"])[Y]
    path = saved(tmp_path, x=X.transpose(0, 3, 1, 2) / 255, y=names, mean=np.zeros(3))
    described = Npz(path)
    assert described.outline().image_shape == (8, 8, 3)
    data = described.load()
    assert data.classes == ("cat", "dog")
    assert "channels moved last, 0..1 scaled to 0..255" in data.source
    grey = Npz(saved(tmp_path, x=X[..., 0], y=np.eye(2)[Y])).outline()
    assert grey.image_shape == (8, 8, 1)


def test_names_of_classes_in_the_file_or_the_config(tmp_path):
    path = saved(tmp_path, x=X, y=Y, class_names=np.array(["even", "odd"]))
    assert Npz(path).load().classes == ("even", "odd")
    assert Npz(path, classes=("a", "b")).load().classes == ("a", "b")


def test_images_are_resized_with_antialiasing_and_recoloured(tmp_path):
    path = saved(tmp_path, x_train=X, y_train=Y, x_test=TX, y_test=TY)
    described = Npz(path, size=4, channels=1)
    assert described.outline().image_shape == (4, 4, 1)
    picture = Image.fromarray(X[3]).convert("L").resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(described.load().train.images[3, ..., 0], np.asarray(picture))
    grey = Npz(saved(tmp_path, x=X[..., 0], y=Y), channels=3).load().train.images
    assert (grey[..., 0] == grey[..., 2]).all() and grey.shape == (16, 8, 8, 3)


def test_only_labels_are_read_for_the_outline(tmp_path):
    path = saved(tmp_path, x=np.tile(X, (50, 1, 1, 1)), y=np.tile(Y, 50))
    whole = bytearray(path.read_bytes())
    whole[150_000] ^= 4  # in the pixels
    path.write_bytes(whole)
    assert Npz(path).outline().train_examples == 800
    with pytest.raises(UserError, match=r"mine.npz: .*CRC.*Copy it again.*numpy\.savez"):
        Npz(path).load()


def test_a_changed_file_is_another_data_set(tmp_path):
    before = Npz(saved(tmp_path, x=X, y=Y)).settled()
    changed = X.copy()
    changed[0, 0, 0] ^= 1
    saved(tmp_path, x=changed, y=Y)
    assert Npz(before.path).settled().contents != before.contents
    with pytest.raises(UserError, match="not those that the run was planned with"):
        before.load()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"which array has the images of train, the labels of train\? .* holds no arrays"),
        ({"a": X, "b": Y}, r"the file holds a uint8\[20, 8, 8, 3\], b int64\[20\]\. Give 'keys'"),
        ({"x": X, "y": Y, "x_test": X}, r"which array has the labels of test\?"),
        ({"x": X, "images": X, "y": Y}, r"'x' and 'images' may both be the images of train"),
        ({"x": X, "y": np.array([{}] * 20)}, r"'y' holds Python's objects.*array.astype\(str\)"),
        ({"x": X, "y": Y + 0.5}, r"regression is not supported"),
        ({"x": X, "y": Y[1:]}, r"train has 20 images and 19 labels"),
        ({"x": X / 100, "y": Y}, r"what is white\?"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_asked(arrays, message, tmp_path):
    path = saved(tmp_path, **arrays)
    with pytest.raises(UserError, match=rf"mine.npz.*{message}") as raised:
        Npz(path).load()
    assert "elete" not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [(("x",), "2, 4 or 6 names"), (("x", "z"), r"no array z; the file holds x"),
     ({"x": "x", "names": "y"}, "the name 'names'")],
)  # fmt: skip
def test_keys_that_are_not_there(keys, message, tmp_path):
    with pytest.raises(FieldError, match=message):
        Npz(saved(tmp_path, x=X, y=Y), keys=keys).load()


def test_a_way_to_fit_that_does_not_exist_is_refused():
    with pytest.raises(FieldError, match="fit must be one of crop, pad, stretch, got 'squeeze'"):
        Npz("mine.npz", fit="squeeze")  # type: ignore[arg-type]


def test_roles_of_names():
    assert _role("val_images") == ("validation", "images")
    assert _role("x_train_mean") is None and _role("train") is None and _role("xy") is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_randomly_damaged_files_are_read_or_refused(save, tmp_path):
    path = saved(tmp_path, save, x=X[:, :2, :2], y=Y)
    whole, refused = path.read_bytes(), 0
    for seed in range(150):
        path.write_bytes(damaged(whole, seed))
        try:
            Npz(path).outline()
            Npz(path).load()
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "elete" not in str(error)
    assert refused > 75


def test_an_array_that_is_too_large_for_the_memory_is_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr("normlab.data.reading.MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(mapped, "MOST_IN_MEMORY", 1000)
    for save in (np.savez, np.savez_compressed):
        path = saved(tmp_path, save, x=X, y=Y)
        data = Npz(path).load()
        assert mapped.is_mapped(data.train.images)
        assert sorted(i.tobytes() for i in np.concatenate([data.train.images, data.test.images])) \
            == sorted(i.tobytes() for i in X)  # fmt: skip
        held = data.hold_out(4)
        assert mapped.is_mapped(held.train.images)
    with zipfile.ZipFile(path, "w") as file:
        buffer = io.BytesIO()
        np.save(buffer, X)
        file.writestr("x.npy", buffer.getvalue()[:-100])
    with pytest.raises(UserError, match="which array"):
        Npz(path).load()
