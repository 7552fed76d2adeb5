"""Checkpoints by orbax: written whole or not at all, the newest one kept."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from normlab.training.state import Clock, TrainState


class Checkpoints:
    """The checkpoints of one run.

    Args:
        path: their folder; made if it is absent.
    """

    def __init__(self, path: Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(path.resolve(), options=options)

    def save(self, state: TrainState, clock: Clock) -> None:
        """Write the state at its own step, unless that is there."""
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(_as_dict(state)), clock=ocp.args.JsonSave(asdict(clock))
        )
        self._manager.save(step, args=parts)

    def restore(self, like: TrainState) -> tuple[TrainState, Clock] | None:
        """The newest state and the seconds spent until it, or None.

        Args:
            like: a state of the same structure, as `Compiled.init` makes it.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_dict(like))
        parts = ocp.args.Composite(
            state=ocp.args.StandardRestore(template), clock=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=parts)
        return TrainState(**restored["state"]), Clock(**restored["clock"])

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def restore_anything(path: Path) -> dict[str, Any]:
    """The newest state in a folder of checkpoints, as nested dictionaries of numpy arrays."""
    with ocp.CheckpointManager(path.resolve()) as manager:
        step = manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"there is no checkpoint in {path}")
        restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    return jax.device_get(restored["state"])


def _as_dict(state: TrainState) -> dict[str, Any]:
    return state._asdict()
