import json
from functools import partial

import pytest

from experiments.speed import harness, step, step_nets, step_passes
from normlab.models.plain import Convnet


def test_normlab_and_flax_train_alike_and_are_timed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    ours, flax = {step.OURS: ("normlab", {})}, {"flax": ("flax", {})}
    monkeypatch.setattr(step, "CANDIDATES", {"normlab": ours, "flax": flax})
    step.main(["--models", "convnet", "--batch", "2", "--rounds", "1", "--save", "small"])
    rows = json.loads((tmp_path / "small.json").read_text())["results"]["steps"]
    assert [row["step"] for row in rows] == [step.OURS, "flax"]
    assert all(row["images/s"] == pytest.approx(2e3 / row["ms"]) for row in rows)
    assert rows[1]["times as fast as flax"] == 1
    assert f"| convnet | {step.OURS} |" in capsys.readouterr().out
    assert (tmp_path / "small.svg").stat().st_size


def test_passes_have_a_row_a_piece_and_sums(monkeypatch):
    tiny = partial(Convnet, widths=(4, 8), layers=1)
    monkeypatch.setitem(step_nets.MODELS, "tiny", tiny)
    rows = {row["piece"]: row for row in step_passes.rows("tiny", batch=2, rounds=1)}
    assert rows["whole step"]["% of the step"] == 100
    # The images need no gradient, and the second convolution does.
    label = "16x16, 4 to 8, stride 1"
    assert [piece for piece in rows if piece.startswith("input")] == [f"input gradient: {label}"]
    work = 2 * 2 * 16**2 * 9 * 4 * 8
    forward = rows[f"forward: {label}"]
    assert forward["GFLOP/s"] * forward["ms in a step"] == pytest.approx(work / 1e6)
    parts = [row for piece, row in rows.items() if piece.startswith("forward: ")]
    assert rows["all: forward"]["ms in a step"] == sum(row["ms in a step"] for row in parts)
