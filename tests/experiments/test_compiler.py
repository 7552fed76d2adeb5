import json

from experiments.speed import compiler, harness


def test_every_program_is_timed_with_each_option_and_a_lost_option_is_named(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(compiler, "SHAPE", (2, 4, 4, 8))
    candidates = {compiler.DEFAULT: {}, "sums": {compiler.YNN_FUSIONS: compiler.SUM}}
    monkeypatch.setattr(compiler, "CANDIDATES", candidates | {"lost": {"xla_gone": True}})
    compiler.main(["--nets", "mlp", "--norms", "layer_norm", "--rounds", "1"])
    found = json.loads((tmp_path / "compiler.json").read_text())["results"]
    programs = ["mlp, training step", "mlp, evaluation", "layer_norm and gradients"]
    assert [row["program"] for row in found["rows"]] == programs
    assert all(row["sums"] > 0 and "lost" not in row for row in found["rows"])
    assert "No such compile option: 'xla_gone'" in found["refused"]["lost"]
    assert "refused: lost:" in capsys.readouterr().out
