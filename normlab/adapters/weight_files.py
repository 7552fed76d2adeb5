"""Reads with care, and writes, the files of state dicts of torch, timm and safetensors."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normlab.adapters.torch_files import read_torch, unwrapped
from normlab.errors import UserError, in_one_line

TORCHS = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".th")
"""Endings of files from `torch.save`, Lightning's and older checkpoints among them."""

ORDER = "order"
"""Key of the order of the arrays in the metadata of a safetensors file that we wrote."""


def load_state_dict(path: str | Path, *, key: str | None = None) -> dict[str, Any]:
    """Read a state dict from a file: `.safetensors`, or torch's own.

    Torch's own files end in `.pt`, `.pth`, `.bin`, `.ckpt`, `.tar` or `.th`. A checkpoint gives its
    part under `state_dict`, `model_state_dict`, `model`, `module`, `net`, `network` or `weights`,
    or else the only part that is a state dict. A whole pickled model gives its arrays. No function
    named in a file is run: arguments, optimisers and other objects stay unread. Names lose the
    `module.` of DataParallel and the `_orig_mod.` of torch.compile.

    A safetensors file keeps the order of its arrays only if `save_state_dict` wrote it. The arrays
    of others come in the natural order of their names (`layer1.2` before `layer1.10`), which
    `carry` does not take for an order of calls.

    Args:
        path: the path of the file.
        key: the key of the state dict in a checkpoint of torch, such as `state_dict_ema`.

    Raises:
        UserError: the file is missing, damaged or of an unknown kind, it has no state dict or
            several, or a library is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix != ".safetensors" and path.suffix not in TORCHS:
        raise UserError(f"{path}: a file's name ends in .safetensors, {', '.join(TORCHS)}")
    found = _of_safetensors(path) if _is_safetensors(path) else _of_torch(path, key)
    size = path.stat().st_size
    for name, values in found.items():
        if not isinstance(name, str) or not hasattr(values, "shape"):
            raise UserError(
                f"{path}: a state dict has names and tensors; this one has {name!r}: "
                f"{type(values).__name__}. If it is a checkpoint with the state dict under another "
                "key, give that: load_state_dict(path, key=...)"
            )
        if math.prod(values.shape) > size:  # an expanded tensor takes memory when it is converted
            raise UserError(
                f"{path}: {name} claims a shape of {tuple(values.shape)}, and the file has only "
                f"{size} bytes. {AGAIN}, each tensor by itself (tensor.contiguous())"
            )
        try:
            as_array(values)
        # torch has a class of error for each kind: sparse, quantised, on no device.
        except Exception as error:
            said = in_one_line(error, longest=160)
            raise UserError(
                f"{path}: {name} is no plain tensor of numbers ({said}); save it as one, "
                "or leave it out"
            ) from error
    if not found:
        raise UserError(f"{path}: it has no arrays; a state dict has names and tensors")
    return found


def save_state_dict(state_dict: Mapping[str, Any], path: str | Path) -> None:
    """Write a state dict as a `.safetensors` file, which torch, timm and `load_state_dict` read.

    Raises:
        UserError: the name ends otherwise, or safetensors is not installed.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a file's name must end in .safetensors")
    arrays = {key: np.array(as_array(values), order="C") for key, values in state_dict.items()}
    from_numpy = _safetensors().numpy
    from_numpy.save_file(arrays, path, metadata={ORDER: json.dumps(list(arrays))})


def as_array(values: Any) -> np.ndarray:
    """Convert a tensor or array to numpy; bfloat16, which numpy lacks, becomes float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
        return values.numpy()
    return np.asarray(values)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that orders names with numbers as a person would."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


AGAIN = "The file is damaged or cut short: fetch or write it again"


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is one by its name, or by its start: the length of a JSON header."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _of_safetensors(path: Path) -> dict[str, Any]:
    library = _safetensors()
    try:
        with library.safe_open(path, framework="np") as file:
            names = sorted(file.keys(), key=natural)
            order = json.loads((file.metadata() or {}).get(ORDER, "null"))
            if isinstance(order, list) and sorted(map(str, order)) == sorted(names):
                names = order
            return unwrapped({name: file.get_tensor(name) for name in names})
    except Exception as error:  # safetensors has its own class of error, and numpy another
        raise _unreadable(path, error, "safetensors file") from error


def _of_torch(path: Path, key: str | None) -> dict[Any, Any]:
    try:
        return read_torch(path, key)
    except UserError:
        raise
    except Exception as error:  # torch's unpickler may raise any class of error
        raise _unreadable(path, error, "file of torch") from error


def _unreadable(path: Path, error: Exception, kind: str) -> UserError:
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if not start:
        return UserError(f"{path}: the file is empty; fetch or write it again")
    if start.startswith(b"version https://git-lfs"):
        return UserError(f"{path}: a pointer of git-lfs in the place of the file: git lfs pull")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return UserError(f"{path}: a web page in the place of the file: fetch it again")
    said = in_one_line(error, longest=160)
    return UserError(f"{path}: this is no {kind} that can be read ({said}). {AGAIN}")


def _safetensors() -> Any:
    try:
        import safetensors  # type: ignore[import-not-found]
        import safetensors.numpy  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            "safetensors is not installed: pip install 'normlab[safetensors]'"
        ) from error
    return safetensors
