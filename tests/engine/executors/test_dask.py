"""Runs on a Dask cluster are those of this machine."""

import pytest

from experiments.faults.clusters import kill_shared_sweeps
from normlab.engine.executors.dask import Dask
from normlab.errors import UserError

distributed = pytest.importorskip("distributed")


def test_a_scheduler_that_does_not_answer_is_told(tmp_path):
    with pytest.raises(UserError, match=r"tcp://127.0.0.1:9 does not answer"):
        Dask("tcp://127.0.0.1:9", timeout=0.5).places(1, tmp_path)


@pytest.mark.thorough
def test_killed_workers_and_commands_lose_nothing(tmp_path):
    counts = kill_shared_sweeps("dask", 4, 3, tmp_path, epochs=10)
    assert counts["kills"] >= 4 and counts["runs"] == 4 * counts["sweeps"]
    assert counts["lost"] == counts["different"] == 0
