import json

import jax
import pytest

from experiments.speed import catalogue, harness, kernels

SMALL = ["--shapes", "2,4,4,16", "--rounds", "3"]


@pytest.mark.usefixtures("as_users_compile")
@pytest.mark.thorough
def test_every_cell_has_errors_times_and_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["kernels"])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # flax's layers
        kernels.main([*SMALL, "--ops", "batch,layer,rms"])
    record = json.loads((tmp_path / "kernels.json").read_text())
    found = record["results"]
    assert len(found["cells"]) == 3 * 2 and len(found["means"]) == 2 * 2
    for row in found["errors"]:
        if row["library"] == "normlab":
            assert max(value for value in row.values() if isinstance(value, float)) < 1e-6
    for row in found["cells"]:
        assert row["forward+backward times flax"] > 0
        assert 0 < row["normlab kept MB"] <= row["flax kept MB"]
    assert record["versions"]["jax"] and (tmp_path / "kernels.svg").exists()
    assert "| batch | 2x4x4x16 | float32 |" in capsys.readouterr().out


@pytest.mark.usefixtures("as_users_compile")
def test_an_entry_costs_so_many_times_its_nearest_basic_one(capsys):
    names = "layer_norm,identity,power_norm"
    catalogue.main(["--shape", "2,4,4,8", "--names", names, "--rounds", "1", "--dry"])
    said = capsys.readouterr().out
    assert "| identity | layer_norm |" in said and "| power_norm | batch_norm |" in said
