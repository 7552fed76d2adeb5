"""Randomly damaged small files are read correctly or refused with an error that names them."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from normlab.data import Cifar10, Medmnist, SpokenDigits
from normlab.data.parquet import Parquet
from normlab.data.pictures import UnreadableError, decode, formats
from normlab.data.reading import npz_headers, read_npz
from normlab.data.spoken_digits import SPEAKERS
from normlab.errors import UserError
from tests.data.test_cifar import (
    examples,
    members,
    png,
    python_files,
    write_archive,
    write_parquet,
)
from tests.data.test_medmnist import arrays
from tests.data.test_spoken_digits import tone, zipped


class One(SpokenDigits):
    """The same set with one recording of each digit and speaker."""

    per_digit = 1


def damaged(whole, seed):
    """Flip a few bits of a file, most of them near its ends, or cut it short."""
    draw = np.random.default_rng(seed)
    found = np.frombuffer(whole, np.uint8).copy()
    reach = (300, 3000, len(whole))[draw.integers(3)]
    for _ in range(draw.integers(1, 5)):
        place = int(draw.integers(min(reach, len(whole))))
        found[place if draw.random() < 0.5 else -1 - place] ^= np.uint8(1 << draw.integers(8))
    cut = draw.random() < 0.2
    return found[: draw.integers(len(whole))].tobytes() if cut else found.tobytes()


def refusals(path, load, seeds, change=damaged):
    """Count the refused copies, and check that each error has the path and a fix."""
    whole, count = path.read_bytes(), 0
    for seed in range(seeds):
        path.write_bytes(change(whole, seed))
        try:
            load()
        except UserError as error:
            count += 1
            assert str(path) in str(error)
            assert "again" in str(error) or "download" in str(error)
    path.write_bytes(whole)
    return count


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz(tmp_path, save):
    path = tmp_path / "pneumoniamnist.npz"
    save(path, **arrays("pneumoniamnist"))

    def load():
        described = Medmnist()
        assert described.outline(tmp_path).image_shape == (28, 28, 1)
        described.load(tmp_path)

    assert refusals(path, load, 200) > 100


def test_a_bit_in_the_pixels_of_an_npz_file_is_told(tmp_path):
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, **arrays("pneumoniamnist"))
    whole = bytearray(path.read_bytes())
    whole[1000] ^= 4
    path.write_bytes(whole)
    with pytest.raises(UserError, match="CRC"):
        Medmnist().load(tmp_path)


def test_an_array_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path):
    path, contents = tmp_path / "pneumoniamnist.npz", arrays("pneumoniamnist")
    with zipfile.ZipFile(path, "w") as file:
        for name, values in contents.items():
            buffer = io.BytesIO()
            np.save(buffer, values)
            bytes_ = buffer.getvalue()
            if name == "val_images":
                bytes_ = bytes_.replace(b"(5, 28, 28), }" + 9 * b" ", b"(5000000000, 28, 28), }")
            file.writestr(f"{name}.npy", bytes_)
    with pytest.raises(UserError, match=r"pneumoniamnist.npz: .*val_images claims .*download"):
        Medmnist().load(tmp_path)


def within(whole, seed):
    """Damage the contents of a compressed archive, with a checksum that matches the damage."""
    return gzip.compress(damaged(gzip.decompress(whole), seed), 1)


@pytest.mark.parametrize("change", [damaged, within])
def test_damaged_archives_of_cifar(tmp_path, change):
    train, test = examples(10, 10, seed=0), examples(10, 10, seed=1)
    path = tmp_path / Cifar10.published.archive
    write_archive(path, members("cifar10", train, test))
    load = Cifar10().load
    assert refusals(path, lambda: load(tmp_path), 60, change) > 10


@pytest.mark.parametrize("change", [damaged, within])
def test_damaged_archives_for_python(tmp_path, change):
    train, test = examples(10, 10, seed=0), examples(10, 10, seed=1)
    path = tmp_path / Cifar10.published.python_archive
    write_archive(path, python_files("cifar10", train, test))
    load = Cifar10().load
    assert refusals(path, lambda: load(tmp_path), 60, change) > 10


def test_damaged_recordings(tmp_path):
    files = {f"{d}_{s}_0.wav": tone(d, s, 0) for s in SPEAKERS for d in range(10)}
    path = zipped(tmp_path / "spoken_digits" / "recordings.zip", files)
    assert refusals(path, lambda: One().load(tmp_path), 30) > 10


def test_damaged_tables(tmp_path):
    for part, seed in (("train", 0), ("test", 1)):
        images, labels = examples(10, 10, seed)
        write_parquet(tmp_path / "cifar10", part, list(map(png, images)), labels)
    path = tmp_path / "cifar10" / "train-00000-of-00001.parquet"
    assert refusals(path, lambda: Cifar10().load(tmp_path), 60) > 20


def picture(size):
    return png(np.zeros((*size, 3), np.uint8))


@pytest.mark.parametrize(
    ("encoded", "found"),
    [
        ("text", "row 3, found a value of str"),
        ([1, 2], "row 3, found a value of list"),
        (picture((1, 1)).replace(b"\0\0\0\1\0\0\0\1", b"\0\0\x3f\xff" * 2), "row 3"),
        (picture((40, 32)), "row 3, found 32x40 RGB"),
    ],
    ids=["text", "list", "of a gigabyte", "larger"],
)
def test_what_is_no_picture_of_its_size_is_told(tmp_path, encoded, found):
    images, labels = examples(4, 10, 0)
    pictures = list(map(png, images))
    folder = tmp_path / "cifar10"
    write_parquet(folder, "test", pictures, labels)
    kind = type(encoded)
    others = {str: "other", list: [7]}.get(kind, pictures[0])
    write_parquet(folder, "train", [others, others, others, encoded], labels)
    first = found if kind is bytes else found.replace("row 3", "row 0")
    with pytest.raises(UserError, match=rf"train-00000-of-00001.parquet: expected .*{first}"):
        Cifar10().load(tmp_path)


def test_a_column_that_is_there_twice_is_told(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images, labels = examples(4, 10, 0)
    write_parquet(tmp_path / "cifar10", "test", list(map(png, images)), labels)
    table = pa.table([labels, labels], names=["label", "label"])
    pq.write_table(table, tmp_path / "cifar10" / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match=r"expected a whole Parquet file, found damage .*2 times"):
        Cifar10().load(tmp_path)


def bomb(path, name, header):
    """An archive of arrays with 300 MB of zeros in 300 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open(name, "w") as member:
        member.write(header)
        for _ in range(300):
            member.write(bytes(1 << 20))


