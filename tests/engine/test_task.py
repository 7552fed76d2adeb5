"""An order is plain, and makes the same run elsewhere."""

import json

import pytest

from normlab.configs.experiment import load_experiment
from normlab.engine.task import Task, task_of
from normlab.errors import UserError
from normlab.store.run import Run


@pytest.fixture
def task(tiny, tmp_path):
    sweep = "sweep: {norm: [batch_norm, {name: group_norm, groups: 4, eps: 1e-5}], seed: 0..1}\n"
    config = load_experiment(tiny(sweep)).runs[3]
    run = Run(tmp_path / config.id, config.arm, config.seed, config.labels)
    return Task(config, run, 3, "normlab run tiny.yaml", ("abc",), 2, {"engine": "dask"})


def test_an_order_is_plain_and_read_as_the_same_task(task):
    order = json.loads(json.dumps(task.order(30.0)))  # texts, numbers, lists and mappings alone
    found = task_of(order)
    assert found.config.hash == task.config.hash and found.config.id == task.config.id
    assert (found.config.arm, found.config.seed) == (task.config.arm, 1)
    assert found.config.sections == task.config.sections
    assert found.run == task.run and found.run.axes == task.run.axes
    assert (found.index, found.again, found.claims) == (3, task.again, ("abc",))
    assert (found.at_once, found.made_by) == (2, {"engine": "dask"})


def test_a_worker_that_reads_another_run_of_it_refuses(task):
    order = {**task.order(30.0), "hash": "0123456789"}
    with pytest.raises(UserError, match="the command as 0123456789: install the same version"):
        task_of(order)
