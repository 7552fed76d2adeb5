"""Logs elsewhere, read back by the services' own readers."""

import pytest

from normlab.configs.run_config import RunConfig
from normlab.engine.engine import RunEnded
from normlab.engine.maker import RunStarted
from normlab.errors import UserError
from normlab.interface.sinks import LOGS, Sink
from normlab.store.run import Run
from normlab.training.events import Row

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


def on_disk(folder, *steps):
    run = Run(folder / CONFIG.id)
    run.path.mkdir(exist_ok=True)
    for step in steps:
        run.append_metrics(row(step))


def scalars(folder, tag):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    reader = event_accumulator.EventAccumulator(str(folder / "tensorboard" / CONFIG.id))
    reader.Reload()
    assert b"momentum: 0.9" in reader.Tensors("config")[0].tensor_proto.string_val[0]
    return [(event.step, round(event.value, 6)) for event in reader.Scalars(tag)]


def test_tensorboard_s_own_reader_finds_every_row(tmp_path):
    pytest.importorskip("tensorboard")
    tell(Sink("tensorboard", tmp_path), row(10), row(20))
    assert scalars(tmp_path, "test/accuracy") == [(10, 0.1), (20, 0.2)]
    assert scalars(tmp_path, "train/loss") == [(10, 0.1), (20, 0.05)]


def test_a_resumed_run_goes_on_in_tensorboard_and_one_begun_anew_replaces_itself(tmp_path):
    pytest.importorskip("tensorboard")
    # Row 20 came after the last checkpoint, at step 10: it is made again.
    tell(Sink("tensorboard", tmp_path), row(10), row(20), state="interrupted")
    tell(Sink("tensorboard", tmp_path), row(20), row(30), begin=10)
    assert scalars(tmp_path, "test/accuracy") == [(10, 0.1), (20, 0.2), (30, 0.3)]
    tell(Sink("tensorboard", tmp_path), row(10))
    assert scalars(tmp_path, "test/accuracy") == [(10, 0.1)]


def test_a_run_resumed_with_a_log_for_the_first_time_has_its_early_rows_there(tmp_path):
    pytest.importorskip("tensorboard")
    on_disk(tmp_path, 10, 20)
    tell(Sink("tensorboard", tmp_path), row(30), begin=20)
    expected = [(10, 0.1), (20, 0.2), (30, 0.3)]
    assert scalars(tmp_path, "test/accuracy") == expected
    on_disk(tmp_path, 30)
    tell(Sink("tensorboard", tmp_path), row(40), begin=30)
    assert scalars(tmp_path, "test/accuracy") == [*expected, (40, 0.4)]


def test_a_run_that_another_process_made_is_read_from_its_folder(tmp_path):
    pytest.importorskip("tensorboard")
    on_disk(tmp_path, 10)
    Sink("tensorboard", tmp_path)(RunEnded(CONFIG, 0, "interrupted"))
    on_disk(tmp_path, 20)
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


def test_a_folder_that_the_service_left_is_not_its_package(tmp_path, monkeypatch):
    name = "normlab_never_installed"
    (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(LOGS, name, LOGS["tensorboard"])
    with pytest.raises(UserError, match="is not installed"):
        Sink(name, tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # open databases
def test_mlflow_s_own_client_finds_every_row_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tell(Sink("mlflow", tmp_path), row(10), row(20), state="interrupted")
    on_disk(tmp_path, 10)
    tell(Sink("mlflow", tmp_path), row(20), row(30), begin=10)
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name(tmp_path.name)
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "test/accuracy")
    assert [(m.step, m.value) for m in history] == [(10, 0.1), (20, 0.2), (30, 0.3)]
    assert run.data.params["norm.momentum"] == "0.9" and run.info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_writes_a_run_offline(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tell(Sink("wandb", tmp_path), row(10), row(20))
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert CONFIG.hash in file.name
    assert capfd.readouterr() == ("", ""), "the terminal belongs to the live table"
    written = file.read_bytes()
    assert written.count(b"test/accuracy") >= 2 and tmp_path.name.encode() in written
