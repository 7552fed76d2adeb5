"""Many configs are checked in several processes, and what is said does not depend on that."""

import os

import pytest

from normlab.engine import worker
from normlab.interface import checking

TINY = """
data: {name: shapes, train_examples: 40, test_examples: 20, size: 8}
model: {name: mlp, widths: [8]}
norm: batch_norm
optimizer: {name: sgd, learning_rate: 0.1}
train: {epochs: 1, batch_size: 10}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.delenv("NORMLAB_TRUST", raising=False)
    texts = {
        "a": TINY,
        "b": TINY.replace("epochs", "epoch"),
        "c": "data: [",
        "d": TINY.replace("batch_norm", "checked_norm:CheckedNorm"),
        "e": TINY + "sweep: {seed: 0..2}\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "checked_norm.py").write_text("raise RuntimeError\n")
    return sorted(tmp_path.glob("*.yaml"))


def test_workers_say_what_one_process_says_in_the_order_of_the_files(files, monkeypatch):
    monkeypatch.setattr(checking, "usable_cores", lambda: 1)
    alone = list(checking.check_all(files, trust=False))
    monkeypatch.setattr(checking, "usable_cores", lambda: 2)
    together = list(checking.check_all(files, trust=False))
    assert together == alone
    assert [found.must_be_mended for found in alone] == [False, True, True, False, False]
    assert "fine, 1 run" in alone[0].text and "fine, 3 runs" in alone[4].text
    assert alone[3].asks and "without its code" in alone[3].text


def test_a_file_whose_worker_is_killed_is_checked_in_this_process(files, monkeypatch):
    monkeypatch.setattr(checking, "usable_cores", lambda: 2)

    class Dead(worker.Worker):
        def submit(self, fn, /, *args, **kwargs):
            return super().submit(os._exit, 3)

    monkeypatch.setattr(checking, "Worker", Dead)
    found = list(checking.check_all(files[:1] * checking.WORTH_WORKERS, trust=False))
    assert {one.text for one in found} == {f"{files[0]}: fine, 1 run"}
