"""Logs elsewhere, read back by the services' own readers."""

import os
import sqlite3

import pytest

from normlab.errors import UserError
from normlab.interface.sinks import Sink
from normlab.runs.config import RunConfig
from normlab.runs.directory import Run
from normlab.runs.engine import RunEnded
from normlab.runs.maker import RunStarted
from normlab.training.state import Row

SECTIONS = {"norm": {"name": "batch_norm", "momentum": 0.9}, "schedule": None, "train": {"seed": 3}}
CONFIG = RunConfig(SECTIONS)


def row(step):
    return {"step": step, "epoch": step / 10, "train_loss": 1 / step, "test_accuracy": step / 100}


def tell(sink, *rows, begin=0, state="done"):
    sink(RunStarted(CONFIG, 0, "compiling"))
    sink(RunStarted(CONFIG, 0, "training", begin))
    for one in rows:
        sink(Row(one))
    sink(RunEnded(CONFIG, 0, state))


def scalars(folder, tag):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    reader = event_accumulator.EventAccumulator(str(folder / "tensorboard" / CONFIG.id))
    reader.Reload()
    assert "config" in reader.Tags()["tensors"]
    return [(event.step, round(event.value, 6)) for event in reader.Scalars(tag)]


def test_tensorboard_s_own_reader_finds_every_row(tmp_path):
    pytest.importorskip("tensorboard")
    tell(Sink("tensorboard", tmp_path), row(10), row(20))
    assert scalars(tmp_path, "test/accuracy") == [(10, 0.1), (20, 0.2)]
    assert scalars(tmp_path, "train/loss") == [(10, 0.1), (20, 0.05)]


def test_a_resumed_run_goes_on_in_tensorboard_and_one_begun_anew_replaces_itself(tmp_path):
    pytest.importorskip("tensorboard")
    tell(Sink("tensorboard", tmp_path), row(10), state="interrupted")
    tell(Sink("tensorboard", tmp_path), row(20), begin=10)
    assert scalars(tmp_path, "test/accuracy") == [(10, 0.1), (20, 0.2)]
    tell(Sink("tensorboard", tmp_path), row(10))
    assert scalars(tmp_path, "test/accuracy") == [(10, 0.1)]


def test_a_run_that_another_process_made_is_read_from_its_folder(tmp_path):
    pytest.importorskip("tensorboard")
    run = Run(tmp_path / CONFIG.id)
    run.path.mkdir()
    for step in (10, 20):
        run.append_metrics(row(step))
    Sink("tensorboard", tmp_path)(RunEnded(CONFIG, 0, "done"))
    assert scalars(tmp_path, "test/accuracy") == [(10, 0.1), (20, 0.2)]


def test_a_sink_that_breaks_says_so_once_and_lets_the_runs_go_on(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("in the way")
    sink = Sink("tensorboard", tmp_path)
    tell(sink, row(10), row(20))
    tell(sink, row(30))
    assert capsys.readouterr().err.count("tensorboard: nothing more is logged there") == 1


def test_an_unknown_log_or_one_not_installed_is_told_before_anything_runs(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there is no log 'tensorbord'; did you mean 'tensorboard'"):
        Sink("tensorbord", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UserError, match="wandb is not installed: pip install wandb"):
        Sink("wandb", tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_s_own_client_finds_every_row(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    store = tmp_path / "mlflow.db"
    sqlite3.connect(store).close()
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    tell(Sink("mlflow", tmp_path), row(10), state="interrupted")
    tell(Sink("mlflow", tmp_path), row(20), begin=10)
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name(tmp_path.name)
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "test/accuracy")
    assert [(m.step, m.value) for m in history] == [(10, 0.1), (20, 0.2)]
    assert run.data.params["norm.momentum"] == "0.9" and run.info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setitem(os.environ, "WANDB_MODE", "offline")
    monkeypatch.setitem(os.environ, "WANDB_SILENT", "true")
    tell(Sink("wandb", tmp_path), row(10), row(20))
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert CONFIG.hash in file.name and file.stat().st_size > 0
