"""CIFAR is read in both published layouts, from tiny files that the tests make."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from normlab.data import Cifar10, Cifar100, mean_pool, stratified
from normlab.data import download as download_module
from normlab.data.cifar_sets import CIFAR10, CIFAR100
from normlab.errors import FieldError, UserError

SETS = {"cifar10": Cifar10, "cifar100": Cifar100}
both = pytest.mark.parametrize("name", SETS)


def examples(n, classes, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), np.uint8), np.arange(n) % classes


def records(images, labels, label_bytes):
    """The official layout: the coarse label (7 throughout) if there is one, the label, planes."""
    before = [[7] * (label_bytes - 1) + [label] for label in labels]
    planes = images.transpose(0, 3, 1, 2)
    return b"".join(bytes(b) + p.tobytes() for b, p in zip(before, planes, strict=True))


def members(name, train, test):
    """The files of the archive. CIFAR-10's training examples are spread over five."""
    published = SETS[name].published
    count = len(published.train_members)
    files = {
        member: records(train[0][i::count], train[1][i::count], published.label_bytes)
        for i, member in enumerate(published.train_members)
    }
    files[published.test_members[0]] = records(test[0], test[1], published.label_bytes)
    return files


def write_archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        # Out of order, and with a file that is none of ours, as in the published archives.
        for member, contents in reversed([*files.items(), ("readme.html", b"<html>")]):
            info = tarfile.TarInfo(f"some-folder/{member}")
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    return path


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder, part, encoded, labels, label="label", shards=1, image="img"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, rows in enumerate(np.array_split(np.arange(len(labels)), shards)):
        columns = {
            image: [{"bytes": encoded[r], "path": None} for r in rows],
            label: [labels[r] for r in rows],
        }
        pq.write_table(pa.table(columns), folder / f"{part}-{i:05d}-of-{shards:05d}.parquet")


@pytest.fixture
def small(tmp_path):
    """Make a root with CIFAR-10 as an archive of 40 and 10 images, and return its contents."""
    train, test = examples(40, 10, 0), examples(10, 10, 1)
    path = write_archive(tmp_path / "cifar10" / CIFAR10.archive, members("cifar10", train, test))
    return tmp_path, path, train, test


@pytest.fixture
def tables(tmp_path):
    """Make a root with CIFAR-10 as tables of 40 and 10 images, and return its contents."""
    train, test = examples(40, 10, 0), examples(10, 10, 1)
    for part, (images, labels) in (("train", train), ("test", test)):
        write_parquet(tmp_path / "cifar10", part, [png(i) for i in images], labels)
    return tmp_path, tmp_path / "cifar10", train, test


def assert_damaged(load, file, *found):
    """Check that a `UserError` names the file, what was found and the remedy."""
    with pytest.raises(UserError) as raised:
        load()
    for text in (str(file), *found, "Fetch the set again", "normlab data fetch cifar10"):
        assert text in str(raised.value)
    assert "elete" not in str(raised.value)  # the files may be a person's own


@both
def test_archive_is_read_exactly(name, tmp_path):
    classes = SETS[name].published.classes
    train, test = examples(200, len(classes), 0), examples(100, len(classes), 1)
    write_archive(tmp_path / name / SETS[name].published.archive, members(name, train, test))
    data = SETS[name]().load(tmp_path)
    order = np.concatenate([np.arange(200)[i::5] for i in range(5)]) if name == "cifar10" else ...
    np.testing.assert_array_equal(data.train.images, train[0][order])
    np.testing.assert_array_equal(data.train.labels, train[1][order])
    np.testing.assert_array_equal(data.test.images, test[0])
    np.testing.assert_array_equal(data.test.labels, test[1])
    assert (data.name, data.classes) == (name, classes)


@both
@pytest.mark.parametrize("shards", [1, 3])
def test_parquet_is_read_exactly(name, shards, tmp_path):
    published = SETS[name].published
    train, test = (examples(n, len(published.classes), n) for n in (120, 100))
    for part, (images, labels) in (("train", train), ("test", test)):
        encoded = [png(image) for image in images]
        write_parquet(tmp_path / name, part, encoded, labels, published.label_column, shards)
    data = SETS[name]().load(tmp_path)
    for split, (images, labels) in ((data.train, train), (data.test, test)):
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
    subset = SETS[name](train_examples=50).load(tmp_path).train
    chosen = stratified(train[1], 50)
    np.testing.assert_array_equal(subset.images, train[0][chosen])
    np.testing.assert_array_equal(subset.labels, train[1][chosen])


