"""Checkpoints by orbax: written whole or not at all, the newest one kept.

`normlab.store.checkpoint_files` says what lies on disk.
"""

import json
from dataclasses import asdict
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from normlab.store.checkpoint_files import (
    CLOCK,
    FILES,
    digest_of,
    digests,
    digests_of_files,
    restore_newest,
)
from normlab.store.files import DamagedError
from normlab.store.layout import METRICS
from normlab.store.reading import mend_of
from normlab.store.run import Run
from normlab.store.writing import write_atomically
from normlab.training.program import Compiled
from normlab.training.state import Clock, TrainState


class Checkpoints:
    """Keeps the checkpoints of one run.

    Args:
        path: their folder; made if it is absent.
    """

    def __init__(self, path: Path):
        self._path = path
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(path.resolve(), options=options)

    def save(self, state: TrainState, clock: Clock) -> None:
        """Write the state at its own step, unless that is there."""
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        tree = state._asdict()
        about = {**asdict(clock), "digests": digests(tree)}
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(tree),
            clock=ocp.args.JsonSave({**about, "digest": digest_of(about)}),
        )
        self._manager.save(step, args=parts)
        # A crash before this leaves the digests of another step, and those of the arrays do.
        lines = json.dumps({"step": step, "files": digests_of_files(self._path / str(step))})
        write_atomically(self._path / FILES, lines)

    def restore(self, like: TrainState) -> tuple[TrainState, Clock] | None:
        """Return the newest state and the seconds spent until it, or None.

        Args:
            like: a state of the same structure, as `Compiled.init` makes it.

        Raises:
            DamagedError: it is not what was saved.
        """
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        restored = restore_newest(self._manager, self._path, ocp.args.StandardRestore(template))
        if restored is None:
            return None
        state, about = restored
        return TrainState(**state), Clock(**{name: about[name] for name in CLOCK})

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


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
