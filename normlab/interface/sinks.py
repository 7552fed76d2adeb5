"""Logs elsewhere: TensorBoard, Weights & Biases, MLflow. Each is imported only when asked for.

A sink takes the engine's events. Whatever goes wrong in it is told once, and the runs go on: what
counts is on disk in any case. A service has each row once, however often a run is broken off and
resumed; what it missed is read from the run's folder.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (the packages are optional, and protobuf makes its classes as it is imported)

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import yaml

from normlab.configs.run_config import RunConfig
from normlab.engine.engine import RunEnded
from normlab.engine.maker import RunStarted
from normlab.errors import UserError, did_you_mean, in_one_line
from normlab.interface.runs_diff import flatten
from normlab.store.run import Run
from normlab.training.events import Row

PREFIXES = ("train_", "test_", "val_")
MOST_PARAMS = 100
"""How many parameters MLflow takes at a time, by its REST API's limits."""


class Log(Protocol):
    """A run's log in a service, made from the experiment's folder, the run and a step.

    The service drops what it has of the run after that step, if it can.

    Attributes:
        last: the last step that the service has and cannot drop, -1 for none.
    """

    last: int

    def __init__(self, folder: Path, run: RunConfig, keep: int): ...

    @staticmethod
    def prepare() -> None:
        """Do once, before any run, what may ask a person something or print much."""
        ...

    def row(self, step: int, values: dict[str, float]) -> None:
        """Write the metrics of a step."""
        ...

    def close(self, state: str) -> None:
        """Note how the run ended."""
        ...


class TensorBoardLog:
    """Writes event files for TensorBoard by its own writer, without torch or tensorflow."""

    last = -1

    @staticmethod
    def prepare() -> None:
        """Nothing."""

    def __init__(self, folder: Path, run: RunConfig, keep: int):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder / "tensorboard" / run.id))
        # Readers drop what came before this from its step on: rows after the last checkpoint, which
        # are made again.
        started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(keep + 1, session_log=started)
        if keep < 0:
            config = yaml.safe_dump(run.sections, sort_keys=False)
            self._add(0, summary=text_pb("config", f"```yaml\n{config}```"))

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(self._event(step=step, wall_time=time.time(), **content))
        self._writer.flush()

    def row(self, step: int, values: dict[str, float]) -> None:
        """Write scalars with tags such as train/loss."""
        scalars = [self._summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]
        self._add(step, summary=self._summary(value=scalars))

    def close(self, state: str) -> None:
        """Close the file."""
        self._writer.close()


class WandbLog:
    """A run of Weights & Biases; resumed with the run. It keeps the first row of a step."""

    @staticmethod
    def prepare() -> None:
        """Log in, if need be with a question."""
        import wandb

        if os.environ.get("WANDB_MODE", "online") == "online":
            wandb.login()

    def __init__(self, folder: Path, run: RunConfig, keep: int):
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "normlab"),
            group=folder.name,
            id=run.hash,
            name=run.id,
            resume="allow",
            config=run.sections,
            dir=str(folder),
            # What is printed belongs to all runs, and the terminal to the live table.
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.last = self._run.starting_step - 1

    def row(self, step: int, values: dict[str, float]) -> None:
        """Metrics by step."""
        # A row stands open until the next one or this: otherwise a watcher sees it an epoch late.
        self._run.log(values, step=step, commit=True)

    def close(self, state: str) -> None:
        """Finish; a failed run is marked so."""
        self._run.summary["state"] = state
        self._run.finish(exit_code=int(state == "failed"))


