"""Divides a sweep among the tasks of an array job, which share a folder and nothing else."""

import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from normlab.errors import UserError
from normlab.store.leases import LeaseHeldError, leased

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of several commands that make the runs of one sweep.

    Attributes:
        number: which, from 1.
        of: how many there are.
    """

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> "Shard":
        """Read `3/16`.

        >>> Shard.read("3/16")
        Shard(number=3, of=16)

        Raises:
            UserError: it is no such text, or there is no such shard.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(
                f"--shard must be a number from 1 and how many there are, as in 3/16, found "
                f"'{text}'; in a job array of SLURM: --array=1-16 and "
                "--shard $SLURM_ARRAY_TASK_ID/16"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def in_turn(self, runs: Sequence[T]) -> list[T]:
        """Order runs as this shard tries them: its own first, then the others' from their ends.

        A shard's own runs are neighbours, because neighbours are likely to share a program.

        >>> Shard(2, 3).in_turn(range(8))
        [2, 3, 4, 7, 6, 5, 1, 0]
        """
        bounds = [k * len(runs) // self.of for k in range(self.of + 1)]
        parts = [list(runs[a:b]) for a, b in pairwise(bounds)]
        own = self.number - 1
        others = [parts[(own + k) % self.of] for k in range(1, self.of)]
        return parts[own] + [run for part in others for run in reversed(part)]


class Spare:
    """The place of the one shard that waits while the others end their runs.

    Args:
        folder: the experiment's folder, in which the place is a lease.
    """

    def __init__(self, folder: Path):
        self._file, self._is_taken = folder / "spare", False

    def waits(self, until: ExitStack) -> bool:
        """Take the place until a stack ends; return whether another shard does not have it."""
        if not self._is_taken:
            with suppress(LeaseHeldError):
                until.enter_context(leased(self._file))
                self._is_taken = True
        return self._is_taken
