"""Steps and schedules are reckoned from the examples that are trained on."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from normlab.configs.experiment import load_experiment
from normlab.engine.maker import Maker
from normlab.errors import UserError

CONFIG = """
data: {name: cifar10}
model: {name: mlp, widths: [8]}
norm: batch_norm
optimizer: {name: sgd}
schedule: {name: cosine_decay_schedule, init_value: 0.1}
train: {epochs: 2, batch_size: 10}
"""


def table(path, n, seed):
    def png(pixels):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    images = np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"img": [png(i) for i in images], "label": np.arange(n) % 10}), path)


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A folder with CIFAR-10 as tables of 20 images each; it is where normlab looks."""
    folder = tmp_path / "data" / "cifar10"
    folder.parent.mkdir()
    table(folder / "train-00000-of-00001.parquet", 20, 0)
    table(folder / "test-00000-of-00001.parquet", 20, 1)
    monkeypatch.setenv("NORMLAB_DATA", str(folder.parent))
    return folder


def resolved(file, *overrides):
    return load_experiment(file, overrides).runs[0]


def test_a_smaller_copy_is_said_in_the_config_and_the_schedule_ends_with_the_run(
    few, config, make, monkeypatch, tmp_path
):
    file = config(CONFIG)
    found = resolved(file)
    assert found.sections["schedule"]["decay_steps"] == 4
    assert found.sections["data"]["train_examples"] == found.sections["data"]["test_examples"] == 20
    (run,) = make(file).runs
    assert run.status["state"] == "done" and run.status["steps"] == run.metrics[-1]["step"] == 4
    assert run.config == found.sections
    assert (
        run.provenance[0]["data"]["source"] == "Parquet, PNG-coded pictures of 20 and 20 examples"
    )
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path / "nothing"))
    published = resolved(file)
    assert published.sections["schedule"]["decay_steps"] == 10_000
    assert published.sections["data"]["train_examples"] is None
    assert published.hash != found.hash


@pytest.mark.parametrize(
    ("override", "message"),
    [("data.train_examples=21", r"data: train_examples must be in 1\.\.20"),
     ("data.validation=11", r"data: validation must be .* in 10\.\.10"),
     ("batch_size=21", r"batch_size=21 is larger than the 20 training examples")],
)  # fmt: skip
def test_more_than_the_files_hold_is_an_error_before_anything_runs(override, message, few, config):
    with pytest.raises(UserError, match=message):
        resolved(config(CONFIG), override)


def test_a_missing_shard_is_an_error_before_anything_runs(few, config):
    (few / "train-00000-of-00001.parquet").rename(few / "train-00000-of-00002-0a.parquet")
    with pytest.raises(UserError, match=r"2:7: data: .* expected 2 files train-\*\.parquet"):
        resolved(config(CONFIG))


def test_data_of_other_sizes_than_were_reckoned_with_are_not_trained_on(few, config, make):
    file = config(CONFIG)
    experiment = load_experiment(file)
    experiment.runs[0].sections["data"]["train_examples"] = 19
    maker = Maker(60.0, lambda: False)
    data = maker.dataset(load_experiment(file).runs[0])
    with pytest.raises(UserError, match="20 train examples, and the config was reckoned with 19"):
        maker._check_sizes(experiment.runs[0], data)


def test_a_config_without_a_balanced_cut_keeps_its_hash(config):
    text = CONFIG.replace("cifar10", "medmnist")
    plain = resolved(config(text), "schedule=null", "optimizer.learning_rate=0.1")
    assert plain.hash == "ee6d63697c" and "balance" not in plain.sections["data"]