@pytest.mark.parametrize("layout", ["small", "tables"])
def test_subsets_and_sizes(layout, request):
    root = request.getfixturevalue(layout)[0]
    whole = Cifar10().load(root)
    part = Cifar10(train_examples=20, test_examples=10, size=8).load(root)
    chosen = stratified(whole.train.labels, 20)
    expected = mean_pool(whole.train.images[chosen], 8)
    np.testing.assert_array_equal(part.train.images, expected)
    np.testing.assert_array_equal(part.train.labels, whole.train.labels[chosen])
    assert np.bincount(part.train.labels).tolist() == [2] * 10
    assert part.test.images.shape == (10, 8, 8, 3)
    assert Cifar10(size=16).load(root).train.images.shape == (40, 16, 16, 3)


@pytest.mark.parametrize("layout", ["small", "tables"])
def test_the_outline_is_of_the_files_that_are_here(layout, request):
    root = request.getfixturevalue(layout)[0]
    assert Cifar10().outline(root) == ((32, 32, 3), 10, 40, 10, 0)
    assert Cifar10(train_examples=20, size=8).outline(root) == ((8, 8, 3), 10, 20, 10, 0)
    said = Cifar10(train_examples=40, test_examples=10)
    assert Cifar10().settled(root) == said == said.settled(root)
    assert said.load(root).fingerprint == Cifar10().load(root).fingerprint
    with pytest.raises(FieldError, match=r"test_examples must be in 1\.\.10, as many as .*cifar10"):
        Cifar10(test_examples=11).settled(root)


def test_of_files_of_the_published_size_nothing_need_be_said(tmp_path, monkeypatch):
    monkeypatch.setattr("normlab.data.cifar._counted", lambda *_: (50_000, 10_000))
    write_parquet(tmp_path / "cifar10", "test", [b"?"], [0])
    assert Cifar10().settled(tmp_path) == Cifar10()


@pytest.mark.parametrize(
    ("layout", "source"),
    [("small", "binary archive of 40 and 10 examples"),
     ("tables", "Parquet, PNG-coded pictures of 40 and 10 examples")],
)  # fmt: skip
def test_a_set_says_what_it_was_read_from(layout, source, request):
    assert Cifar10().load(request.getfixturevalue(layout)[0]).source == source


def test_more_examples_than_were_published_are_refused(tables):
    root, folder, *_ = tables
    write_parquet(folder, "test", [b"?"] * 10_001, [0] * 10_001)
    for use in (Cifar10().settled, Cifar10().outline, Cifar10().load):
        assert_damaged(lambda use=use: use(root), folder, "at most", "found 40 and 10,001")


def test_an_archive_with_one_file_under_two_names_is_refused(tmp_path):
    files = members("cifar10", examples(40, 10, 0), examples(10, 10, 1))
    files["data_batch_4.bin"] = files["data_batch_1.bin"]
    path = write_archive(tmp_path / CIFAR10.archive, files)
    assert_damaged(lambda: Cifar10().load(tmp_path), path, "two with the same contents")


def test_a_subset_larger_than_the_file_is_refused(small):
    with pytest.raises(UserError, match=r"1\.\.40"):
        Cifar10(train_examples=41).load(small[0])


def test_only_the_chosen_rows_are_decoded(tables):
    root, folder, (images, labels), _ = tables
    chosen = set(stratified(labels, 10))
    encoded = [png(image) if i in chosen else b"?" for i, image in enumerate(images)]
    write_parquet(folder, "train", encoded, labels)
    assert len(Cifar10(train_examples=10).load(root).train.labels) == 10
    assert_damaged(lambda: Cifar10().load(root), folder, "train-00000", "an image in row")


