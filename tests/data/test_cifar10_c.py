"""The published CIFAR-10-C is read where it lies, and what is wrong with it is told."""

import numpy as np
import pytest

from normlab.data import Cifar10
from normlab.data.cifar10_c import FIFTEEN, Cifar10C
from normlab.data.dataset import Dataset, Outline, Split
from normlab.errors import FieldError, UserError

LABELS = np.array([3, 1, 0, 2], np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Write arrays of four images; each pixel says its corruption, severity and place."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(LABELS, 5))
    for number, name in enumerate(FIFTEEN):
        values = [number * 16 + severity * 3 + i % 3 for severity in range(5) for i in range(4)]
        images = np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (20, 32, 32, 3))
        np.save(folder / f"{name}.npy", images)

    def clean(self, root=None):
        images = np.zeros((20, self.size, self.size, 3), np.uint8)
        split = Split(images, np.arange(20, dtype=np.int32) % 10)
        return Dataset("cifar10", split, split, tuple(map(str, range(10))), source="clean")

    monkeypatch.setattr(Cifar10, "load", clean)
    monkeypatch.setattr(
        Cifar10, "outline", lambda self, root=None: Outline((32, 32, 3), 10, 20, 20)
    )
    monkeypatch.setattr(Cifar10, "settled", lambda self, root=None: self)
    return tmp_path


def test_the_test_images_are_those_of_the_files_one_corruption_after_another(root):
    data = Cifar10C(corruptions=("shot_noise", "fog"), severity=2).load(root)
    first, last = FIFTEEN.index("shot_noise"), FIFTEEN.index("fog")
    expected = [number * 16 + 3 + i % 3 for number in (first, last) for i in range(4)]
    assert data.test.images[:, 0, 0, 0].tolist() == expected
    assert data.test.labels.tolist() == [*LABELS, *LABELS]
    assert data.name == "cifar10_c" and "published CIFAR-10-C, severity 2" in data.source


def test_all_fifteen_are_the_default_and_smaller_files_are_recorded(root):
    settled = Cifar10C().settled(root)
    assert settled.test_examples == 4
    assert settled.outline(root).test_examples == 60 == len(settled.load(root).test.labels)
    fewer = Cifar10C(test_examples=2, size=16).load(root)
    assert fewer.test.images.shape == (30, 16, 16, 3)
    assert fewer.test.labels.tolist() == [1, 0] * 15  # the lowest labels, in the files' order


def test_without_files_the_sizes_are_the_published_ones(tmp_path):
    assert Cifar10C().outline(tmp_path).test_examples == 150_000
    with pytest.raises(UserError, match=r"no labels.npy in .*CIFAR-10-C or .*zenodo.org"):
        Cifar10C().load(tmp_path)


@pytest.mark.parametrize(
    "spoil, said",
    [(lambda f: (f / "fog.npy").unlink(), "there is no .*fog.npy; the folder has brightness, "),
     (lambda f: (f / "fog.npy").write_bytes(b"no array"), "fog.npy is damaged"),
     (lambda f: np.save(f / "fog.npy", np.zeros((20, 3, 32, 32), np.uint8)), "is expected: is it"),
     (lambda f: np.save(f / "fog.npy", np.zeros((20, 32, 32, 3))), "fog.npy holds float64"),
     (lambda f: np.save(f / "labels.npy", np.arange(20)), "the same labels at every severity"),
     (lambda f: np.save(f / "labels.npy", np.full(20, 10)), "labels in 0..9"),
     (lambda f: np.save(f / "labels.npy", np.zeros(7, int)), "whole numbers of shape"),
     (lambda f: np.save(f / "labels.npy", np.array([{}] * 5, object)), "labels.npy is damaged")],
)  # fmt: skip
def test_damaged_files_are_named(root, spoil, said):
    spoil(root / "CIFAR-10-C")
    with pytest.raises(UserError, match=said):
        Cifar10C(corruptions=("fog",)).load(root)


@pytest.mark.parametrize(
    "given, field",
    [({"corruptions": ("frog",)}, "corruptions"), ({"corruptions": ()}, "corruptions"),
     ({"severity": 0}, "severity"), ({"size": 7}, "size"), ({"test_examples": 0}, "test_examples")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(given, field):
    with pytest.raises(FieldError) as raised:
        Cifar10C(**given)
    assert raised.value.field == field


def test_more_than_there_are_is_refused(root):
    with pytest.raises(FieldError, match=r"in 1\.\.4"):
        Cifar10C(test_examples=5).settled(root)
