"""The shards of an array job make every run once between them."""

import subprocess
import sys

import pytest

from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine, RunEnded
from normlab.engine.shards import Shard
from normlab.errors import UserError
from normlab.store.layout import LOCK
from normlab.store.leases import leased
from normlab.store.loading import load_runs
from normlab.store.run import Run
from tests.shared.waiting import GENEROUS, wait_until

SWEEP = "sweep: {norm: [batch_norm, identity], seed: 0..2}\n"


@pytest.mark.parametrize("count", [1, 2, 7, 16, 40])
def test_every_shard_comes_to_every_run_and_begins_with_its_own(count):
    runs = list(range(16))
    orders = [Shard(k + 1, count).in_turn(runs) for k in range(count)]
    assert all(sorted(order) == runs for order in orders)
    share = 16 // count
    firsts = [run for order in orders for run in order[:share]]
    assert len(set(firsts)) == len(firsts)  # nobody begins with another's


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_a_wrong_shard_is_refused_with_the_way_to_write_it(text):
    with pytest.raises(UserError, match=r"as in 3/16, found .*SLURM_ARRAY_TASK_ID/16"):
        Shard.read(text)


def test_a_shard_makes_its_own_runs_and_then_those_of_others(tiny, by_hand, tmp_path):
    experiment = load_experiment(tiny(SWEEP))
    engine = Engine(experiment, tmp_path / "runs", shard=Shard(2, 2))
    assert engine.run_all().states == ["done"] * 6
    own = [("identity", 0), ("identity", 1), ("identity", 2)]
    assert by_hand == [*own, ("batch_norm", 2), ("batch_norm", 1), ("batch_norm", 0)]
    assert load_runs(tmp_path / "runs" / "tiny").runs[0].state == "done"


def test_one_shard_waits_for_the_others_and_the_rest_end(tiny, by_hand, tmp_path):
    experiment = load_experiment(tiny(SWEEP))
    told = []
    engine = Engine(experiment, tmp_path / "runs", told.append, shard=Shard(1, 3))
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    other = engine.runs_of(experiment.runs[5:])[0]
    other.path.mkdir()
    spare = tmp_path / "runs" / "tiny" / "spare"
    with leased(other.path / LOCK), leased(spare):
        outcome = engine.run_all()
    assert outcome.states == ["done"] * 5 + ["elsewhere"] and not outcome.failed
    assert [e.state for e in told if isinstance(e, RunEnded)][-1] == "elsewhere"
    assert len(by_hand) == 5


@pytest.mark.thorough
def test_the_runs_of_a_killed_shard_are_taken_over(tiny, tmp_path):
    file = tiny(SWEEP)
    command = [sys.executable, "-m", "normlab.cli", "run", str(file), "--out", str(tmp_path / "o")]

    def shard(number, *more):
        words = [*command, "--jobs", "1", "--shard", f"{number}/2", *more]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first = shard(1)

    def begun():
        return list((tmp_path / "o" / "tiny").glob("*/metrics.jsonl"))

    wait_until(begun, first)
    first.kill()
    first.communicate()
    second = shard(2)
    output, _ = second.communicate(timeout=GENEROUS)
    assert second.returncode == 0, output
    runs = load_runs(tmp_path / "o" / "tiny")
    assert [run.state for run in runs] == ["done"] * 6
    assert isinstance(runs.runs[5], Run)
    assert runs.runs[5].provenance[0]["made_by"]["shard"] == "2/2"
