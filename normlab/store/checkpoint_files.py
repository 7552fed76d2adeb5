"""Reads checkpoints from disk and checks that nothing has changed since they were saved.

Beside the arrays lies a part in JSON: the seconds spent so far, a digest of every array, and a
digest of that part itself. Beside the checkpoint lie digests of its files, so that a broken file
is found before orbax reads it. A checkpoint of an earlier normlab has the seconds alone and is
restored unchecked.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from normlab.errors import UserError, in_one_line
from normlab.sharding import values
from normlab.store.files import DamagedError, read_json
from normlab.store.shapes import COUNT, TEXT

CLOCK = {"train", "evaluate"}
"""The part in JSON always holds these keys: seconds, by what they were spent on."""

FILES, OF_FILES = "files.json", {"step": COUNT, "files": {...: TEXT}}
"""The file with the digests of a checkpoint's files, and its shape."""


def orbax() -> Any:
    """Import orbax's checkpoints; a process that makes no run saves the time that this takes."""
    import orbax.checkpoint

    return orbax.checkpoint


def restore_anything(path: Path, like: Any = None) -> dict[str, Any]:
    """Restore the newest state in a folder, as nested dictionaries of numpy arrays.

    Args:
        path: the folder of the checkpoints.
        like: shapes and dtypes in the structure to restore, such as an optimiser's own classes.

    Raises:
        UserError: the folder holds no checkpoint, or the newest is not what was saved.
    """
    restored, ocp = None, orbax()
    if path.is_dir():
        with ocp.CheckpointManager(path.resolve()) as manager:
            restored = restore_newest(manager, path, ocp.args.StandardRestore(like))
    if restored is None:
        raise UserError(f"there is no checkpoint in {path}: make the run anew")
    return jax.device_get(restored[0])


def restore_newest(
    manager: Any, path: Path, how: Any
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Restore the newest state, check its digests, and return it with the part in JSON.

    Args:
        manager: orbax's `CheckpointManager` of the folder.
        path: the folder of the checkpoints.
        how: orbax's `StandardRestore` of the state.
    """
    ocp, step = orbax(), manager.latest_step()
    if step is None:
        return None
    folder = path / str(step)
    mend = (
        f"delete {path} (`normlab run` does so when it is given once more), and the same config "
        "makes the run from its start"
    )
    kept = read_json(path / FILES, OF_FILES, mend)
    if kept is not None and kept["step"] == step:
        files = digests_of_files(folder)
        for name in {**kept["files"], **files}:
            if name not in files or files[name] != kept["files"].get(name):
                found = "it is not what was saved" if name in files else "it is missing"
                raise DamagedError(folder / name, found, mend)
    try:
        parts = ocp.args.Composite(state=how, clock=ocp.args.JsonRestore())
        restored = manager.restore(step, args=parts)
        state, about = restored["state"], restored["clock"]
    except MemoryError:
        raise
    except Exception as error:  # orbax raises errors of many kinds on a broken file
        found = f"it cannot be restored ({in_one_line(error, longest=200)})"
        raise DamagedError(folder, found, mend) from error
    wrong = _fault(state, about)
    if wrong is not None:
        raise DamagedError(folder, wrong, mend)
    return state, about


def _fault(state: dict[str, Any], about: Any) -> str | None:
    """Say what is wrong with a restored checkpoint; None if nothing is."""
    if not isinstance(about, dict) or not about.keys() >= CLOCK:
        return "its part in JSON lacks the seconds spent"
    if about.keys() == CLOCK:  # an earlier normlab wrote it
        return None
    about = dict(about)
    if about.pop("digest", None) != digest_of(about):
        return "its part in JSON is not what was saved"
    found, saved = digests(state), about["digests"]
    changed = [name for name in {**saved, **found} if found.get(name) != saved.get(name)]
    if not changed:
        return None
    return f"{len(changed)} of {len(saved)} arrays are not what was saved, such as {changed[0]}"


def digests_of_files(folder: Path) -> dict[str, str]:
    """Digest every file below a folder, by its path there."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()[:32]
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def digests(tree: Any) -> dict[str, str]:
    """Digest every array of a tree with its dtype and shape, by its path in the tree.

    >>> list(digests({"params": {"bias": np.zeros(2)}, "opt_state": (np.ones(1),)}))
    ['opt_state/0', 'params/bias']
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): _digest(values(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _digest(array: np.ndarray) -> str:
    found = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:32]


def digest_of(about: dict[str, Any]) -> str:
    """Digest the part in JSON."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
