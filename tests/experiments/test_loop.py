import json

import pytest

from experiments.speed import harness, loop


def test_every_table_is_printed_and_kept_with_what_it_was_measured_on(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    loop.main(["--nets", "tiny", "--seconds", "0.02"])
    said = capsys.readouterr().out
    kept = json.loads((tmp_path / "loop.json").read_text())
    found = kept["results"]
    assert kept["versions"]["jaxlib"] and said.count("| training step |") == 1
    assert [row["training step"] for row in found["tiny"]["steps"]] == list(loop.VARIANTS)
    assert found["tiny"]["steps"][0]["times as fast"] == 1
    empty, filled = found["tiny"]["compilation"]
    assert filled["compiling or reading"] < empty["compiling or reading"]
    plain, kept_memory = found["copy"]
    if kept_memory["page faults"] == plain["page faults"]:
        pytest.skip("no glibc here")
    assert kept_memory["page faults"] < plain["page faults"] / 10
