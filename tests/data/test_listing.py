"""`status` finds the datasets on this machine."""

from pathlib import Path

from normlab.catalogue import DATA
from normlab.data import status


def test_an_empty_folder_has_only_what_needs_no_files(tmp_path):
    found = {entry.name: entry for entry in status(tmp_path)}
    assert (
        list(found)
        == list(DATA.entries())
        == [
            "cifar10",
            "cifar100",
            "cifar10_c",
            "csv",
            "folder",
            "medmnist",
            "npz",
            "parquet",
            "shapes",
            "spoken_digits",
        ]
    )
    assert [name for name, entry in found.items() if entry.present] == ["shapes"]
    assert all(entry.path is None and entry.size_bytes == 0 for entry in found.values())
    assert [name for name, entry in found.items() if entry.yours] == [
        "csv",
        "folder",
        "npz",
        "parquet",
    ]
    assert found["cifar100"].how_to_get == "normlab data fetch cifar100"


def test_files_are_found_and_weighed(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"12345")
    tables = tmp_path / "cifar100"
    tables.mkdir()
    (tables / "train-00000-of-00001.parquet").write_bytes(b"123")
    (tables / "test-00000-of-00001.parquet").write_bytes(b"1234")
    found = {
        entry.name: (entry.present, entry.path, entry.size_bytes) for entry in status(tmp_path)
    }
    assert found["cifar10"] == (True, archive, 5)
    assert found["cifar100"] == (True, tables, 7)


def test_the_folder_is_the_one_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path))
    assert not status()[0].present
    Path(tmp_path, "cifar-10-binary.tar.gz").write_bytes(b"x")
    assert status()[0].present
