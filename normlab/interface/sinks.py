"""Logs elsewhere: TensorBoard, Weights & Biases, MLflow. Each is imported only when asked for.

A sink takes the engine's events. Whatever goes wrong in it is told once, and the runs go on: what
counts is on disk in any case.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (the packages are optional, and protobuf makes its classes as it is imported)

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from normlab.errors import UserError, did_you_mean
from normlab.runs.directory import Run
from normlab.runs.engine import RunEnded
from normlab.runs.maker import RunStarted
from normlab.training.state import Row

PREFIXES = ("train_", "test_", "val_")


class Log(Protocol):
    """One run's log in some service."""

    def row(self, step: int, values: dict[str, float]) -> None:
        """Metrics at a step."""
        ...

    def close(self, state: str) -> None:
        """The run ended so."""
        ...


class TensorBoardLog:
    """Event files for TensorBoard, by its own writer; no torch, no tensorflow."""

    def __init__(self, folder: Path, started: RunStarted):
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._summary, self._writer = (
            Summary,
            EventFileWriter(str(folder / "tensorboard" / started.run.id)),
        )
        if started.step == 0:
            self._restart()
            text = SummaryMetadata()
            text.plugin_data.plugin_name = "text"
            config = json.dumps(started.run.sections, indent=2)
            self._add_text(config, text)

    def _restart(self) -> None:
        """Have TensorBoard drop what a broken-off attempt at the same run has shown."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        log = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(session_log=log, step=0, wall_time=time.time()))

    def _add_text(self, config: str, metadata: Any) -> None:
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        tensor = TensorProto(dtype=DT_STRING, string_val=[f"```\n{config}\n```".encode()])
        value = self._summary.Value(tag="config", metadata=metadata, tensor=tensor)
        self._add(0, [value])

    def _add(self, step: int, values: list[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(step=step, wall_time=time.time(), summary=self._summary(value=values))
        self._writer.add_event(event)

    def row(self, step: int, values: dict[str, float]) -> None:
        """Scalars, as train/loss."""
        pairs = values.items()
        self._add(step, [self._summary.Value(tag=tag, simple_value=v) for tag, v in pairs])
        self._writer.flush()

    def close(self, state: str) -> None:
        """Write out what is left."""
        self._writer.close()


class WandbLog:
    """A run of Weights & Biases; resumed with the run."""

    def __init__(self, folder: Path, started: RunStarted):
        import wandb

        run = started.run
        self._run = wandb.init(
            project="normlab",
            group=folder.name,
            id=run.hash,
            name=run.id,
            resume="allow",
            config=run.sections,
            dir=str(folder),
        )

    def row(self, step: int, values: dict[str, float]) -> None:
        """Metrics by step."""
        self._run.log(values, step=step)

    def close(self, state: str) -> None:
        """Finish; a failed run is marked so."""
        self._run.summary["state"] = state
        self._run.finish(exit_code=int(state == "failed"))


class MlflowLog:
    """A run of MLflow, in the experiment of the same name; resumed with the run."""

    def __init__(self, folder: Path, started: RunStarted):
        from mlflow.tracking import MlflowClient

        self._client, run = MlflowClient(), started.run
        found = self._client.get_experiment_by_name(folder.name)
        experiment = found.experiment_id if found else self._client.create_experiment(folder.name)
        known = self._client.search_runs([experiment], f"tags.normlab = '{run.hash}'")
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {"normlab": run.hash, "mlflow.runName": run.id}
        self._id = self._client.create_run(experiment, tags=tags).info.run_id
        for section, keys in run.sections.items():
            for key, value in (keys or {}).items():
                self._client.log_param(self._id, f"{section}.{key}", value)

    def row(self, step: int, values: dict[str, float]) -> None:
        """Metrics by step."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self, state: str) -> None:
        """Set the status."""
        words = {"failed": "FAILED", "interrupted": "KILLED"}
        self._client.set_tag(self._id, "state", state)
        self._client.set_terminated(self._id, words.get(state, "FINISHED"))


LOGS: dict[str, Callable[[Path, RunStarted], Log]] = {
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
    "mlflow": MlflowLog,
}
"""Every service, by the name of its package."""


class Sink:
    """Passes the events of runs on to one service.

    Args:
        name: a key of `LOGS`.
        folder: the experiment's.

    Raises:
        UserError: there is no such service, or its package is not installed.
    """

    def __init__(self, name: str, folder: Path):
        if name not in LOGS:
            raise UserError(f"there is no log '{name}'; {did_you_mean(name, LOGS)}")
        try:
            __import__(name)
        except ImportError:
            raise UserError(f"{name} is not installed: pip install {name}") from None
        self._name, self._folder = name, folder
        self._log: Log | None = None
        self._broken = False

    def __call__(self, event: Any) -> None:
        """Pass one event on."""
        if self._broken:
            return
        try:
            self._pass_on(event)
        except Exception as error:  # a log must never end a run
            self._broken = True
            print(f"{self._name}: nothing more is logged there: {error}", file=sys.stderr)

    def _pass_on(self, event: Any) -> None:
        if isinstance(event, RunStarted) and event.phase == "training":
            self._log = LOGS[self._name](self._folder, event)
        elif isinstance(event, Row) and self._log is not None:
            metrics = event.metrics
            self._log.row(
                int(metrics["step"]), {_tag(k): v for k, v in metrics.items() if k != "step"}
            )
        elif isinstance(event, RunEnded) and event.state not in ("skipped", "busy"):
            if self._log is None:  # another process made it; what it told lies in the run's folder
                self._replay(event)
            if self._log is not None:
                self._log.close(event.state)
            self._log = None

    def _replay(self, event: RunEnded) -> None:
        rows = Run(self._folder / event.run.id).metrics
        if rows:
            self._pass_on(RunStarted(event.run, event.index, "training"))
            for row in rows:
                self._pass_on(Row(row))


def _tag(metric: str) -> str:
    """A metric's name in the services' own manner.

    >>> _tag("train_loss"), _tag("epoch")
    ('train/loss', 'epoch')
    """
    prefix = next((p for p in PREFIXES if metric.startswith(p)), "")
    return f"{prefix[:-1]}/{metric.removeprefix(prefix)}" if prefix else metric
