"""A folder of a person's own pictures: its layouts, its faults, its cache and its identity."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from normlab.data import Folder, Outline, own_pictures, picture_store
from normlab.data.file_facts import facts_of
from normlab.errors import FieldError, UserError

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)


def picture(file, size=(6, 8), mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(file))).integers(0, 256, (*size, 3), np.uint8)
    pixels[0, 0] = RNG.integers(0, 256, 3)
    image = Image.fromarray(pixels).convert(mode)
    image.save(file)
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def pets(tmp_path):
    """Make a folder of 10 cats, 5 dogs and one fish, all 6x8, and return it and its pixels."""
    folder = tmp_path / "pets"
    counts = {"cat": 10, "dog": 5, "小鳥": 1}
    made = {
        f"{name}/{i}.png": picture(folder / name / f"{i}.png")
        for name, count in counts.items()
        for i in range(count)
    }
    return folder, made


def same_pictures(split, expected):
    """Check that a split holds these pictures, in any order."""
    assert sorted(image.tobytes() for image in split.images) == sorted(map(bytes, expected))


def test_pictures_of_one_small_size_keep_it(pets):
    folder, made = pets
    data = Folder(folder).load()
    assert data.name == "pets"
    assert data.classes == ("cat", "dog", "小鳥")
    assert np.bincount(data.train.labels).tolist() == [8, 4, 1]
    assert np.bincount(data.test.labels, minlength=3).tolist() == [2, 1, 0]
    same_pictures(
        data.train._replace(images=np.concatenate([data.train.images, data.test.images])),
        [np.ascontiguousarray(pixels) for pixels in made.values()],
    )
    assert Folder(folder).outline() == Outline((6, 8, 3), 3, 13, 3, 0)
    assert data.validation is None
    assert "20% of each class for testing by seed 0" in data.source


def test_labels_are_those_of_the_folders(pets):
    folder, made = pets
    data = Folder(folder).load()
    by_pixels = {bytes(np.ascontiguousarray(p)): name.split("/")[0] for name, p in made.items()}
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert by_pixels[image.tobytes()] == data.classes[label]


def test_the_seed_chooses_the_split_and_it_is_stable(pets):
    folder, _ = pets
    one, again, other = (Folder(folder, seed=seed).load() for seed in (0, 0, 1))
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert Folder(folder, test_share=0.5).outline().test_examples == 5 + 3


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "testing")])
def test_own_parts_are_used(tmp_path, names):
    expected = {}
    for part, count in zip(names, (3, 2, 1), strict=True):
        for name in ("cat", "dog"):
            for i in range(count):
                file = tmp_path / "pets" / part / name / f"{i}.png"
                expected.setdefault(part, []).append(picture(file))
    data = Folder(tmp_path / "pets").load()
    assert data.validation is not None
    for part, split in zip(names, (data.train, data.validation, data.test), strict=True):
        same_pictures(split, [np.ascontiguousarray(p) for p in expected[part]])
        assert split.labels.tolist() == sorted(split.labels.tolist())
    assert Folder(tmp_path / "pets").outline() == Outline((6, 8, 3), 2, 6, 2, 4)
    # In a row on the disk, so that nothing is copied.
    assert isinstance(data.train.images, np.memmap)


def test_without_a_test_folder_the_test_split_is_drawn_from_training(tmp_path):
    for part, count in (("train", 10), ("valid", 3)):
        for name in ("a", "b"):
            for i in range(count):
                picture(tmp_path / part / name / f"{i}.png")
    described = Folder(tmp_path)
    assert described.outline() == Outline((6, 8, 3), 2, 16, 4, 6)
    assert "for testing by seed 0" in described.load().source


def test_clutter_is_ignored_and_other_files_are_told(pets):
    folder, _ = pets
    before = Folder(folder).settled().contents
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / "dog" / "Thumbs.db").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / "__MACOSX" / "cat").mkdir(parents=True)
    (folder / "cat" / "IMG_1.MOV").write_bytes(b"x")
    assert Folder(folder).settled().contents == before
    assert Folder(folder).remarks()[1] == "ignored as no pictures: cat/IMG_1.MOV"


def test_copies_are_told(pets, tmp_path):
    folder, _ = pets
    shutil.copy(folder / "cat" / "3.png", folder / "cat" / "copy.png")
    assert Folder(folder).remarks()[1].startswith("copies of others: 1 picture")
    for part in ("train", "test"):
        for name in "ab":
            picture(tmp_path / "parts" / part / name / "1.png")
            picture(tmp_path / "parts" / part / name / "2.png")
    for name in "ab":
        place = tmp_path / "parts"
        shutil.copy(place / "train" / name / "1.png", place / "test" / name / "1.png")
    assert Folder(tmp_path / "parts").remarks()[1].startswith("in more than one part: 2 pictures")


def test_folders_within_a_class_belong_to_it(pets):
    folder, _ = pets
    picture(folder / "cat" / "abroad" / "siam" / "1.PNG")
    (folder / "cat" / "abroad" / "round").symlink_to(folder / "cat")
    assert Folder(folder).outline().train_examples == 14


def test_pictures_of_many_sizes_become_64_by_64(pets):
    folder, _ = pets
    picture(folder / "dog" / "large.jpg", (300, 200))
    described = Folder(folder)
    assert described.outline().image_shape == (64, 64, 3)
    assert described.remarks()[0].endswith("cropped and resized to 64x64 RGB")
    assert Folder(folder, size=16, channels=1).outline().image_shape == (16, 16, 1)
    assert Folder(folder, size=(8, 12)).load().train.images.shape[1:] == (8, 12, 3)


def test_large_pictures_of_one_size_become_64_by_64(tmp_path):
    for name in "ab":
        for i in range(2):
            picture(tmp_path / name / f"{i}.png", (130, 130))
    assert Folder(tmp_path).outline().image_shape == (64, 64, 3)


def test_grey_pictures_alone_have_one_channel(tmp_path):
    for name in "ab":
        for i in range(2):
            picture(tmp_path / name / f"{i}.png", mode="L")
    assert Folder(tmp_path).load().train.images.shape == (2, 6, 8, 1)
    picture(tmp_path / "a" / "colour.png")
    assert Folder(tmp_path).load().source.count("4 grey") == 1


def test_what_was_done_is_told_in_the_source(pets):
    folder, _ = pets
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (8, 6)).save(folder / "cat" / "turned.jpg", exif=exif)
    Image.new("RGBA", (8, 6)).save(folder / "cat" / "clear.png")
    source = Folder(folder).load().source
    assert source.startswith(
        "folder of pictures, 6x8 RGB, 1 turned as EXIF says, 1 laid over white"
    )


def broken(folder, count=2):
    for i in range(count):
        whole = (folder / "cat" / f"{i}.png").read_bytes()
        (folder / "cat" / f"{i}.png").write_bytes(whole[: len(whole) // 2])


def test_all_broken_pictures_are_named_at_once(pets):
    folder, _ = pets
    broken(folder)
    (folder / "dog" / "0.png").write_bytes(b"")
    (folder / "dog" / "IMG_7.HEIC").write_bytes(b"")
    for use in (Folder(folder).settled, Folder(folder).load):
        with pytest.raises(UserError) as raised:
            use()
        message = str(raised.value)
        assert "4 pictures of 17 cannot be read:\n  cat/0.png: it is cut short" in message
        assert "dog/0.png: it is empty" in message and "dog/IMG_7.HEIC: a HEIC picture" in message
        assert "skip_broken: true" in message and "elete" not in message


def test_of_many_broken_pictures_twenty_are_named(tmp_path):
    for name in "ab":
        picture(tmp_path / name / "good.png")
        for i in range(15):
            (tmp_path / name / f"{i}.png").write_bytes(b"?")
    with pytest.raises(UserError, match=r"30 pictures of 32(.*\n){21}  and 10 more\n") as raised:
        Folder(tmp_path).load()
    assert len(str(raised.value).splitlines()) == 23


def test_pictures_that_turn_out_broken_are_known_to_the_next_check(pets):
    folder, _ = pets
    broken(folder)
    Folder(folder).settled()  # their headers are whole
    with pytest.raises(UserError, match="2 pictures of 16"):
        Folder(folder).prepare()
    with pytest.raises(UserError, match="2 pictures of 16"):
        Folder(folder).settled()


def test_broken_pictures_can_be_left_out_and_are_counted(pets):
    folder, _ = pets
    whole = Folder(folder, skip_broken=True)
    assert whole.outline().train_examples == 13
    broken(folder)
    described = Folder(folder, skip_broken=True)
    assert described.outline() == Outline((6, 8, 3), 3, 11, 3, 0)
    counted = (
        "14 pictures of 3 classes (2 broken left out), 11 for training, 3 for testing; 6x8 RGB"
    )
    assert described.remarks()[0] == counted
    data = described.load()
    assert np.bincount(data.train.labels).tolist() == [6, 4, 1]
    assert "2 broken left out" in data.source
    assert all(image.any() for image in data.train.images)


def test_pictures_are_decoded_once(pets, monkeypatch):
    folder, _ = pets
    first = Folder(folder).load()
    monkeypatch.setattr(picture_store, "decode", None)
    assert Folder(folder).load().fingerprint == first.fingerprint
    assert Folder(folder, seed=1).load().train.images.shape == (13, 6, 8, 3)
    with pytest.raises(TypeError):
        Folder(folder, size=4).load()


def test_the_outline_decodes_nothing(pets, monkeypatch):
    monkeypatch.setattr(own_pictures, "decoded", None)
    assert Folder(pets[0]).outline().train_examples == 13


def test_a_changed_picture_is_another_data_set(pets):
    folder, _ = pets
    before, data = Folder(folder).settled(), Folder(folder).load()
    file = folder / "cat" / "3.png"
    stamp = file.stat()
    pixels = np.asarray(Image.open(file)).copy()
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(file)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = Folder(folder).settled()
    assert after.contents != before.contents
    assert Folder(folder).load().fingerprint != data.fingerprint
    with pytest.raises(UserError, match="not those that the run was planned with"):
        before.load()


@pytest.mark.parametrize("change", ["renamed", "removed", "added", "moved"])
def test_changed_names_are_another_data_set(pets, change):
    folder, _ = pets
    before, file = Folder(folder).settled().contents, folder / "cat" / "3.png"
    if change == "renamed":
        file.rename(folder / "cat" / "x.png")
    elif change == "removed":
        file.unlink()
    elif change == "added":
        shutil.copy(file, folder / "cat" / "copy.png")
    else:
        file.rename(folder / "dog" / "3 b.png")
    assert Folder(folder).settled().contents != before


def test_a_copy_elsewhere_with_other_dates_is_the_same_data_set(pets, tmp_path):
    folder, _ = pets
    before = Folder(folder).settled()
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved, copy_function=shutil.copyfile)
    assert Folder(moved).settled().contents == before.contents
    assert Folder(moved).load().fingerprint == Folder(folder).load().fingerprint


def test_files_are_read_again_only_if_they_changed(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"1")
    os.utime(file, (1e9, 1e9))
    looks = []
    for _ in range(2):
        facts_of(tmp_path, {"a": file}, lambda place: looks.append(place))
    assert len(looks) == 1
    file.write_bytes(b"22")
    os.utime(file, (1e9, 1e9))
    facts_of(tmp_path, {"a": file}, lambda place: looks.append(place))
    assert len(looks) == 2
    other = tmp_path / "b"
    other.write_bytes(b"1")
    facts_of(tmp_path, {"a": file, "b": other}, lambda place: looks.append(place))
    assert looks[2:] == [other]


def test_links_to_nothing_and_folders_that_cannot_be_read_are_told(pets, monkeypatch):
    folder, _ = pets
    (folder / "cat" / "annexed.png").symlink_to(folder / "nothing")
    with pytest.raises(UserError, match=r"cat/annexed.png: it cannot be opened \(No such file"):
        Folder(folder).load()
    assert Folder(folder, skip_broken=True).outline().train_examples == 13

    def refused(top, onerror, **_):
        onerror(PermissionError(errno.EACCES, "Permission denied", str(top)))

    monkeypatch.setattr(os, "walk", refused)
    with pytest.raises(UserError, match=r"pets/cat: cannot be read \(Permission denied\)"):
        Folder(folder).outline()


def test_a_full_disk_is_one_error_and_leaves_nothing(pets, own_cache, monkeypatch):
    folder, _ = pets

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(UserError, match=r"0\.0 MB.*No space left on device.*NORMLAB_CACHE"):
            Folder(folder).load()
    left = [file for file in (own_cache / "pictures").iterdir() if file.suffix != ".lock"]
    assert left == []
    assert Folder(folder).load().train.images.any()


def test_a_damaged_cache_is_built_anew(pets, own_cache):
    first = Folder(pets[0]).load().fingerprint
    for name in (picture_store.IMAGES, picture_store.ABOUT):
        (file,) = (own_cache / "pictures").glob(f"*/{name}")
        file.write_bytes(file.read_bytes()[:60])
        assert Folder(pets[0]).load().fingerprint == first


def test_several_processes_may_build_the_cache_at_once(pets, own_cache):
    program = (
        "import sys; from normlab.data import Folder; print(Folder(sys.argv[1]).load().fingerprint)"
    )
    command = [sys.executable, "-c", program, str(pets[0])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    found = {process.communicate()[0] for process in started}
    assert found == {Folder(pets[0]).load().fingerprint + "\n"}
    assert len([f for f in (own_cache / "pictures").iterdir() if f.is_dir()]) == 1


def test_classes_can_be_chosen_and_ordered(pets):
    data = Folder(pets[0], classes=("dog", "cat")).load()
    assert data.classes == ("dog", "cat")
    assert np.bincount(data.train.labels).tolist() == [4, 8]
    with pytest.raises(UserError, match="no folder of the class fox; found cat, dog, 小鳥"):
        Folder(pets[0], classes=("dog", "fox")).load()


def test_layouts_that_cannot_be_meant_say_what_helps(tmp_path):
    def refused(path, *found):
        with pytest.raises(UserError) as raised:
            Folder(path).outline()
        for text in found:
            assert text in str(raised.value)

    refused(tmp_path / "nowhere", "there is no file or folder", "nowhere")
    refused(tmp_path, "no folders of classes", "labels.csv")
    picture(tmp_path / "loose" / "a.png")
    refused(tmp_path / "loose", "1 picture directly in it", "loose/cat/1.jpg")
    picture(tmp_path / "deep" / "images" / "cat" / "1.png")
    picture(tmp_path / "deep" / "images" / "dog" / "1.png")
    refused(tmp_path / "deep", "'images' alone", f"path: {tmp_path / 'deep' / 'images'}?")
    refused(tmp_path / "deep" / "images", "no class has two pictures")
    (tmp_path / "deep" / "images" / "fox").mkdir()
    refused(tmp_path / "deep" / "images", "the class fox has no pictures", "'classes'")
    (tmp_path / "a.npz").write_bytes(b"")
    refused(tmp_path / "a.npz", "data: {name: npz")
    picture(tmp_path / "parts" / "train" / "cat" / "1.png")
    picture(tmp_path / "parts" / "train" / "dog" / "1.png")
    picture(tmp_path / "parts" / "test" / "Cat" / "1.png")
    refused(tmp_path / "parts", "no training examples of Cat; test has Cat")
    (tmp_path / "parts" / "training").mkdir()
    refused(tmp_path / "parts", "train and training are both train folders")
    for name in "ab":
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "1.jpg").write_bytes(b"?")
    refused(tmp_path / "broken", "none of its 2 pictures can be read", "a/1.jpg: it is no picture")


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 0), ("size", (8, 8, 8)), ("channels", 2), ("fit", "cut"), ("test_share", 1.0),
     ("seed", -1), ("classes", ("a",)), ("classes", ("a", "a")), ("path", "")],
)  # fmt: skip
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(FieldError, match=f"{field} must be"):
        Folder(**{"path": "pets", field: value})


def test_a_relative_path_is_also_looked_for_among_the_data(pets, monkeypatch):
    monkeypatch.setenv("NORMLAB_DATA", str(pets[0].parent))
    assert Folder("pets").outline().train_examples == 13
    monkeypatch.delenv("NORMLAB_DATA")
    assert Folder("pets").locate() is None
    assert Folder("pets").locate(pets[0].parent) == pets[0]
    monkeypatch.chdir(pets[0].parent)
    assert Folder("pets").load().classes[0] == "cat"
