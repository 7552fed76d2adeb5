import json
import sys

import pytest

from experiments.speed import harness, start


def test_waits_are_measured_and_kept_with_what_they_were_measured_on(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(start, "TIMES", 1)
    start.main(["import"])
    kept = json.loads((tmp_path / "start.json").read_text())
    bare, ours = (row["s"] for row in kept["results"]["rows"])
    assert bare > 0 and 0 < ours < 30 and kept["versions"]["jax"]
    assert "| import normlab |" in capsys.readouterr().out


def test_the_first_finished_run_is_the_first_line_with_a_place_in_the_list(monkeypatch):
    lines = ("import time; print('2 runs', flush=True); time.sleep(0.3); print('[1/2] a: done', "
             "flush=True); time.sleep(0.3); print('[2/2] b: done')")  # fmt: skip
    monkeypatch.setattr(start, "COMMAND", [sys.executable, "-c", lines])
    first, whole = start.command_line()
    assert 0.3 <= first <= whole - 0.3


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        start.main(["imports"])
    assert "the parts are import, check" in capsys.readouterr().err
