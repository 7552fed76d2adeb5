"""MedMNIST is read from tiny files that the tests make, and from the real file if it exists."""

import numpy as np
import pytest

from normlab.data import Medmnist
from normlab.data import download as download_module
from normlab.data.medmnist_sets import SETS
from normlab.errors import FieldError, UserError


def arrays(name, counts=(12, 5, 7), side=28):
    """Make arrays as published, of a set with these numbers of examples in each part."""
    rng, published = np.random.default_rng(0), SETS[name]
    colours = () if published.channels == 1 else (3,)
    found = {}
    for part, n in zip(("train", "val", "test"), counts, strict=True):
        found[f"{part}_images"] = rng.integers(0, 256, (n, side, side, *colours), np.uint8)
        found[f"{part}_labels"] = (np.arange(n) % len(published.classes)).astype(np.uint8)[:, None]
    return found


def write(root, name, contents):
    (root / "medmnist").mkdir(exist_ok=True)
    path = root / "medmnist" / f"{name}.npz"
    np.savez(path, **contents)
    return path


@pytest.mark.parametrize("name", ["pneumoniamnist", "bloodmnist"])
def test_all_three_splits_are_read_exactly(name, tmp_path):
    contents = arrays(name)
    write(tmp_path, name, contents)
    data = Medmnist(name).load(tmp_path)
    for part, split in (("train", data.train), ("val", data.validation), ("test", data.test)):
        images = contents[f"{part}_images"]
        assert split.images.shape == (len(images), 28, 28, SETS[name].channels)
        np.testing.assert_array_equal(split.images.reshape(images.shape), images)
        np.testing.assert_array_equal(split.labels, contents[f"{part}_labels"][:, 0])
    assert (data.name, data.classes) == (name, SETS[name].classes)


def test_the_outline_is_of_the_file_that_is_here_or_else_as_published(tmp_path):
    outline = Medmnist().outline(tmp_path)
    assert outline == ((28, 28, 1), 2, 4708, 624, 524)
    write(tmp_path, "pneumoniamnist", arrays("pneumoniamnist"))
    assert Medmnist().outline(tmp_path) == ((28, 28, 1), 2, 12, 7, 5)
    (tmp_path / "medmnist" / "pneumoniamnist.npz").write_bytes(b"torn")
    assert Medmnist().outline(tmp_path) == outline


def test_a_balanced_cut_has_as_many_of_each_class_as_the_rarest(tmp_path):
    contents = arrays("pneumoniamnist", (12, 5, 7))
    contents["train_labels"] = np.array([[1]] * 9 + [[0]] * 3, np.uint8)
    write(tmp_path, "pneumoniamnist", contents)
    described = Medmnist(balance=True)
    data, whole = described.load(tmp_path), Medmnist().load(tmp_path)
    assert np.bincount(data.train.labels).tolist() == [3, 3]
    assert data.train.images.shape == (6, *described.outline(tmp_path).image_shape)
    assert described.outline(tmp_path) == Medmnist().outline(tmp_path)._replace(train_examples=6)
    # Each is one of the whole set's, under its own label, and none is there twice.
    places = [(whole.train.images == image).all(axis=(1, 2, 3)).nonzero()[0] for image in
              data.train.images]  # fmt: skip
    chosen = np.concatenate(places)
    assert len(set(chosen.tolist())) == len(chosen) == 6
    np.testing.assert_array_equal(whole.train.labels[chosen], data.train.labels)
    assert described.load(tmp_path).fingerprint == data.fingerprint != whole.fingerprint
    for part in ("test", "validation"):
        np.testing.assert_array_equal(getattr(data, part).images, getattr(whole, part).images)
    assert data.source == ".npz of 12, 5 and 7 examples, not as published, balanced"


def test_without_the_file_nobody_knows_how_large_a_balanced_cut_is(tmp_path):
    with pytest.raises(FieldError, match=r"balance needs the file.*pneumoniamnist\.npz"):
        Medmnist(balance=True).outline(tmp_path)


def test_the_file_may_lie_in_the_root_itself(tmp_path):
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays("pneumoniamnist"))
    assert len(Medmnist().load(tmp_path).train.labels) == 12
    assert Medmnist("bloodmnist").locate(tmp_path) is None


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError) as raised:
        Medmnist("bloodmnist").load(tmp_path)
    for text in ("no bloodmnist.npz in", str(tmp_path), "zenodo.org", "NORMLAB_DATA"):
        assert text in str(raised.value)


DAMAGE = {
    "no labels": (lambda a: a.pop("val_labels"), "an array 'val_labels', found none"),
    "another size": (
        lambda a: a.update(test_images=np.zeros((7, 64, 64), np.uint8)),
        "test_images as uint8 of shape (N, 28, 28), found uint8 of shape (7, 64, 64)",
    ),
    "colour": (
        lambda a: a.update(train_images=np.zeros((12, 28, 28, 3), np.uint8)),
        "found uint8 of shape (12, 28, 28, 3)",
    ),
    "floats": (
        lambda a: a.update(train_images=np.zeros((12, 28, 28))),
        "found float64 of shape (12, 28, 28)",
    ),
    "several labels": (
        lambda a: a.update(train_labels=np.zeros((12, 14), np.uint8)),
        "train_labels as integers of shape (12, 1), found uint8 of shape (12, 14)",
    ),
    "an unknown label": (
        lambda a: a.update(test_labels=np.full((7, 1), 2, np.uint8)),
        "test_labels in 0..1, found 2..2",
    ),
}