@both
def test_outline_is_known_without_files(name):
    classes = len(SETS[name].published.classes)
    assert SETS[name]().outline() == ((32, 32, 3), classes, 50_000, 10_000, 0)
    part = SETS[name](train_examples=100, test_examples=20, size=8)
    assert part.outline() == ((8, 8, 3), classes, 100, 20, 0)


def test_where_it_is_looked_for(tmp_path):
    inner, outer = tmp_path / "cifar10", tmp_path
    assert Cifar10().locate(tmp_path) is None
    train, test = examples(10, 10, 0), examples(10, 10, 1)
    files = members("cifar10", train, test)
    in_outer = write_archive(outer / CIFAR10.archive, files)
    assert Cifar10().locate(tmp_path) == in_outer
    assert Cifar100().locate(tmp_path) is None
    write_parquet(inner, "test", [png(i) for i in test[0]], test[1])
    assert Cifar10().locate(tmp_path) == inner
    in_inner = write_archive(inner / CIFAR10.archive, files)
    assert Cifar10().locate(tmp_path) == in_inner


def test_the_root_may_be_the_folder_of_tables_itself(tables):
    root, folder, *_ = tables
    assert Cifar10().locate(folder) == folder
    # Their names do not say which set they are, so a folder of another name is not taken.
    folder.rename(root / "photographs")
    assert Cifar10().locate(root / "photographs") is None


def test_the_root_comes_from_the_environment(small, monkeypatch):
    monkeypatch.setenv("NORMLAB_DATA", str(small[0]))
    assert Cifar10().locate() == small[1]


def test_missing_data_says_where_and_how(tmp_path):
    with pytest.raises(UserError) as raised:
        Cifar100().load(tmp_path)
    said = str(raised.value)
    for text in (f"{tmp_path / 'cifar100'} or {tmp_path},", "normlab data fetch cifar100"):
        assert text in said
    assert "NORMLAB_DATA" in said and CIFAR100.archive in said


@pytest.mark.parametrize("keep", [0, 5, 0.01, 0.3, 0.5, 0.9, -9, -8, -1])
def test_an_archive_cut_short(small, keep):
    root, path, *_ = small
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    assert_damaged(lambda: Cifar10().load(root), path, "whole .tar.gz archive")


@pytest.mark.parametrize("keep", [100, 512, 600, 5000, 0.5, 0.8])
def test_a_tar_cut_short_before_it_was_compressed(small, keep):
    root, path, *_ = small
    tar = gzip.decompress(path.read_bytes())
    cut = int(keep * len(tar)) if isinstance(keep, float) else keep
    path.write_bytes(gzip.compress(tar[:cut]))
    assert_damaged(lambda: Cifar10().load(root), path)


@pytest.mark.parametrize("position", [1, 0.1, 0.5, 0.9, -6])
def test_an_archive_with_one_bad_byte(small, position):
    root, path, *_ = small
    damaged = bytearray(path.read_bytes())
    at = int(position * len(damaged)) if isinstance(position, float) else position
    damaged[at] ^= 0x55
    path.write_bytes(damaged)
    assert_damaged(lambda: Cifar10().load(root), path, "whole .tar.gz archive")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda f: f.pop("data_batch_3.bin"), "no data_batch_3.bin"),
        (lambda f: f.pop("test_batch.bin"), "no test_batch.bin"),
        (lambda f: f.update({"data_batch_2.bin": f["data_batch_2.bin"][:-1]}), "24583 bytes"),
        (lambda f: f.update({"test_batch.bin": b""}), "found 0 bytes"),
        (lambda f: f.update({"data_batch_5.bin": b"\x0a" + bytes(3072)}), "found label 10"),
    ],
)
def test_an_archive_with_wrong_contents(tmp_path, change, found):
    files = members("cifar10", examples(40, 10, 0), examples(10, 10, 1))
    change(files)
    path = write_archive(tmp_path / CIFAR10.archive, files)
    assert_damaged(lambda: Cifar10().load(tmp_path), path, found)


def test_archives_of_the_two_sets_are_not_mistaken(tmp_path):
    files = members("cifar100", examples(100, 100, 0), examples(100, 100, 1))
    path = write_archive(tmp_path / CIFAR10.archive, files)
    assert_damaged(lambda: Cifar10().load(tmp_path), path, "no data_batch_1.bin")


