"""`normlab init` and `normlab new` write files that work as they are."""

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from normlab.cli import app
from normlab.configs.experiment import load_experiment
from normlab.configs.shipped import config_file, shipped
from normlab.errors import UserError
from normlab.interface import starters
from normlab.store.loading import load
from tests.shared.small_runs import make, promotion_as_users_have_it

__all__ = ["make", "promotion_as_users_have_it"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def normlab(*words):
    done = CliRunner().invoke(app, words, catch_exceptions=True)
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_files_of_ones_own_are_written_pass_their_checks_and_run(here, make):
    for kind in ("norm", "model", "data"):
        told = normlab("new", kind, f"fresh_{kind}")
        assert f"{kind}: fresh_{kind}:Fresh{kind.title()}" in told
    told = normlab(
        "init", "mine.yaml", "--data=fresh_data:FreshData", "--model=fresh_model:FreshModel",
        "--norms=own, fresh_norm:FreshNorm", "--epochs=1", "--seeds=1",
    )  # fmt: skip
    assert "mine.yaml: 2 runs" in told
    assert not make(here / "mine.yaml", out=here / "runs").failed
    runs = load(here / "runs" / "mine")
    assert [run.arm for run in runs] == ["own", "fresh_norm:FreshNorm"]
    assert all(run.metrics[-1]["train_loss"] < 1 for run in runs)


def test_the_normaliser_that_is_written_is_the_equation_of_its_docstring(here):
    normlab("new", "norm", "FreshNorm")
    norm = importlib.import_module("fresh_norm").FreshNorm(eps=0.0)
    x = jax.random.normal(jax.random.key(0), (4, 3, 5))
    y, _ = norm.apply({"scale": jnp.full(5, 2.0)}, {}, x, train=True)
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(y, 2 * wide / np.sqrt((wide**2).mean(-1, keepdims=True)), rtol=1e-5)


def test_nothing_that_exists_is_written_over(here):
    (here / "fresh_norm.py").write_text("mine")
    with pytest.raises(UserError, match=r"fresh_norm.py exists"):
        normlab("new", "norm", "fresh_norm")
    assert (here / "fresh_norm.py").read_text() == "mine"
    with pytest.raises(UserError, match="must be a name of Python"):
        normlab("new", "norm", "2nd-norm")
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        normlab("init", "--from=quickstar", "a.yaml")


def test_without_anything_said_the_config_works(here):
    normlab("init")
    assert len(load_experiment(here / "experiment.yaml").runs) == 6
    assert "YAML" not in (here / "experiment.yaml").read_text()


def test_what_is_still_wrong_is_told_and_the_file_is_there(here):
    told = normlab("init", "a.yaml", "--data=cifar10", "--model=no_such:Net", "--norms=own")
    assert "a.yaml is written" in told and "no_such:Net" in told
    assert (here / "a.yaml").exists()


def test_a_folder_of_pictures_and_files_of_arrays_are_recognised():
    command = importlib.import_module("normlab.interface.commands.init")
    assert command._data(str(ROOT / "docs")).startswith("{name: folder, path: ")
    assert command._data("my x.npz") == '{name: npz, path: "my x.npz"}'
    assert command._data("cifar10") == "cifar10"


def test_a_config_of_normlab_is_found_by_its_name_and_copied(here):
    assert config_file(Path("quickstart")) == ROOT / "configs" / "quickstart.yaml"
    normlab("init", "copy.yaml", "--from", "quickstart")
    assert (here / "copy.yaml").read_text() == shipped()["quickstart"].read_text()
    (here / "quickstart").mkdir()  # what is here is not hidden
    assert config_file(Path("quickstart")) == Path("quickstart")


def test_the_version_is_told():
    assert normlab("--version").startswith("normlab 0.")


def test_the_claim_of_the_config_is_one_once_it_is_uncommented(here):
    text = starters.config(
        "a.yaml", data="shapes", model="mlp", norms=["identity", "batch_norm"], batch_size=32
    )
    head, _, claims = text.partition("# claims:")
    (here / "a.yaml").write_text(head + "claims:" + claims.replace("\n# ", "\n"))
    (claim,) = load_experiment(here / "a.yaml").claims
    assert claim.says.startswith("identity beats batch_norm")


@pytest.mark.thorough
def test_the_wheel_holds_the_configs_and_what_is_no_python(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "No module named pip" in done.stderr:
        pytest.skip("the tools that build a wheel cannot be fetched here")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = [*(ROOT / "normlab").rglob("*.j2"), ROOT / "normlab" / "py.typed"]
    assert {str(file.relative_to(ROOT)) for file in tracked} <= names
    assert {f"normlab/shipped/{file.name}" for file in (ROOT / "configs").glob("*.yaml")} <= names
