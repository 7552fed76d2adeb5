"""A person's own code is a part of what a run is: its source is hashed, recorded and compared."""

import importlib
import json
import os
import sys

import pytest

from normlab.configs import own_code
from normlab.configs.build import Keyed
from normlab.configs.experiment import load_experiment
from normlab.configs.own_code import source_of
from normlab.errors import UserError
from normlab.store.loading import load
from tests.shared.small_runs import child
from tests.shared.waiting import GENEROUS

NORM = """
import jax.numpy as jnp
from dataclasses import dataclass
from normlab.core import normaliser
from {package}helpers import FACTOR

@normaliser(paper="none", uses_batch=False)
@dataclass(frozen=True)
class MyNorm:
    strength: float = 1.0
    def init(self, features):
        return {{}}, {{}}
    def apply(self, params, state, x, *, train, mask=None):
        return (FACTOR * self.strength * x).astype(x.dtype), state
"""

RUN = """
import sys
from pathlib import Path
from normlab.engine.engine import Engine
from normlab.configs.experiment import load_experiment
Engine(load_experiment(Path(sys.argv[1])), Path(sys.argv[2]), jobs=2).run_all()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder where a person's modules lie, found here and in processes begun from here."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ["PYTHONPATH"]]
                       if "PYTHONPATH" in os.environ else [str(folder)]))  # fmt: skip
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(folder, factor="1.0", package=""):
    folder.mkdir(exist_ok=True)
    (folder / "mynorm.py").write_text(NORM.format(package=package))
    (folder / "helpers.py").write_text(f"FACTOR = {factor}\n")


def again():
    """Forget what was imported of the person's, as if a process began."""
    for name in ("mynorm", "helpers", "mine", "mine.mynorm", "mine.helpers"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def only(file, *overrides):
    (config,) = load_experiment(file, overrides).runs
    return config


NAMED = "norm: mynorm:MyNorm\n"


@pytest.fixture
def mine(tiny, own):
    """A config that names the person's own normaliser."""
    write(own)
    file = tiny()
    file.write_text(file.read_text().replace("norm: batch_norm\n", NAMED))
    return file


def test_another_source_is_another_run_and_the_same_is_the_same(mine, own):
    first = only(mine)
    assert list(first.own_code) == ["mynorm"]
    again()
    assert only(mine).id == first.id
    again()
    write(own, "2.0")  # in a file that the named one imports
    changed = only(mine)
    assert changed.id != first.id and changed.program_hash != first.program_hash
    again()
    (own / "mynorm.py").write_text((own / "mynorm.py").read_text() + "# a comment counts\n")
    assert only(mine).hash not in (first.hash, changed.hash)
    assert "own_code" not in first.sections


def test_the_folder_that_it_lies_in_does_not_count_but_its_package_does(tmp_path, own):
    for folder in ("one", "two"):
        write(tmp_path / folder)
    hashes = []
    for folder in ("one", "two"):
        spec = importlib.util.spec_from_file_location("mynorm", tmp_path / folder / "mynorm.py")
        module = importlib.util.module_from_spec(spec)
        hashes.append(source_of(module))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "package", [".", "mine.", "mine.sub."], ids=["relative", "absolute", "deep"]
)
def test_what_a_package_imports_of_itself_counts(own, package):
    sub = own / "mine" / "sub" if package == "mine.sub." else own / "mine"
    sub.mkdir(parents=True)
    (own / "mine" / "__init__.py").write_text("")
    write(own / "mine", package=package)
    (sub / "__init__.py").write_text("")
    (sub / "helpers.py").write_text("FACTOR = 1\n")
    (own / "mine" / "unused.py").write_text("x = 1\n")
    module = importlib.import_module("mine.mynorm")
    first = source_of(module)
    (own / "mine" / "unused.py").write_text("x = 2\n")
    assert source_of(module) == first
    (sub / "helpers.py").write_text("FACTOR = 2\n")
    second = source_of(module)
    (own / "mine" / "__init__.py").write_text("x = 1\n")
    assert len({first, second, source_of(module)}) == 3


def test_an_installed_package_is_known_by_its_version():
    import optax

    assert source_of(optax) == f"optax {optax.__version__}"


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("data", "augment"), [{"name": "mynorm:X"}]),
        (("probes", "measure"), [{"name": "gradients"}, {"name": "mynorm:X"}]),
        (("model", "name"), "mynorm:X"),
        (("data", "name"), "mynorm:X"),
        (("kernel", "name"), "mynorm:X"),
        (("norm", "inner"), {"name": "mynorm:X"}),
    ],
)
def test_every_place_that_can_name_own_code_is_seen(own, place, text):
    write(own)
    importlib.import_module("mynorm")
    assert list(own_code.own_code({place[0]: {"name": "batch_norm", place[1]: text}})) == ["mynorm"]


def test_what_was_edited_after_it_was_imported_is_not_run(mine, own):
    only(mine)
    write(own, "2.0")
    with pytest.raises(UserError, match=r"mynorm.py: it, or a file .* restart the kernel"):
        only(mine)
    importlib.reload(sys.modules["helpers"])
    importlib.reload(sys.modules["mynorm"])
    assert only(mine).own_code


def test_what_is_loaded_again_is_traced_again(mine, own):
    before = Keyed("", only(mine).sections)
    write(own, "2.0")
    importlib.reload(sys.modules["mynorm"])
    assert Keyed("", only(mine).sections) != before


def test_a_run_of_edited_code_is_refused_where_it_was_planned_with_other(mine, own):
    write(own, "3.0")
    planned = only(mine)
    again()
    write(own, "4.0")
    with pytest.raises(UserError, match="edited after this command began"):
        own_code.check_same(planned.own_code)
    (own / "mynorm.py").unlink()
    again()
    with pytest.raises(UserError, match="cannot be imported any more"):
        own_code.check_same(planned.own_code)


@pytest.mark.thorough
def test_edited_between_two_commands_the_runs_are_others_and_say_so(mine, own, tmp_path):
    mine.write_text(mine.read_text() + "sweep: {seed: 0..1}\n")
    out = tmp_path / "runs"
    for factor in ("1.0", "0.0"):
        write(own, factor)
        process = child(RUN, mine, out)
        told, _ = process.communicate(timeout=GENEROUS)
        assert process.returncode == 0, told
    folders = sorted((out / "tiny").glob("*-s*-*"))
    assert len(folders) == 4
    proofs = [json.loads((folder / "provenance.json").read_text()) for folder in folders]
    assert all(len(proof) == 1 for proof in proofs)
    assert len({proof[0]["own_code"]["mynorm"] for proof in proofs}) == 2
    last = [run.metrics[-1]["test_accuracy"] for run in load(out / "tiny").runs]
    assert last[0] == pytest.approx(0.1, abs=0.1)  # nothing passes through the network any more


def test_runs_are_read_without_their_code(mine, own, make):
    runs = make(mine).runs
    again()
    for file in own.iterdir():
        file.unlink()
    (run,) = load(runs.path).runs
    assert run.config["norm"]["name"] == "mynorm:MyNorm" and run.provenance[0]["own_code"]