@pytest.mark.parametrize("keep", [0, 3, 0.2, 0.5, 0.99, -1])
def test_a_table_cut_short(tables, keep):
    root, folder, *_ = tables
    file = folder / "train-00000-of-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    assert_damaged(lambda: Cifar10().load(root), file, "whole Parquet file")


WRONG_TABLES = {
    "no label column": (dict(label="lable"), "the columns img, lable"),
    "no image column": (dict(image="picture"), "the columns picture, label"),
    "label too high": (dict(labels=[10] * 5), "10..10"),
    "label negative": (dict(labels=[0, 1, 2, 3, -1]), "-1..3"),
    "labels are text": (dict(labels=list("abcde")), "string"),
    "labels are fractions": (dict(labels=[0.5] * 5), "double"),
    "a label is missing": (dict(labels=[0, None, 1, 2, 3]), "1 of them missing"),
    "no rows": (dict(labels=[], encoded=[]), "at least one row"),
    "an image is missing": (dict(encoded=[None] * 5), "row 0, found nothing"),
    "an image is empty": (dict(encoded=[b""] * 5), "row 0, found damage"),
    "an image is cut": (dict(encoded=[png(np.full((32, 32, 3), 9, np.uint8))[:70]] * 5), "row 0"),
    "a grey image is large": (dict(encoded=[png(np.zeros((40, 32), np.uint8))] * 5), "32x40 L"),
    "an image is large": (dict(encoded=[png(np.zeros((32, 40, 3), np.uint8))] * 5), "40x32 RGB"),
}


