"""Runs that an earlier normlab made are read, kept and continued.

`made_at_628ec84.tar.xz` holds what commit 628ec84 left on disk: `small`, four finished runs with a
claim, also as published; and `broken_off`, a run of 8000 steps that a signal ended after 3248.
"""

import json
import tarfile
from pathlib import Path

import pytest

from normlab.evidence.verdicts import judge
from normlab.store.loading import load, load_runs
from normlab.store.runs import Runs
from tests.shared.command_line import normlab

STORED = Path(__file__).with_name("made_at_628ec84.tar.xz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("earlier")
    with tarfile.open(STORED) as archive:
        archive.extractall(path, filter="data")
    return path


def test_finished_runs_and_published_ones_read(folder):
    for runs in (load_runs(folder / "runs" / "small"), load_runs(folder / "published")):
        assert [run.state for run in runs] == ["done"] * 4
        assert [run.metrics[-1]["step"] for run in runs] == [8] * 4
        (verdict,) = judge(runs)
        assert verdict.outcome == "undecided" and verdict.registered
        # 0.08 and 0.15 against 0.10 and 0.15, as the files have them
        assert verdict.contrast.estimate == pytest.approx(0.01, abs=1e-6)


def test_a_checkpoint_reads(folder):
    (run,) = load_runs(folder / "runs" / "broken_off")
    assert {"Dense_0", "Dense_1"} <= set(run.params())


def test_the_same_command_keeps_them(folder):
    before = {file: file.stat().st_mtime_ns for file in (folder / "runs").rglob("metrics.jsonl")}
    done = normlab("run", "small.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    runs = load("/".join([str(folder), "runs", "small"]))
    assert isinstance(runs, Runs) and [len(run.provenance) for run in runs] == [1] * 4
    assert all(file.stat().st_mtime_ns == before[file] for file in before)
    assert len(list((folder / "runs" / "small").glob("*/config.yaml"))) == 4, "no hash has changed"


def test_a_broken_one_goes_on_from_its_checkpoint(folder):
    (file,) = (folder / "runs" / "broken_off").glob("*/metrics.jsonl")
    before = [json.loads(line) for line in file.read_text().splitlines()]
    done = normlab("run", "broken_off.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    (run,) = load_runs(folder / "runs" / "broken_off")
    assert run.state == "done" and run.metrics[-1]["step"] == 8000
    assert run.metrics[: len(before)] == before, "it began anew"


def test_they_agree_with_what_was_published_of_them(folder):
    done = normlab("agree", "runs/small", "published", cwd=folder)
    assert done.returncode == 0, done.stdout