class MlflowLog:
    """A run of MLflow, in the experiment of the same name; resumed with the run."""

    @staticmethod
    def prepare() -> None:
        """Reach the store; a new database is made now."""
        from mlflow.tracking import MlflowClient

        MlflowClient().search_experiments(max_results=1)

    def __init__(self, folder: Path, run: RunConfig, keep: int):
        from mlflow.tracking import MlflowClient

        self._client, self.last = MlflowClient(), -1
        found = self._client.get_experiment_by_name(folder.name)
        experiment = found.experiment_id if found else self._client.create_experiment(folder.name)
        known = self._client.search_runs([experiment], f"tags.normlab = '{run.hash}'")
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            for name in list(known[0].data.metrics)[:1]:
                history = self._client.get_metric_history(self._id, name)
                self.last = max(metric.step for metric in history)
            return
        tags = {"normlab": run.hash, "mlflow.runName": run.id}
        self._id = self._client.create_run(experiment, tags=tags).info.run_id
        self._log_params(run)

    def _log_params(self, run: RunConfig) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in flatten(run.sections).items()]
        for i in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[i : i + MOST_PARAMS])

    def row(self, step: int, values: dict[str, float]) -> None:
        """Metrics by step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, state: str) -> None:
        """Set the status."""
        words = {"failed": "FAILED", "interrupted": "KILLED"}
        self._client.set_tag(self._id, "state", state)
        self._client.set_terminated(self._id, words.get(state, "FINISHED"))


LOGS: dict[str, type[Log]] = {
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
    "mlflow": MlflowLog,
}
"""Every service, by the name of its package."""


class Sink:
    """Passes the events of runs on to one service.

    Args:
        name: a key of `LOGS`.
        folder: the experiment's; its name is the group in W&B, and the experiment in MLflow.

    Raises:
        UserError: there is no such service, or its package is not installed.
    """

    def __init__(self, name: str, folder: Path):
        if name not in LOGS:
            raise UserError(f"there is no log '{name}'; {did_you_mean(name, LOGS)}")
        spec = importlib.util.find_spec(name)
        # W&B leaves a folder `wandb` where it ran, which could be imported, as an empty package.
        if spec is None or spec.origin is None:
            raise UserError(f"{name} is not installed: pip install {name}")
        self._name, self._folder = name, folder
        self._log: Log | None = None
        self._broken = False
        self._try(lambda: LOGS[name].prepare())

    def __call__(self, event: Any) -> None:
        """Pass one event on."""
        if not self._broken:
            self._try(lambda: self._pass_on(event))

    def _try(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # a log must never end a run
            self._broken = True
            print(
                f"{self._name}: nothing more is logged there: {in_one_line(error)}", file=sys.stderr
            )

    def _pass_on(self, event: Any) -> None:
        if isinstance(event, RunStarted) and event.phase == "training":
            self._begin(event.run, event.step)
        elif isinstance(event, Row) and self._log is not None:
            self._row(event.metrics)
        elif isinstance(event, RunEnded) and event.state not in ("skipped", "busy"):
            rows = Run(self._folder / event.run.id).metrics
            if self._log is None and rows:  # another process made it
                self._begin(event.run, int(rows[-1]["step"]))
            if self._log is not None:
                self._log.close(event.state)
            self._log = None

    def _begin(self, run: RunConfig, step: int) -> None:
        """Open the run's log, and tell it of the evaluations that it may have missed."""
        rows = [r for r in Run(self._folder / run.id).metrics if r["step"] <= step]
        self._log = LOGS[self._name](self._folder, run, step if step and not rows else -1)
        for row in rows:
            self._row(row)

    def _row(self, metrics: dict[str, Any]) -> None:
        assert self._log is not None
        if metrics["step"] > self._log.last:
            names = [n for n, v in metrics.items() if n != "step" and isinstance(v, int | float)]
            self._log.row(int(metrics["step"]), {_tag(n): float(metrics[n]) for n in names})


def _tag(metric: str) -> str:
    """A metric's name in the services' own manner.

    >>> _tag("train_loss"), _tag("epoch")
    ('train/loss', 'epoch')
    """
    prefix = next((p for p in PREFIXES if metric.startswith(p)), "")
    return f"{prefix[:-1]}/{metric.removeprefix(prefix)}" if prefix else metric