@pytest.mark.parametrize(("wrong", "found"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_a_table_with_wrong_contents(tables, wrong, found):
    root, folder, *_ = tables
    images, labels = examples(5, 5, 0)
    write_parquet(
        folder, "test", **({"encoded": [png(i) for i in images], "labels": labels} | wrong)
    )
    assert_damaged(lambda: Cifar10().load(root), folder / "test-00000-of-00001.parquet", found)


def test_image_columns_of_another_kind(tables):
    root, folder, *_ = tables
    file = folder / "train-00000-of-00001.parquet"
    pq.write_table(pa.table({"img": [b"bytes alone"], "label": [0]}), file)
    assert_damaged(lambda: Cifar10().load(root), file, "{bytes, path}, found one of binary")
    table = pa.table({"img": pa.array([None], pa.struct({"bytes": pa.binary()})), "label": [0]})
    pq.write_table(table, file)
    assert_damaged(lambda: Cifar10().load(root), file, "row 0, found nothing")


def test_missing_tables(tables):
    root, folder, *_ = tables
    only = folder / "train-00000-of-00001.parquet"
    only.rename(folder / "train-00000-of-00002.parquet")
    assert_damaged(
        lambda: Cifar10().load(root), folder, "2 files train-*.parquet", "00000-of-00002"
    )
    (folder / "train-00000-of-00002.parquet").unlink()
    assert_damaged(lambda: Cifar10().load(root), folder, "a file train-*.parquet, found none")


SHARDS = {
    "one of two": ["00000-of-00002-0a1b2c3d"],
    "the last of two": ["00001-of-00002"],
    "one of three twice": ["00000-of-00003-aa", "00000-of-00003-bb", "00002-of-00003-cc"],
    "a browser's second copy": ["00000-of-00001", "00000-of-00001 (1)"],
    "a renamed copy": ["00000-of-00001", "00000-of-00001 - Copy"],
    "two uploads": ["00000-of-00001-0a1b", "00000-of-00001-4e5f"],
    "two ways of cutting": ["00000-of-00001", "00000-of-00002", "00001-of-00002"],
    "with and without numbers": ["00000-of-00001", "extra"],
    "a copy without numbers": ["0", "0 (1)"],
}


@pytest.mark.parametrize("names", SHARDS.values(), ids=SHARDS)
def test_shards_that_are_missing_or_there_twice_are_refused(names, tables):
    root, folder, *_ = tables
    (folder / "train-00000-of-00001.parquet").unlink()
    for seed, name in enumerate(names):
        images, labels = examples(20, 10, 10 + seed)
        table = pa.table({"img": [{"bytes": png(i), "path": None} for i in images],
                          "label": labels})  # fmt: skip
        pq.write_table(table, folder / f"train-{name}.parquet")
    for use in (Cifar10().load, Cifar10().outline):
        assert_damaged(lambda use=use: use(root), folder, "once each", f"train-{names[0]}.parquet")


@pytest.mark.parametrize(
    "names",
    [["00000-of-00002-0a1b2c3d4e5f6a7b", "00001-of-00002-7b6a5f4e3d2c1b0a"], ["0", "1"]],
)
def test_whole_sets_of_shards_are_read(names, tables):
    root, folder, *_ = tables
    (folder / "train-00000-of-00001.parquet").unlink()
    for seed, name in enumerate(names):
        images, labels = examples(20, 10, 10 + seed)
        table = pa.table({"img": [{"bytes": png(i), "path": None} for i in images],
                          "label": labels})  # fmt: skip
        pq.write_table(table, folder / f"train-{name}.parquet")
    assert len(Cifar10().load(root).train.labels) == 40


@pytest.mark.parametrize("other", ["train-00001-of-00002", "test-00000-of-00001"])
def test_images_that_stand_in_two_files_are_refused(other, tables):
    root, folder, *_ = tables
    whole = folder / "train-00000-of-00001.parquet"
    if other.startswith("train"):
        whole = whole.rename(folder / "train-00000-of-00002.parquet")
    (folder / f"{other}.parquet").write_bytes(whole.read_bytes())
    assert_damaged(lambda: Cifar10().load(root), folder, "every image in one file", "40 in two of")


@both
def test_fetch_asks_for_the_published_archive(name, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(download_module, "download", lambda *args: asked.append(args) or args[1])
    target = SETS[name]().fetch(tmp_path, progress=False)
    archive = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}[name]
    md5 = {
        "cifar10": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar100": "03b5dce01913d631647c71ecec9e9cb8",
    }[name]
    assert target == tmp_path / name / archive
    url = f"https://www.cs.toronto.edu/~kriz/{archive}"
    assert asked == [(url, target, f"md5:{md5}", False)]


@pytest.mark.parametrize(("cls", "count"), [(Cifar10, 10), (Cifar100, 100)])
def test_class_names_are_all_there_in_alphabetical_order(cls, count):
    # Both sets number their classes alphabetically.
    assert len(set(cls.published.classes)) == count
    assert list(cls.published.classes) == sorted(cls.published.classes)


@pytest.mark.parametrize(
    "fields",
    [
        {"train_examples": 0},
        {"train_examples": 50_001},
        {"test_examples": 0},
        {"test_examples": 10_001},
        {"size": 4},
        {"size": 64},
    ],
)
@both
def test_impossible_fields_are_refused(name, fields):
    with pytest.raises(FieldError) as raised:
        SETS[name](**fields)
    assert raised.value.field == next(iter(fields))


def test_the_real_cifar10_if_it_is_here():
    if Cifar10().locate() is None:
        pytest.skip("CIFAR-10 is not in NORMLAB_DATA or the cache folder")
    data = Cifar10(train_examples=500, test_examples=100).load()
    assert data.train.images.shape == (500, 32, 32, 3)
    assert np.bincount(data.train.labels).tolist() == [50] * 10
    assert np.bincount(data.test.labels).tolist() == [10] * 10
    # The published channel means of the whole set are 125.3, 123.0 and 113.9.
    mean, std = data.channel_statistics()
    np.testing.assert_allclose(mean, [125.3, 123.0, 113.9], atol=6)
    np.testing.assert_allclose(std, [63.0, 62.1, 66.7], atol=4)


def turned_and_clear(mode, **options):
    """Make a picture that is red on the left, in another mode."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16, 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG", **options)
    return pixels, buffer.getvalue()


@pytest.mark.parametrize("image", ["img", "image"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_other_modes_hold_the_same_pixels(mode, image, tmp_path):
    pixels, encoded = turned_and_clear(mode)
    for part in ("train", "test"):
        write_parquet(tmp_path / "cifar10", part, [encoded] * 10, range(10), image=image)
    data = Cifar10().load(tmp_path)
    assert (data.train.images == pixels).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_pictures_have_three_equal_channels_and_are_named(dtype, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (2, 10, 32, 32)).astype(np.uint8)
    most = np.iinfo(dtype).max // 255  # 16 bits hold 257 times the value
    for part, pixels in zip(("train", "test"), grey, strict=True):
        encoded = [png(one.astype(dtype) * dtype(most)) for one in pixels]
        write_parquet(tmp_path / "cifar10", part, encoded, range(10))
    data = Cifar10().load(tmp_path)
    np.testing.assert_array_equal(data.train.images, np.repeat(grey[0][..., None], 3, axis=-1))
    assert "(grey)" in data.source


def test_an_orientation_is_heeded(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels, encoded = turned_and_clear("RGB", exif=exif)
    for part in ("train", "test"):
        write_parquet(tmp_path / "cifar10", part, [encoded] * 10, range(10))
    data = Cifar10().load(tmp_path)
    assert (data.train.images == pixels.transpose(1, 0, 2)).all()
    assert data.source == (
        "Parquet, PNG (turned as EXIF says)-coded pictures of 10 and 10 examples"
    )


def python_files(name, train, test, protocol=2):
    """The files of the archive for Python, as Python 2 or 3 pickled them."""
    published = SETS[name].published
    count = len(published.python_train)

    def batch(images, labels):
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return pickle.dumps(
            {b"data": planes, published.python_labels.encode(): list(map(int, labels))}, protocol
        )

    files = {
        member: batch(train[0][i::count], train[1][i::count])
        for i, member in enumerate(published.python_train)
    }
    return {**files, published.python_test[0]: batch(*test)}


@both
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("packed", [True, False])
def test_archives_for_python_are_read_exactly(name, protocol, packed, tmp_path):
    published = SETS[name].published
    classes = len(published.classes)
    train, test = examples(200, classes, 0), examples(100, classes, 1)
    files = python_files(name, train, test, protocol)
    if packed:
        write_archive(tmp_path / name / published.python_archive, files)
    else:
        unpack(tmp_path / published.python_unpacked, files)
    data = SETS[name]().load(tmp_path)
    order = np.concatenate([np.arange(200)[i::5] for i in range(5)]) if name == "cifar10" else ...
    np.testing.assert_array_equal(data.train.images, train[0][order])
    np.testing.assert_array_equal(data.train.labels, train[1][order])
    np.testing.assert_array_equal(data.test.images, test[0])
    assert SETS[name]().outline(tmp_path) == ((32, 32, 3), classes, 200, 100, 0)
    assert data.source.startswith("archive for Python" if packed else "files for Python")


def unpack(folder, files):
    folder.mkdir(parents=True)
    for member, contents in files.items():
        (folder / member).write_bytes(contents)


@both
def test_unpacked_binary_archives_are_read_exactly(name, tmp_path):
    published = SETS[name].published
    classes = len(published.classes)
    train, test = examples(200, classes, 0), examples(100, classes, 1)
    unpack(tmp_path / name / published.unpacked, members(name, train, test))
    for root in (tmp_path, tmp_path / name / published.unpacked):
        data = SETS[name]().load(root)
        np.testing.assert_array_equal(data.test.images, test[0])
        assert SETS[name]().outline(root).train_examples == len(data.train.labels) == 200
    assert data.source == "binary files of 200 and 100 examples"


def test_a_pickle_that_would_call_something_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return print, ("harm",)

    files = python_files("cifar10", examples(40, 10, 0), examples(10, 10, 1))
    files["test_batch"] = pickle.dumps(Harm())
    path = write_archive(tmp_path / CIFAR10.python_archive, files)
    assert_damaged(lambda: Cifar10().load(tmp_path), path, "would call builtins.print")


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ({b"labels": [0]}, "KeyError"),
        ({b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 1]}, "(2, 5)"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "2 whole labels"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}, "found 0..10"),
        ([1, 2], "AttributeError"),
    ],
)
def test_damaged_batches_are_told(batch, found, tmp_path):
    files = python_files("cifar10", examples(40, 10, 0), examples(10, 10, 1))
    files["test_batch"] = pickle.dumps(batch)
    path = write_archive(tmp_path / CIFAR10.python_archive, files)
    assert_damaged(lambda: Cifar10().load(tmp_path), path, found)
