"""Pictures that a table names: its columns, splits and endings, and what is wrong with it."""

import numpy as np
import pytest
from PIL import Image

from normlab.data import Csv, Outline
from normlab.errors import FieldError, UserError

RNG = np.random.default_rng(0)


@pytest.fixture
def pictures(tmp_path):
    """Make the pictures 0.png to 11.png in a folder, and return it and their pixels."""
    made = RNG.integers(0, 256, (12, 6, 6, 3), np.uint8)
    for n, pixels in enumerate(made):
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    return tmp_path, made


def table(folder, text, encoding="utf-8"):
    (folder / "labels.csv").write_text(text, encoding)
    return folder / "labels.csv"


def rows(*columns, between=","):
    return "".join(
        f"{n}.png{between}" + between.join(c[n] for c in columns) + "\n" for n in range(12)
    )


KINDS = ["dog", "cat"] * 6
PARTS = ["train"] * 4 + ["val"] * 2 + ["test"] * 2 + ["train"] * 4


@pytest.mark.parametrize(
    "head", ["file,label\n", "filename,class\n", "Image , Target\n", "path,species\n", ""]
)
def test_files_and_labels(head, pictures):
    folder, made = pictures
    described = Csv(table(folder, head + rows(KINDS)))
    assert described.outline() == Outline((6, 6, 3), 2, 10, 2, 0)
    data = described.load()
    assert data.classes == ("cat", "dog") and data.name == "labels"
    by_pixels = {pixels.tobytes(): KINDS[n] for n, pixels in enumerate(made)}
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert by_pixels[image.tobytes()] == data.classes[label]


@pytest.mark.parametrize("head", ["file,label,split\n", ""])
@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_splits_and_separators(head, between, pictures):
    folder, made = pictures
    text = head.replace(",", between) + rows(KINDS, PARTS, between=between)
    data = Csv(table(folder, text, "utf-8-sig")).load()
    assert data.validation is not None
    np.testing.assert_array_equal(data.train.images, made[[0, 1, 2, 3, 8, 9, 10, 11]])
    np.testing.assert_array_equal(data.validation.images, made[[4, 5]])
    np.testing.assert_array_equal(data.test.images, made[[6, 7]])
    assert data.train.labels.tolist() == [1, 0] * 4


def test_columns_can_be_given_and_files_lie_elsewhere(pictures):
    folder, _ = pictures
    (folder / "tables").mkdir()
    path = table(folder / "tables", "n,what,kind,when\n" + rows(KINDS, KINDS, KINDS))
    with pytest.raises(
        FieldError, match=r"which column has the files\? .*found n, what, kind, when"
    ):
        Csv(path).outline()
    with pytest.raises(FieldError, match=r"which column has the labels\?"):
        Csv(path, file="n").outline()
    with pytest.raises(FieldError, match="no column 'kinds'; did you mean 'kind'"):
        Csv(path, file="n", label="kinds").outline()
    with pytest.raises(
        UserError, match=r"12 of the 12 files are not in .*tables:\n  line 2: 0\.png"
    ):
        Csv(path, file="n", label="kind").outline()
    assert Csv(path, file="n", label="kind", folder="..").outline().classes == 2


def test_endings_can_be_left_out(pictures):
    folder, _ = pictures
    text = "image_id,label\n" + rows(KINDS).replace(".png", "")
    assert Csv(table(folder, text)).outline().train_examples == 10
    (folder / "0.png").rename(folder / "0.JPG")
    assert Csv(table(folder, text)).load().train.images.shape[1:] == (6, 6, 3)


def test_numbers_as_labels(pictures):
    folder, _ = pictures
    data = Csv(table(folder, "file,label\n" + rows(["10", "9"] * 6))).load()
    assert data.classes == ("9", "10")
    assert Csv(table(folder, "file,label\n" + rows(["1.0", "0.0"] * 6))).load().classes == (
        "0",
        "1",
    )


def test_one_hot_columns(pictures):
    folder, _ = pictures
    text = "image,MEL,NV\n" + rows(["1.0", "0.0"] * 6, ["0.0", "1.0"] * 6)
    data = Csv(table(folder, text)).load()
    assert data.classes == ("MEL", "NV")
    with pytest.raises(UserError, match=r"line 2 must have a single 1.*several labels an example"):
        Csv(table(folder, text.replace("0.png,1.0,0.0", "0.png,1,1"))).outline()


@pytest.mark.parametrize("sequence", [tuple, list])
def test_classes_can_be_chosen(pictures, sequence):
    folder, _ = pictures
    path = table(folder, "file,label\n" + rows(["a", "b", "c"] * 4))
    data = Csv(path, classes=sequence(["c", "a"])).load()
    assert data.classes == ("c", "a") and len(data.train.labels) == 6


def test_missing_files_are_named_at_once_or_left_out(pictures):
    folder, _ = pictures
    path = table(folder, "file,label\n" + rows(KINDS))
    for n in (3, 5):
        (folder / f"{n}.png").unlink()
    with pytest.raises(UserError) as raised:
        Csv(path).outline()
    assert "2 of the 12 files are not in" in str(raised.value)
    assert "  line 5: 3.png\n  line 7: 5.png\n" in str(raised.value)
    (folder / "7.png").write_bytes(b"?")
    described = Csv(path, skip_broken=True)
    assert described.outline() == Outline((6, 6, 3), 2, 7, 2, 0)
    assert "3 broken left out" in described.load().source
    assert described.remarks()[0].startswith("9 pictures of 2 classes (3 broken left out), 7 for")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("file,label\n", "has no rows"),
        ("file,label\n0.png\n", "line 2 and 0 more do not have the 2 columns"),
        ("file,label\n0.png,\n1.png,a\n", "1 rows have no label, the first in line 2"),
        ("file,label\n0.png,0.5\n1.png,1.5\n", r"numbers such as 0\.5: .*regression"),
        ("file,label\n0.png,cat|dog\n1.png,cat\n", "several labels an example"),
        (
            "file,label\n0.png,a\n0.png,b\n",
            r"0.png has the labels 'a' \(line 2\) and 'b' \(line 3\)",
        ),
        ("file,label\n0.png,a\n0.png,a\n", "0.png is listed twice, in lines 2 and 3"),
        ("file,label,split\n0.png,a,trian\n", "line 2: the split must be one of .*found 'trian'"),
        ('file,label\n"0.png,a\n', "the table cannot be read"),
    ],
)
def test_tables_that_are_wrong(text, message, pictures):
    with pytest.raises(UserError, match=rf"labels.csv: .*{message}"):
        Csv(table(pictures[0], text)).outline()


def test_a_table_in_another_encoding_and_a_folder(pictures):
    folder, _ = pictures
    with pytest.raises(UserError, match="this is not UTF-8 text"):
        Csv(table(folder, "file,label\n0.png,Füchse\n", "latin-1")).outline()
    with pytest.raises(UserError, match="this is a folder"):
        Csv(folder).outline()


def test_a_changed_label_or_picture_is_another_data_set(pictures):
    folder, _ = pictures
    path = table(folder, "file,label\n" + rows(KINDS))
    before = Csv(path).settled().contents
    table(folder, "file,label\n" + rows(["cat", "dog", *KINDS[2:]]))
    changed = Csv(path).settled().contents
    Image.new("RGB", (6, 6)).save(folder / "0.png")
    assert len({before, changed, Csv(path).settled().contents}) == 3
