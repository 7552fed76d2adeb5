"""Checks that the measured costs that normlab ships are those committed with the experiment."""

import json

from experiments.speed import catalogue, harness
from normlab.catalogue import NORMS
from normlab.interface import costs
from normlab.interface.costs import cost_of


def test_the_shipped_costs_are_the_committed_ones():
    record = json.loads((harness.RESULTS / "catalogue.json").read_text())
    shipped = json.loads(costs.FILE.read_text())
    assert shipped == catalogue.shipped(record)
    assert set(shipped["costs"]) <= set(NORMS.entries())


def test_a_measurement_is_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(costs, "FILE", tmp_path / "costs.json")
    catalogue.main(["--names", "rms_norm", "--shape", "2,2,2,4", "--rounds", "1"])
    shipped = json.loads(costs.FILE.read_text())
    assert list(shipped["costs"]) == ["rms_norm"] and shipped["rounds"] == 1
    assert shipped["shape"] == [2, 2, 2, 4]


def test_a_cost_is_one_line_with_n_hardware_and_versions():
    line = cost_of("online_norm")
    assert line is not None and "\n" not in line
    for words in ("6.2 times batch_norm", "n = 9", "2 cores", "jax 0.10.2", "2026-11-25"):
        assert words in line, words
    assert cost_of("no_such_norm") is None
