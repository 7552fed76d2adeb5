"""Joins processes on one or several hosts into one that makes runs together.

Every process is given the same command. The first one, number 0, does what a single process does:
it plans, writes the records and shows them. It tells the others each run that it begins. They
compute their part of it, write their part of its checkpoints, and nothing else. What one process
must decide for all, such as to stop at Ctrl-C, is decided together every few steps.

The processes are started by `normlab launch`, or by a cluster's own launcher, which JAX detects:
SLURM, Open MPI, Kubernetes and others.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from normlab.configs.run_config import RunConfig
from normlab.engine.launched import told
from normlab.errors import UserError, in_one_line
from normlab.store.run import Run

SECONDS_TO_MEET = 300
"""How long processes wait for each other when they begin, and when a program is compiled."""

STEPS_BETWEEN_VOTES = 10
"""How often the processes of a run ask each other whether to stop or to save. A vote waits for the
device, so that one at every step would slow a small network."""

END = "none"
"""What the others are told when there is no run any more."""


class BrokenError(Exception):
    """A run of several processes has failed, so that they are not at the same place any more."""


def join(asked: bool) -> None:
    """Join the other processes, if this one was started as one of several.

    Args:
        asked: whether a cluster's launcher may have started it. Without that, only the
            environment of `normlab launch` counts: an array job's tasks are not one process.

    Raises:
        UserError: there is no launcher that JAX knows, or the others do not come.
    """
    launched = told()
    if launched is None and not asked:
        return
    # Else the devices of processors cannot work together. JAX ignores it on GPUs and TPUs.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**(launched or {}), initialization_timeout=SECONDS_TO_MEET)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes could not be joined ({in_one_line(error)}): start them by srun, mpirun "
            "or a Kubernetes job of several pods, or on one machine by normlab launch -n 2 run FILE"
        ) from error


@dataclass
class Team:
    """The processes that make runs together, as one of them sees them."""

    _told: int = 0
    _asked: int = 0
    _saves: bool = False
    _client: Any = field(default_factory=multihost.get_jax_distributed_client)

    @property
    def leads(self) -> bool:
        """Whether this process plans and writes."""
        return jax.process_index() == 0

    def announce(self, config: RunConfig, run: Run, failed: str) -> None:
        """Tell the others of a run that begins now, and how the last attempt at it failed."""
        about = {"sections": config.sections, "own_code": config.own_code, "failed": failed}
        self._tell(json.dumps({**about, "folder": str(run.path.resolve())}))

    def dismiss(self) -> None:
        """Tell the others that there is no run any more."""
        self._tell(END)

    def _tell(self, text: str) -> None:
        self._client.key_value_set(f"normlab/run/{self._told}", text)
        self._told += 1

    def next_run(self) -> tuple[RunConfig, Run, str] | None:
        """Wait for the next run; None if there is none."""
        while True:
            try:
                text = self._client.blocking_key_value_get(f"normlab/run/{self._told}", 10_000)
                break
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
        self._told += 1
        if text == END:
            return None
        about = json.loads(text)
        config = RunConfig(about["sections"], own_code=about["own_code"])
        return config, Run(Path(about["folder"])), about["failed"]

    def meet(self) -> None:
        """Wait until every process has come so far, such as to the end of a compilation."""
        multihost.sync_global_processes("normlab", timeout=SECONDS_TO_MEET)

    def stops(self, asked: Callable[[], bool], due: Callable[[], bool]) -> bool:
        """Decide together whether to stop, and whether to save; call it before every step.

        Args:
            asked: whether this process was asked to stop.
            due: whether this process has not saved for long; the first one's answer counts.
        """
        self._asked += 1
        self._saves = False
        if self._asked % STEPS_BETWEEN_VOTES:
            return False
        mine = np.array([asked(), self.leads and due()])
        stop, save = np.asarray(multihost_utils.process_allgather(mine)).any(axis=0)
        self._saves = bool(save)
        return bool(stop)

    def saves(self) -> bool:
        """Return what the last call of `stops` decided of saving."""
        return self._saves


@cache
def team() -> Team | None:
    """Return the processes that this one has joined; None if it is alone."""
    return Team() if jax.process_count() > 1 else None


def leave_at_once(status: int) -> NoReturn:
    """End this process without waiting for the others, which may be gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
