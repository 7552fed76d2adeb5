"""Describes one run to be made, also as plain values that any process elsewhere can be given."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from normlab.catalogue import allow
from normlab.configs.admission import names_in
from normlab.configs.own_code import find_code_in
from normlab.configs.run_config import RunConfig
from normlab.errors import UserError
from normlab.store.run import Run

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Order = dict[str, Any]
"""A task as texts, numbers, lists and mappings."""


@dataclass(frozen=True)
class Task:
    """Describes one run to be made.

    Attributes:
        config: what it does.
        run: where it is kept, as it was planned.
        index: its place in the list of runs, from 0.
        again: the command that makes it alone.
        claims: the hashes of the claims that stand now.
        at_once: how many runs are made at once.
        made_by: the engine, the shard and the worker that make it, for provenance.
    """

    config: RunConfig
    run: Run
    index: int
    again: str
    claims: tuple[str, ...] = ()
    at_once: int = 1
    made_by: Mapping[str, str] = field(default_factory=dict)

    def order(self, checkpoint_seconds: float, command: Path | None = None) -> Order:
        """Write the task as plain values.

        Args:
            checkpoint_seconds: the least time between two checkpoints.
            command: a lease that the command which gives the order holds; a worker elsewhere ends
                when it is given back or lost.
        """
        config = self.config
        return {
            "config": yaml.dump(config.sections, Dumper=_DUMPER, sort_keys=False),
            "hash": config.hash,
            "axes": config.axes,
            "names": dict(config.names),
            "words": dict(config.words),
            "own_code": dict(config.own_code),
            "code": [one for one in sys.path if one] if config.own_code else [],
            "run": str(self.run.path.absolute()),
            "index": self.index,
            "again": self.again,
            "claims": list(self.claims),
            "at_once": self.at_once,
            "made_by": dict(self.made_by),
            "checkpoint_seconds": checkpoint_seconds,
            "folder": str(Path.cwd()),
            "arguments": list(sys.argv),
            "command": None if command is None else str(command.absolute()),
        }


def task_of(order: Order) -> Task:
    """Read an order in the process that is to make the run.

    The code that the config names is allowed, because the process that planned the run was.

    Raises:
        UserError: this process would make another run of it, as another version of normlab may.
    """
    sections = yaml.load(order["config"], _LOADER)
    allow(names_in(sections))
    find_code_in(*map(Path, order["code"]))
    config = RunConfig(
        sections,
        axes=order["axes"],
        names=order["names"],
        words=order["words"],
        own_code=order["own_code"],
    )
    if config.hash != order["hash"]:
        raise UserError(
            f"this worker reads the config as run {config.hash}, and the command as "
            f"{order['hash']}: install the same version of normlab on both"
        )
    return Task(
        config,
        Run(Path(order["run"]), config.arm, config.seed, config.labels),
        order["index"],
        order["again"],
        tuple(order["claims"]),
        order["at_once"],
        order["made_by"],
    )
