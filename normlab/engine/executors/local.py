"""Makes runs in processes of this machine."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from normlab.engine.executors.contract import engine
from normlab.engine.worker import Worker, shares
from normlab.errors import require_field


@engine
@dataclass(frozen=True)
class Local:
    """Makes runs in processes of this machine, each with its share of the cores and GPUs.

    Attributes:
        gpus: how many GPUs a process has, where there are any.
    """

    gpus: int = 1

    def __post_init__(self) -> None:
        require_field(self.gpus >= 1, "gpus", self.gpus, "at least 1")

    def places(self, jobs: int | None, folder: Path) -> Sequence[Executor]:
        """Give a worker for each run that is made at once; its process begins with its first."""
        return [Worker(share) for share in shares(jobs or 1, self.gpus)]
