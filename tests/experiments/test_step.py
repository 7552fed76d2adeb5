import io
import json

import pytest

from experiments.speed import harness, step, step_nets, step_passes


@pytest.fixture(autouse=True)
def a_small_convnet(monkeypatch):
    monkeypatch.setattr(step_nets, "WIDTHS", (4,))


class Here(step.Worker):
    """A step in this process: starting others takes most of a test's time."""

    def __init__(self, peer, model, batch, dtype, environment):
        self._step = step_nets.STEPS[peer](model, batch, dtype)
        self.losses = [self._step(number) for number in range(step_nets.CHECKED)]

    def __call__(self):
        self._step(step_nets.CHECKED)

    def end(self):
        pass


def test_normlab_and_flax_train_alike_and_are_timed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(step, "Worker", Here)
    ours, flax = {step.OURS: ("normlab", {})}, {"flax": ("flax", {})}
    monkeypatch.setattr(step, "CANDIDATES", {"normlab": ours, "flax": flax})
    step.main(["--models", "convnet", "--batch", "2", "--rounds", "1", "--save", "small"])
    rows = json.loads((tmp_path / "small.json").read_text())["results"]["steps"]
    assert [row["step"] for row in rows] == [step.OURS, "flax"]
    assert all(row["images/s"] == pytest.approx(2e3 / row["ms"]) for row in rows)
    assert rows[1]["times as fast as flax"] == 1
    assert f"| convnet | float32 | {step.OURS} |" in capsys.readouterr().out
    assert (tmp_path / "small.svg").stat().st_size


def test_a_worker_says_its_losses_and_then_seconds_for_each_line(monkeypatch, capsys):
    taken = []
    monkeypatch.setitem(step_nets.STEPS, "none", lambda model, batch, dtype: taken.append)
    monkeypatch.setattr("sys.stdin", io.StringIO("2\n1\n"))
    step_nets.serve("none", "convnet", 2)
    losses, *seconds = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(losses) == step_nets.CHECKED and len(seconds) == 2
    assert taken == list(range(step_nets.CHECKED + 3))


def test_passes_have_a_row_a_piece_and_sums():
    rows = {row["piece"]: row for row in step_passes.rows("convnet", batch=2, rounds=1)}
    assert rows["whole step"]["% of the step"] == 100
    # The images need no gradient, and the second convolution does.
    label = "32x32, 4 to 4, stride 1"
    assert [piece for piece in rows if piece.startswith("input")] == [f"input gradient: {label}"]
    work = 2 * 2 * 32**2 * 9 * 4 * 4
    forward = rows[f"forward: {label}"]
    assert forward["GFLOP/s"] * forward["ms in a step"] == pytest.approx(work / 1e6)
    parts = [row for piece, row in rows.items() if piece.startswith("forward: ")]
    assert rows["all: forward"]["ms in a step"] == sum(row["ms in a step"] for row in parts)
