"""Image sets of the hub: their layouts, columns and names, and what is missing or damaged."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from normlab.data import Outline, Parquet
from normlab.errors import FieldError, UserError
from tests.data.test_damage import damaged

NAMES = ("cat", "dog", "fox")
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(pixels, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def pixels(n, seed=0, size=(64, 64)):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), np.uint8)


def described(**features):
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


CLASSES = described(
    image={"_type": "Image"}, label={"_type": "ClassLabel", "names": list(NAMES)}
)  # fmt: skip


def write(file, images, labels, image="image", label="label", metadata=CLASSES, **more):
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": i if i is None or isinstance(i, bytes) else encoded(i), "path": "a.png"}
            for i in images]  # fmt: skip
    columns = {image: pa.array(rows, PICTURE), label: pa.array(labels), **more}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)


def hub(folder, names, n=6):
    """Write a file of `n` pictures for each name, and return the pixels of each."""
    made = {}
    for seed, name in enumerate(names):
        made[name] = pixels(n, seed)
        write(folder / name, made[name], [i % 3 for i in range(n)])
    return made


LAYOUTS = {
    "hashed": (
        "data/train-00000-of-00002-a1b2c3.parquet",
        "data/train-00001-of-00002-d4e5f6.parquet",
        "data/validation-00000-of-00001-00ff.parquet",
        "data/test-00000-of-00001-77aa.parquet",
    ),
    "flat": (
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "valid.parquet",
        "test.parquet",
    ),
    "folders": (
        "plain/train/0000.parquet",
        "plain/train/0001.parquet",
        "plain/valid/0000.parquet",
        "plain/test/0000.parquet",
    ),
    "default": (
        "default/train/0000.parquet",
        "default/train/0001.parquet",
        "default/val/0000.parquet",
        "default/testing/0000.parquet",
    ),
    "with a name": (
        "pets-train-00000-of-00002.parquet",
        "pets-train-00001-of-00002.parquet",
        "pets-dev.parquet",
        "pets_test.parquet",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_hub(layout, tmp_path):
    names = LAYOUTS[layout]
    made = hub(tmp_path, names)
    described_ = Parquet(tmp_path)
    assert described_.outline() == Outline((64, 64, 3), 3, 12, 6, 6)
    data = described_.load()
    assert data.classes == NAMES and data.validation is not None
    np.testing.assert_array_equal(
        data.train.images, np.concatenate([made[names[0]], made[names[1]]])
    )
    np.testing.assert_array_equal(data.validation.images, made[names[2]])
    np.testing.assert_array_equal(data.test.images, made[names[3]])
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    assert data.name == tmp_path.name


def test_without_a_test_table_the_split_is_drawn_by_seed(tmp_path):
    hub(tmp_path, ["train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"], 15)
    assert Parquet(tmp_path).outline() == Outline((64, 64, 3), 3, 12, 3, 15)
    one, other = (Parquet(tmp_path, seed=seed).load() for seed in (0, 1))
    assert one.fingerprint != other.fingerprint
    assert "20% of each class for testing by seed 0" in one.source
    file = tmp_path / "train-00000-of-00001.parquet"
    assert Parquet(file).outline() == Outline((64, 64, 3), 3, 12, 3, 0)


@pytest.mark.parametrize(
    ("image", "label"), [("img", "fine_label"), ("image", "label"), ("image", "labels")]
)
def test_columns_that_people_use(image, label, tmp_path):
    metadata = described(**{label: {"_type": "ClassLabel", "names": {"0": "a", "1": "b"}}})
    write(tmp_path / "train.parquet", pixels(6), [0, 1] * 3, image, label, metadata,
          coarse_label=pa.array([7] * 6), caption=pa.array(["?"] * 6))  # fmt: skip
    data = Parquet(tmp_path).load()
    assert data.classes == ("a", "b")


def test_columns_can_be_given_or_are_the_only_ones(tmp_path):
    metadata = described(species={"_type": "ClassLabel", "names": ["a", "b"]})
    write(tmp_path / "train.parquet", pixels(6), [0, 1] * 3, "photo", "species", metadata)
    assert Parquet(tmp_path).load().classes == ("a", "b")
    write(tmp_path / "train.parquet", pixels(6), [0, 1] * 3, "photo", "kind", None)
    with pytest.raises(FieldError, match=r"which column has the labels\? Give 'label: COLUMN'"):
        Parquet(tmp_path).outline()
    assert Parquet(tmp_path, label="kind").outline().classes == 2
    with pytest.raises(FieldError, match="there is no column 'z'; found photo"):
        Parquet(tmp_path, image="z", label="kind").outline()
    with pytest.raises(FieldError, match="the column 'kind' of int64 holds no encoded pictures"):
        Parquet(tmp_path, image="kind", label="kind").outline()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["dog", "cat"] * 3, ("cat", "dog")),
        ([3, 7] * 3, ("3", "7")),
        ([True, False] * 3, ("0", "1")),
        (pa.array(["b", "a"] * 3).dictionary_encode(), ("a", "b")),
        ([1.0, 0.0] * 3, ("0", "1")),
    ],
)
def test_labels_without_names(labels, expected, tmp_path):
    write(tmp_path / "train.parquet", pixels(6), labels, metadata=None)
    data = Parquet(tmp_path, test_share=0.4).load()
    assert data.classes == expected
    first = np.asarray(labels.to_pylist() if isinstance(labels, pa.Array) else labels)[0]
    label = (
        expected.index(str(first))
        if isinstance(first, np.str_)
        else expected.index(str(int(first)))
    )
    assert data.train.labels.tolist().count(label) == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.5] * 3, r"numbers such as 0\.5: normlab compares classifiers.*regression"),
        ([[0], [0, 1]] * 3, r"the column 'label'.*several labels an example"),
        ([None, 1] * 3, r"3 rows have no 'label'"),
        ([-1, 1] * 3, r"3 rows of train have no label \(-1\)"),
        ([0, 5] * 3, r"must lie in 0\.\.2 for 3 classes, found 0\.\.5"),
        ([0] * 6, r"two or more classes, found the class 'cat' alone"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message, tmp_path):
    write(tmp_path / "train.parquet", pixels(6), labels)
    with pytest.raises(UserError, match=message):
        Parquet(tmp_path).outline()


def test_a_test_split_without_labels_is_left_out(tmp_path):
    write(tmp_path / "train.parquet", pixels(9), [0, 1, 2] * 3)
    write(tmp_path / "test.parquet", pixels(3, 1), [-1, -1, -1])
    assert Parquet(tmp_path).outline() == Outline((64, 64, 3), 3, 6, 3, 0)
    assert "the test tables have no labels (-1)" in " ".join(Parquet(tmp_path).remarks())


def test_classes_without_examples_are_left_out_and_others_chosen(tmp_path):
    write(tmp_path / "train.parquet", pixels(6), [0, 2] * 3)
    assert Parquet(tmp_path).load().classes == ("cat", "fox")
    assert "classes without examples: dog" in Parquet(tmp_path).remarks()
    write(tmp_path / "train.parquet", pixels(9), [0, 1, 2] * 3)
    data = Parquet(tmp_path, classes=("fox", "cat")).load()
    assert data.classes == ("fox", "cat") and len(data.train.labels) == 4
    with pytest.raises(FieldError, match="there is no class wolf; found cat, dog, fox"):
        Parquet(tmp_path, classes=("wolf", "cat")).outline()
    write(tmp_path / "train.parquet", pixels(6), [0, 1] * 3, metadata=None)
    assert Parquet(tmp_path, classes=("no", "yes")).load().classes == ("no", "yes")


INCOMPLETE = {
    "a shard is missing": (
        ["train-00000-of-00002-0a1b.parquet"],
        "2 numbered 0..1 of 2, once each",
    ),
    "the first is missing": (["train-00001-of-00002.parquet"], "2 numbered 0..1 of 2"),
    "a number is missing": (["train/0000.parquet", "train/0002.parquet"], r"numbers 0\.\.2"),
    "two uploads": (
        ["train-00000-of-00001-aa.parquet", "train-00000-of-00001-bb.parquet"],
        "1 numbered",
    ),
    "a browser's copy": (
        ["train-00000-of-00001.parquet", "train-00000-of-00001 (1).parquet"],
        "looks like a copy",
    ),
    "a manager's copy": (["train-0000.parquet", "train-0000 - Copy.parquet"], "looks like a copy"),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_tables_that_are_missing_or_copies_are_refused(case, tmp_path):
    names, message = INCOMPLETE[case]
    hub(tmp_path, [*names, "test-00000-of-00001.parquet"], 3)
    for use in (Parquet(tmp_path).outline, Parquet(tmp_path).load):
        with pytest.raises(UserError, match=message) as raised:
            use()
        assert "elete" not in str(raised.value)


def test_the_same_table_under_two_names_is_refused(tmp_path):
    hub(tmp_path, ["train.parquet"])
    (tmp_path / "test.parquet").write_bytes((tmp_path / "train.parquet").read_bytes())
    with pytest.raises(UserError, match=r"train.parquet and test.parquet have the same contents"):
        Parquet(tmp_path).outline()


def test_places_that_hold_no_set_or_several(tmp_path):
    with pytest.raises(UserError, match="there is no file or folder"):
        Parquet(tmp_path / "nowhere").outline()
    with pytest.raises(UserError, match=r"there are no \.parquet files"):
        Parquet(tmp_path).outline()
    hub(tmp_path, ["full/train-00000-of-00001.parquet", "crops/train-00000-of-00001.parquet"], 9)
    with pytest.raises(UserError, match=r"several sets in it, crops, full; give the folder of one"):
        Parquet(tmp_path).outline()
    assert Parquet(tmp_path / "crops").outline().train_examples == 6
    (tmp_path / "crops" / "train-00000-of-00001.parquet").rename(
        tmp_path / "crops" / "test.parquet"
    )
    with pytest.raises(UserError, match="no table of the training split"):
        Parquet(tmp_path / "crops").outline()


def test_tables_of_no_split_are_left_out_and_told(tmp_path):
    hub(tmp_path, ["train.parquet", "test.parquet", "extra.parquet"])
    assert Parquet(tmp_path).outline().train_examples == 6
    assert "extra.parquet is of no split and left out" in Parquet(tmp_path).remarks()


def test_other_pictures_are_converted_and_broken_ones_named(tmp_path):
    grey = np.full((64, 64), 9, np.uint8)
    rgba = np.zeros((64, 64, 4), np.uint8)
    images = [*pixels(4), grey, rgba, *pixels(3, 1)]
    write(tmp_path / "train.parquet", images, [0, 1, 2] * 3)
    data = Parquet(tmp_path, size=32).load()
    assert data.train.images.shape == (6, 32, 32, 3)
    assert "1 grey, 1 laid over white" in data.source
    images[3], images[4] = b"?", None
    write(tmp_path / "train.parquet", images, [0, 1, 2] * 3)
    with pytest.raises(UserError) as raised:
        Parquet(tmp_path).load()
    assert "2 pictures of 9 cannot be read:\n  train.parquet, row 3: it is no" in str(raised.value)
    assert "row 4: the table has nothing" in str(raised.value)
    assert Parquet(tmp_path, skip_broken=True).outline() == Outline((64, 64, 3), 3, 4, 3, 0)


def test_bytes_without_a_path_are_pictures(tmp_path):
    table = pa.table({"image": [encoded(p) for p in pixels(6)], "label": [0, 1] * 3})
    pq.write_table(table, tmp_path / "train.parquet")
    assert Parquet(tmp_path).load().train.images.shape == (4, 64, 64, 3)


def test_a_changed_table_is_another_data_set(tmp_path):
    hub(tmp_path, ["train.parquet"])
    before = Parquet(tmp_path).settled()
    write(tmp_path / "train.parquet", pixels(6, 9), [0, 1, 2] * 2)
    assert Parquet(tmp_path).settled().contents != before.contents
    with pytest.raises(UserError, match="not those that the run was planned with"):
        before.load()


def test_randomly_damaged_tables_are_read_or_refused(tmp_path):
    path = tmp_path / "train.parquet"
    write(path, pixels(6, size=(4, 4)), [0, 1, 2] * 2)
    whole, refused = path.read_bytes(), 0
    for seed in range(120):
        path.write_bytes(damaged(whole, seed))
        try:
            Parquet(tmp_path).outline()
            Parquet(tmp_path).load()
        except UserError as error:
            refused += 1
            assert str(tmp_path) in str(error) and "elete" not in str(error)
    assert refused > 60
