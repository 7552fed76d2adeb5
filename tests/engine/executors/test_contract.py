"""A sweep is made on any executor, and a lost place loses one run."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from normlab.catalogue import ENGINES
from normlab.configs.document import ConfigError
from normlab.configs.engines import engine_of_words
from normlab.configs.experiment import load_experiment
from normlab.engine.executors.contract import OwnEngine
from normlab.errors import UserError
from normlab.store.run import Run
from tests.shared import own_engines

OWN = "tests.shared.own_engines:"


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    monkeypatch.setenv("NORMLAB_TRUST", "1")


def test_every_engine_opens_with_its_defaults_and_imports_nothing_of_others():
    code = (
        "import sys; from normlab.engine.executors.contract import open_engine\n"
        f"for name in {list(ENGINES.entries())}: assert open_engine({{'name': name}}).places\n"
        "print({'distributed', 'submitit', 'jax'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout == "set()\n", told.stderr
    assert set(ENGINES.entries()) >= {"local", "dask", "slurm"}


def test_runs_on_an_executor_of_ones_own_are_bitwise_those_of_this_process(tiny, make, tmp_path):
    file = tiny("sweep: {seed: 0..1}\n")
    there = make(file, out=tmp_path / "there", jobs=None, engine={"name": OWN + "threads"})
    here = make(file, out=tmp_path / "here")
    assert there.states == here.states == ["done"] * 2
    for left, right in zip(there.runs, here.runs, strict=True):
        assert isinstance(left, Run) and isinstance(right, Run)
        jax.tree.map(np.testing.assert_array_equal, left.params(), right.params())
        assert left.status["pid"] != right.status["pid"]
        assert left.provenance[0]["made_by"]["engine"] == OWN + "threads"
    assert own_engines.given == [2]
    assert not list((tmp_path / "there" / "tiny").glob(".command*"))


def test_a_place_that_is_lost_fails_its_run_and_no_other(tiny, make):
    told = make(tiny("sweep: {seed: 0..1}\n"), jobs=None, engine={"name": OWN + "Forgetful"})
    assert told.states == ["failed", "failed"]
    assert "the worker was lost; what it had saved is kept" in told.runs.runs[1].status["error"]


def test_the_engine_is_no_part_of_a_run_nor_of_the_experiments_name(tiny):
    plain = load_experiment(tiny())
    text = "engine: {name: dask, address: 'tcp://node:8786'}\n"
    on_dask = load_experiment(tiny(text, "other.yaml"), ("name=tiny",))
    assert plain.engine is None and plain.runs[0].hash == on_dask.runs[0].hash
    assert on_dask.engine == {"name": "dask", "address": "tcp://node:8786", "timeout": 60.0}
    given = load_experiment(tiny(), ("engine=local",))
    assert given.folder == plain.folder and given.engine == {"name": "local", "gpus": 1}


@pytest.mark.parametrize(
    "text, message",
    [
        ("engine: dusk", "no engine is called 'dusk'; did you mean 'dask'"),
        ("engine: {name: dask, adress: x}", "no key 'adress'; did you mean 'address'"),
        ("engine: {name: slurm, jobs: 0}", "jobs must be at least 1"),
        ("engine: {name: slurm, minutes: long}", "'minutes' must be a whole number"),
        ("engine: 3", "'engine' must be a name or a mapping with a name, found 3"),
        ("engine: 'no_such:make'", "No module named 'no_such'"),
    ],
)
def test_a_wrong_engine_is_told_with_its_place(tiny, text, message):
    with pytest.raises(ConfigError, match=rf"tiny.yaml:8:.*{message}"):
        load_experiment(tiny(text + "\n"))


def test_an_engine_of_the_command_line_takes_the_configs_options():
    known = {"name": "dask", "address": "tcp://node:8786", "timeout": 60.0}
    assert engine_of_words("dask", known) == known
    assert engine_of_words("local", known) == {"name": "local", "gpus": 1}
    assert engine_of_words("{name: slurm, jobs: 3}", known)["jobs"] == 3


def test_what_is_no_executor_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must return an executor of .*, found int"):
        OwnEngine(own_engines.nothing).places(1, tmp_path)
    with pytest.raises(UserError, match="unexpected keyword argument 'sise'"):
        OwnEngine(own_engines.threads, {"sise": 3}).places(1, tmp_path)


def test_an_engine_of_a_folder_that_is_not_trusted_is_not_run(tiny, monkeypatch):
    monkeypatch.delenv("NORMLAB_TRUST")
    with pytest.raises(ConfigError, match=r"own_engines:threads is code, which was not run"):
        load_experiment(tiny("engine: 'tests.shared.own_engines:threads'\n"))
