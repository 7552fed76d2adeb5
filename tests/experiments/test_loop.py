import json
from functools import cache

import pytest

from experiments.speed import harness, loop


@pytest.mark.thorough
def test_every_table_is_printed_and_kept_with_what_it_was_measured_on(
    monkeypatch, capsys, tmp_path
):
    # One process of each kind; what they differ by is tested in tests/engine/test_process.py.
    once = cache(lambda what, child=loop.child: child(what, "both", 0.02, str(tmp_path / "cache")))
    monkeypatch.setattr(loop, "child", lambda what, *_: once(what))
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    loop.main(["--nets", "tiny"])
    said = capsys.readouterr().out
    kept = json.loads((tmp_path / "loop.json").read_text())
    found = kept["results"]
    assert kept["versions"]["jaxlib"] and said.count("| training step |") == 1
    assert [row["training step"] for row in found["tiny"]["steps"]] == list(loop.VARIANTS)
    assert {row["times as fast"] for row in found["tiny"]["steps"]} == {1.0}
    seconds = found["tiny"]["compilation"][0]
    assert seconds["compiling or reading"] > 0 and seconds["programs"] < seconds["all"]
    assert found["dispatch"][0]["step in the loop"] > 0 and found["copy"][0]["GB/s"] > 0