def memory_of(function):
    tracemalloc.start()
    try:
        function()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_an_array_that_unpacks_to_much_more_than_pictures_do_is_not_unpacked(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (300 << 20,)}
    )
    bomb(tmp_path / "a.npz", "a.npy", header.getvalue())
    assert (tmp_path / "a.npz").stat().st_size < 400_000

    def read():
        with pytest.raises(ValueError, match=r"claims 314,572,.* when it is unpacked"):
            read_npz(tmp_path / "a.npz", ["a"])

    assert memory_of(read) < 10_000_000


def test_the_header_of_an_array_that_claims_gigabytes_is_not_read(tmp_path):
    bomb(tmp_path / "a.npz", "a.npy", b"\x93NUMPY\x02\x00" + (290 << 20).to_bytes(4, "little"))

    def read():
        with pytest.raises(ValueError, match="more bytes than any"):
            npz_headers(tmp_path / "a.npz")

    assert memory_of(read) < 10_000_000


@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, pytest.param(tarfile.XHDTYPE, marks=pytest.mark.thorough)]
)
def test_an_archive_that_unpacks_to_gigabytes_is_refused_without_the_memory(tmp_path, kind):
    path = tmp_path / Cifar10.published.archive
    info = tarfile.TarInfo("data_batch_1.bin")
    info.size, info.type = 310 << 20, kind
    with gzip.GzipFile(path, "wb", 1) as file:
        file.write(info.tobuf())
        for _ in range(310):
            file.write(bytes(1 << 20))

    def read():
        with pytest.raises(
            UserError,
            match=r"cifar-10-binary.tar.gz: .*(more bytes than any data|claims 325,058,560)",
        ):
            Cifar10().load(tmp_path)

    # A header is read whole before it can be refused.
    assert memory_of(read) < (50_000_000 if kind == tarfile.REGTYPE else 700_000_000)


def test_a_recording_of_hours_is_not_unpacked(tmp_path):
    files = {f"{d}_{s}_0.wav": tone(d, s, 0) for s in SPEAKERS for d in range(10)}
    files["0_george_0.wav"] = np.random.default_rng(0).bytes(3_000_000)
    zipped(tmp_path / "spoken_digits" / "recordings.zip", files)
    with pytest.raises(UserError, match=r"0_george_0.wav claims 3,000,000 bytes"):
        One().load(tmp_path)


def test_a_table_that_claims_more_than_pictures_do_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 1_000_000  # of one byte, in a few hundred
    table = pa.table({"image": [b"a"] * rows, "label": np.zeros(rows, np.int64)})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t.parquet: .*it claims 1,000,000 rows in"):
        Parquet(tmp_path / "t.parquet").load()


def test_no_other_program_is_started_for_a_picture():
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8)).save(encoded, "EPS")
    with pytest.raises(UnreadableError, match="no picture that Pillow knows"):
        decode(encoded.getvalue(), (8, 8), 3)
    assert "EPS" not in formats() and {"PNG", "JPEG", "WEBP", "TIFF"} <= {*formats()}
