"""Damaged files are refused by every reader, and killed sweeps end as undisturbed ones."""

import pytest

from experiments.faults.damage import damaged
from experiments.faults.fuzz import fuzz
from experiments.faults.kill import kill_sweeps
from experiments.faults.targets import TARGETS
from tests.shared.thorough import mostly_thorough

QUICK = ("config", "store", "npz")
NEEDS = {"torch": "torch", "safetensors": "safetensors", "parquet": "pyarrow",
         "cifar_tables": "pyarrow"}  # fmt: skip


@pytest.mark.parametrize("name", mostly_thorough(TARGETS, QUICK))
def test_no_damaged_file_ends_in_a_traceback(name, tmp_path, monkeypatch, pytestconfig):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.setenv("NORMLAB_CACHE", str(tmp_path / "cache"))
    inputs = 2000 if pytestconfig.getoption("--thorough") else 25
    count = fuzz(name, range(7 * 10**9, 7 * 10**9 + inputs), 60, tmp_path / "found")
    assert not count.findings
    assert count.refused


def test_the_same_seed_damages_alike():
    assert damaged(b"0123456789", 3) == damaged(b"0123456789", 3) != damaged(b"0123456789", 4)


@pytest.mark.thorough
def test_no_kill_loses_or_changes_a_run(tmp_path):
    counts = kill_sweeps(6, 5, tmp_path, epochs=10)
    assert counts["kills"] >= 6 and counts["runs"] == 4 * counts["sweeps"]
    assert counts["lost"] == counts["different"] == 0
