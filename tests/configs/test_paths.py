"""Paths in a config: where they are looked for, and what of a person's own files is hashed."""

import contextlib
import shutil

import numpy as np
import pytest
from PIL import Image

from normlab.configs.document import ConfigError
from normlab.configs.experiment import load_experiment
from normlab.data import Folder

CONFIG = """
data: {name: folder, path: pets}
model: {name: mlp, widths: [4]}
norm: layer_norm
optimizer: {name: sgd, learning_rate: 0.1}
train: {epochs: 1, batch_size: 4}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NORMLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("NORMLAB_DATA", raising=False)


def make(folder):
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.full((4, 4, 3), 10 * i + len(name), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def config(folder, text=CONFIG):
    folder.mkdir(exist_ok=True)
    file = folder / "pets.yaml"
    file.write_text(text, "utf-8")
    return file


def only_run(file, *overrides):
    (run,) = load_experiment(file, overrides).runs
    return run


def test_a_relative_path_is_beside_the_config(tmp_path, monkeypatch):
    make(tmp_path / "project" / "pets")
    file = config(tmp_path / "project")
    data = only_run(file).sections["data"]
    assert data["path"] == str(tmp_path / "project" / "pets")
    assert (data["size"], data["channels"]) == (4, 3)
    child = tmp_path / "child.yaml"
    child.write_text("extends: project/pets.yaml\ndata: {seed: 1}\n")
    assert only_run(child).sections["data"]["path"] == data["path"]
    monkeypatch.chdir(tmp_path / "project")
    assert only_run(child, "data.path=pets").sections["data"]["path"] == data["path"]


def test_a_relative_path_may_be_among_the_data(tmp_path, monkeypatch):
    make(tmp_path / "sets" / "pets")
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path / "sets"))
    file = config(tmp_path / "project")
    assert only_run(file).sections["data"]["path"] == str(tmp_path / "sets" / "pets")
    make(tmp_path / "project" / "pets")
    assert only_run(file).sections["data"]["path"] == str(tmp_path / "project" / "pets")


def test_data_that_were_moved_are_the_same_run_and_changed_data_another(tmp_path):
    pets = make(tmp_path / "one" / "pets")
    before = only_run(config(tmp_path / "one")).hash
    assert before == only_run(config(tmp_path / "one")).hash
    shutil.copytree(pets, tmp_path / "two" / "pets")
    assert only_run(config(tmp_path / "two")).hash == before
    Image.new("RGB", (4, 4), "red").save(pets / "cat" / "1.png")
    assert only_run(config(tmp_path / "one")).hash != before


def test_a_resolved_config_is_a_config_of_the_same_run(tmp_path):
    import yaml

    make(tmp_path / "pets")
    run = only_run(config(tmp_path))
    again = config(tmp_path / "other", yaml.safe_dump(run.sections))
    assert only_run(again).hash == run.hash


def test_what_is_wrong_with_the_files_is_told_at_its_place(tmp_path):
    file = config(tmp_path)
    with pytest.raises(
        ConfigError, match=r"pets.yaml:2:\d+: data: there is no file or folder .*pets"
    ):
        load_experiment(file)
    make(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"(?s)pets.yaml:2:\d+: data: .*cat/0.png: it is empty"):
        load_experiment(file)
    assert only_run(file, "data.skip_broken=true").sections["data"]["skip_broken"] is True


@pytest.mark.parametrize("path", ["pets", "nowhere"])
def test_the_runs_of_a_sweep_look_at_the_same_files_once(path, tmp_path, monkeypatch):
    make(tmp_path / "pets")
    looked, settled = [], Folder.settled
    monkeypatch.setattr(Folder, "settled", lambda self: looked.append(self.seed) or settled(self))
    sweep = "sweep: {data.seed: [1, 2], norm: [layer_norm, identity], seed: 0..2}\n"
    text = CONFIG.replace("path: pets", f"path: {path}") + sweep
    with contextlib.nullcontext() if path == "pets" else pytest.raises(ConfigError, match=path):
        runs = load_experiment(config(tmp_path, text)).runs
        assert len(runs) == 12 and len({run.sections["data"]["contents"] for run in runs}) == 1
    assert looked == [1, 2]