@pytest.mark.parametrize("change, found", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named_with_what_was_found(change, found, tmp_path):
    contents = arrays("pneumoniamnist")
    change(contents)
    path = write(tmp_path, "pneumoniamnist", contents)
    with pytest.raises(UserError) as raised:
        Medmnist().load(tmp_path)
    for text in (str(path), found, "download it again"):
        assert text in str(raised.value)


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_a_torn_file_is_damaged(kept, tmp_path):
    path = write(tmp_path, "pneumoniamnist", arrays("pneumoniamnist"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"a whole \.npz file, found damage"):
        Medmnist().load(tmp_path)


def test_a_compressed_file_is_read_and_its_damage_told(tmp_path):
    path = write(tmp_path, "pneumoniamnist", {})
    np.savez_compressed(path, **arrays("pneumoniamnist"))
    assert len(Medmnist().load(tmp_path).train.labels) == 12
    contents = bytearray(path.read_bytes())
    contents[1000:1200] = bytes(200)
    path.write_bytes(contents)
    with pytest.raises(UserError, match="found damage"):
        Medmnist().load(tmp_path)


def test_objects_are_never_unpickled(tmp_path):
    contents = arrays("pneumoniamnist")
    contents["train_labels"] = np.array([{"a": 1}] * 12, object)
    write(tmp_path, "pneumoniamnist", contents)
    with pytest.raises(UserError, match="found damage"):
        Medmnist().load(tmp_path)


def test_a_set_that_is_not_there_is_refused():
    with pytest.raises(FieldError, match="set must be one of bloodmnist, "):
        Medmnist("chestmnist")  # type: ignore[arg-type]  # of several labels an image


def test_the_set_of_several_labels_an_image_is_refused_in_a_sentence():
    with pytest.raises(FieldError, match="an image of chestmnist has up to fourteen labels"):
        Medmnist("chestmnist")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("side", [64, 128, 224])
def test_larger_sizes_have_their_own_files(name, side, tmp_path):
    counts = (len(SETS[name].classes), 1, 2)
    described = Medmnist(name, size=side)
    assert described.outline(tmp_path).image_shape == (side, side, SETS[name].channels)
    write(tmp_path, name, arrays(name))
    with pytest.raises(UserError, match=f"no {name}_{side}.npz in .*10519652/files/{name}_{side}"):
        described.load(tmp_path)
    contents = arrays(name, counts, side)
    write(tmp_path, f"{name}_{side}", contents)
    data = described.load(tmp_path)
    np.testing.assert_array_equal(data.train.images.squeeze(-1) if SETS[name].channels == 1
                                  else data.train.images, contents["train_images"])  # fmt: skip
    assert described.outline(tmp_path)[2:] == (counts[0], counts[2], counts[1])
    assert Medmnist(name).load(tmp_path).train.images.shape[1] == 28


def test_sizes_that_are_not_published_are_refused():
    with pytest.raises(FieldError, match=r"size must be one of \(28, 64, 128, 224\), got 32"):
        Medmnist(size=32)  # type: ignore[arg-type]
    assert Medmnist("organamnist", size=64).outline().train_examples == 34561


def test_larger_files_are_fetched_with_their_checksums(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(download_module, "download", lambda *all: asked.append(all))
    Medmnist("bloodmnist", size=224).fetch(tmp_path, progress=False)
    url = "https://zenodo.org/records/10519652/files/bloodmnist_224.npz"
    md5 = "md5:b718ff6835fcbdb22ba9eacccd7b2601"
    assert asked == [(url, tmp_path / "medmnist" / "bloodmnist_224.npz", md5, False)]
    every = [md5 for published in SETS.values() for md5 in published.md5.values()]
    assert len(set(every)) == 4 * len(SETS) == 44


def test_fetching_asks_for_the_published_file_and_checksum(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(download_module, "download", lambda *all: asked.append(all))
    Medmnist("bloodmnist").fetch(tmp_path, progress=False)
    url = "https://zenodo.org/records/6496656/files/bloodmnist.npz"
    md5 = "md5:7053d0359d879ad8a5505303e11de1dc"
    assert asked == [(url, tmp_path / "medmnist" / "bloodmnist.npz", md5, False)]


def test_the_real_file_has_the_published_test_split():
    if Medmnist().locate() is None:
        pytest.skip("pneumoniamnist.npz is not in NORMLAB_DATA or the cache folder")
    data, outline = Medmnist().load(), Medmnist().outline()
    assert np.bincount(data.test.labels).tolist() == [234, 390]
    assert data.validation is not None and len(data.validation.labels) == 524
    assert outline.train_examples == len(data.train.labels)
    assert data.train.images.shape[1:] == outline.image_shape == (28, 28, 1)
