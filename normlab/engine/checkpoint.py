"""Checkpoints by orbax: written whole or not at all, the newest one kept.

`normlab.store.checkpoint_files` says what lies on disk.
"""

import errno
import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import jax

from normlab.store.checkpoint_files import (
    CLOCK,
    FILES,
    digest_of,
    digests,
    digests_of_files,
    orbax,
    restore_newest,
)
from normlab.store.files import DamagedError
from normlab.store.layout import METRICS
from normlab.store.reading import mend_of
from normlab.store.run import Run
from normlab.store.writing import write_atomically
from normlab.training.compiled import Compiled
from normlab.training.state import Clock, TrainState

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or of a person's share of it, that has no room left."""


OVERHEAD = 100_000
"""Bytes that a checkpoint takes beyond its arrays: two dozen files that describe them."""


class _ToldOnce(logging.Filter):
    """Drops what orbax's threads log of an error, because the error itself is raised as well."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a record unless it is such an error."""
        text = record.getMessage()
        return record.levelno < logging.ERROR or not ("orbax" in text or "_SignalingThread" in text)


for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(_ToldOnce())


class Checkpoints:
    """Keeps the checkpoints of one run.

    Args:
        path: their folder; made if it is absent.
    """

    def __init__(self, path: Path):
        self._path = path
        self._open()

    def _open(self) -> None:
        ocp = orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._path.resolve(), options=options)

    def save(self, state: TrainState, clock: Clock) -> None:
        """Write the state at its own step, unless that is there.

        Raises:
            OSError: the disk is full; what was written of this checkpoint is removed.
        """
        ocp, step = orbax(), int(state.step)
        if step == self._manager.latest_step():
            return
        tree = state._asdict()
        about = {**asdict(clock), "digests": digests(tree)}
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(tree),
            clock=ocp.args.JsonSave({**about, "digest": digest_of(about)}),
        )
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + OVERHEAD
        if shutil.disk_usage(self._path).free < size:  # threads of tensorstore would tell of it
            raise OSError(errno.ENOSPC, "No space left on device")
        try:
            self._manager.save(step, args=parts)
        except Exception as error:
            if _is_full(error):
                self._discard()
                raise OSError(errno.ENOSPC, "No space left on device") from None
            raise
        if not ocp.multihost.is_primary_host(0):
            return
        # A crash before this leaves the digests of another step, and those of the arrays do.
        lines = json.dumps({"step": step, "files": digests_of_files(self._path / str(step))})
        write_atomically(self._path / FILES, lines)

    def restore(self, like: TrainState, told: str = "") -> tuple[TrainState, Clock] | None:
        """Return the newest state and the seconds spent until it, or None.

        Args:
            like: a state of the same structure, as `Compiled.init` makes it.
            told: how the last attempt failed. If that was by a damaged checkpoint, all are deleted,
                and the run starts anew.

        Raises:
            DamagedError: it is not what was saved.
        """
        ocp = orbax()
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        try:
            restored = restore_newest(self._manager, self._path, ocp.args.StandardRestore(template))
        except DamagedError as error:
            if str(error.file) not in told:
                raise
            self.close()
            if ocp.multihost.is_primary_host(0):
                shutil.rmtree(self._path)
            ocp.multihost.sync_global_processes("normlab deletes checkpoints")
            self._open()
            return None
        if restored is None:
            return None
        state, about = restored
        for step in self._manager.all_steps():  # a crash may leave the one before
            if step != self._manager.latest_step():
                self._manager.delete(step)
        return TrainState(**state), Clock(**{name: about[name] for name in CLOCK})

    def _discard(self) -> None:
        """Remove half a checkpoint, which only takes room."""
        for half in self._path.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(half, ignore_errors=True)

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def _is_full(error: BaseException) -> bool:
    """Return whether an error says that the disk is full; tensorstore's says it in words alone."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return "RESOURCE_EXHAUSTED" in str(error) or "No space left" in str(error)


def check_rows(run: Run, compiled: Compiled, step: int) -> None:
    """Hold the rows of a run that goes on to its checkpoint, which is written after them.

    Raises:
        DamagedError: rows were lost, and would be missing in the result.
    """
    recipe = compiled.program.recipe
    every = recipe.eval_every or recipe.steps_per_epoch(compiled.train_examples)
    found, due = len(run.metrics), step // every
    if found < due:
        lost = f"it has {found} rows of the steps to {step}, where the run wrote {due}"
        raise DamagedError(run.path / METRICS, lost, mend_of(run.path))
