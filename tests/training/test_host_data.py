"""Data that stay on the host give the same run as data on the device."""

import jax
import numpy as np
import optax
import pytest

from normlab.data import Shapes, mapped
from normlab.data.augment import Crop, Flip
from normlab.data.dataset import Dataset, Split
from normlab.errors import UserError
from normlab.models.plain import Convnet
from normlab.norms import BatchNorm
from normlab.training import room
from normlab.training.fit import fit
from normlab.training.host_data import HostData, most_bytes, placed
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData


def on_disk(split, folder, name):
    """Write the images of a split to a file and map them."""
    np.save(folder / f"{name}.npy", split.images)
    return Split(np.load(folder / f"{name}.npy", mmap_mode="r"), split.labels)


@pytest.fixture
def data(tmp_path):
    whole = Shapes(train_examples=70, test_examples=30, size=8).load().hold_out(20)
    assert whole.validation is not None
    parts = ("train", "test", "validation")
    train, test, own = (on_disk(getattr(whole, part), tmp_path, part) for part in parts)
    return Dataset("shapes", train, test, whole.classes, own)


def trained(data, **more):
    recipe = Recipe(epochs=2, batch_size=16, eval_batch_size=12, seed=3, **more)
    model = Convnet(norm=BatchNorm(), classes=10, widths=(4,))
    return fit(
        model, data, optax.sgd(0.1, momentum=0.9), recipe, augmentations=(Flip(), Crop(padding=1))
    )


@pytest.mark.parametrize(
    "more", [{}, {"accumulate": 2, "eval_every": 2}, {"metrics": ("auc", "balanced_accuracy")}]
)
def test_a_set_fed_by_batches_trains_to_the_same_numbers(data, monkeypatch, more):
    expected = trained(data, **more)
    monkeypatch.setenv("NORMLAB_DATA_MEMORY", "1kB")
    assert isinstance(placed(data), HostData)
    found = trained(data, **more)
    timeless = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in fitted.history]
        for fitted in (expected, found)
    ]
    assert timeless[0] == timeless[1] and len(timeless[0]) > 1
    jax.tree.map(np.testing.assert_array_equal, expected.state.params, found.state.params)


def test_no_more_than_a_batch_is_gathered(data, monkeypatch):
    monkeypatch.setenv("NORMLAB_DATA_MEMORY", "0")
    gathered = []
    batch = HostData.batch

    def noted(self, part, index):
        gathered.append((part, len(index)))
        return batch(self, part, index)

    monkeypatch.setattr(HostData, "batch", noted)
    trained(data)
    assert max(size for _, size in gathered) == 16
    assert {part for part, _ in gathered} == {"train", "test", "validation"}


def test_the_limit_decides_where_data_lie(data, monkeypatch):
    size = sum(split.images.nbytes for split in (data.train, data.test, data.validation))
    for limit, kind in ((size, DeviceData), (size - 1, HostData)):
        monkeypatch.setenv("NORMLAB_DATA_MEMORY", str(limit))
        assert isinstance(placed(data), kind)


@pytest.mark.parametrize(
    ("text", "expected"), [("2GB", 2e9), ("500 MB", 5e8), ("1.5g", 1.5e9), ("10k", 1e4), ("7", 7)]
)
def test_sizes_as_people_write_them(text, expected, monkeypatch):
    monkeypatch.setenv("NORMLAB_DATA_MEMORY", text)
    assert most_bytes() == expected


def test_a_limit_that_is_no_size_is_refused_and_the_default_is_a_share(monkeypatch):
    monkeypatch.setenv("NORMLAB_DATA_MEMORY", "much")
    with pytest.raises(UserError, match="NORMLAB_DATA_MEMORY must be a size such as 500MB"):
        most_bytes()
    monkeypatch.delenv("NORMLAB_DATA_MEMORY")
    assert 1e8 < most_bytes() < 1e13


def test_a_container_has_a_quarter_of_its_own_limit(monkeypatch, tmp_path):
    monkeypatch.delenv("NORMLAB_DATA_MEMORY", raising=False)
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemFree: 9 kB\nSwapTotal: 100 kB\n")
    monkeypatch.setattr(room, "MEMORY", tmp_path / "meminfo")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(room, "LIMITS", (tmp_path / "none", limit))
    for said, expected in (("max\n", 8_000_000 * 1024), ("4000000\n", 4_000_000)):
        limit.write_text(said)
        assert most_bytes() == expected // 4
    assert room.room() == room.Room(4_000_000, 4_000_000)
    monkeypatch.setattr(room, "MEMORY", tmp_path / "none")  # a system that is not Linux
    assert most_bytes() == 2e9 and room.room() is None


def test_holding_out_leaves_a_large_set_on_the_disk(data, monkeypatch):
    monkeypatch.setattr(mapped, "MOST_IN_MEMORY", 1000)
    held = data.hold_out(10)
    assert mapped.is_mapped(held.train.images)
    monkeypatch.setattr(mapped, "MOST_IN_MEMORY", 1 << 30)
    expected = data.hold_out(10)
    assert held.fingerprint == expected.fingerprint
