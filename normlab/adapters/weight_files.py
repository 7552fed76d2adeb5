"""The files in which torch, timm and safetensors keep a state dict, read with care."""

import json
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normlab.errors import UserError, in_one_line

TORCHS = (".pt", ".pth", ".bin", ".ckpt", ".tar")
"""How the names of files end that `torch.save` wrote; Lightning's, and older checkpoints, too."""

WITHIN = ("state_dict", "model_state_dict", "model")
"""Under which of its keys a checkpoint has the state dict."""

ORDER = "order"
"""Where the metadata of a safetensors file have the order of its arrays, if we wrote it."""


def load_state_dict(path: str | Path) -> dict[str, Any]:
    """A state dict from a file: `.safetensors`, or torch's own.

    Torch's own end in `.pt`, `.pth`, `.bin`, `.ckpt` or `.tar`; of a checkpoint the part under
    `state_dict`, `model_state_dict` or `model` is taken. A safetensors file does not keep the order
    of its arrays, but one that `save_state_dict` wrote does. Others come in the natural order of
    their names (`layer1.2` before `layer1.10`), which `carry` does not take for one of calls.

    Raises:
        UserError: the file's kind is unknown, it is not there, it is damaged or is no state dict,
            or a library is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix != ".safetensors" and path.suffix not in TORCHS:
        raise UserError(f"{path}: a file's name ends in .safetensors, {', '.join(TORCHS)}")
    found = _of_safetensors(path) if path.suffix == ".safetensors" else _of_torch(path)
    size = path.stat().st_size
    for name, values in found.items():
        if not isinstance(name, str) or not hasattr(values, "shape"):
            raise UserError(
                f"{path}: a state dict has names and tensors; this one has {name!r}: "
                f"{type(values).__name__}. If it is a checkpoint with the state dict under another "
                f"key, save that part by itself: torch.save(checkpoint[key], path)"
            )
        if math.prod(values.shape) > size:  # an expanded tensor takes memory when it is converted
            raise UserError(
                f"{path}: {name} claims a shape of {tuple(values.shape)}, and the file has only "
                f"{size} bytes. {AGAIN}, each tensor by itself (tensor.contiguous())"
            )
        try:
            as_array(values)
        except Exception as error:  # sparse, quantised, on no device: torch raises a class for each
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
    """A tensor or array as numpy has it; bfloat16, which numpy lacks, as float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
        return values.numpy()
    return np.asarray(values)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts names with numbers as a person would."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


AGAIN = "The file is damaged or cut short: fetch or write it again"


def _of_safetensors(path: Path) -> dict[str, Any]:
    library = _safetensors()
    try:
        with library.safe_open(path, framework="np") as file:
            names = sorted(file.keys(), key=natural)
            order = json.loads((file.metadata() or {}).get(ORDER, "null"))
            if isinstance(order, list) and sorted(map(str, order)) == sorted(names):
                names = order
            return {name: file.get_tensor(name) for name in names}
    except Exception as error:  # its own class, and whatever numpy says of a dtype
        raise _unreadable(path, error, "safetensors file") from error


def _of_torch(path: Path) -> dict[Any, Any]:
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            f"{path}: torch's own files are read by torch, which is not installed; install it, or "
            "have the file written as .safetensors"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # none is of what is read, and a strict filter raises
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its unpickler meets a damaged file with any class
        if unsafe := re.search(r"GLOBAL ([\w.]+) was not an allowed", str(error)):
            raise UserError(
                f"{path}: beside tensors it has objects of {unsafe[1]}, which are not loaded, as a "
                "file can run any program that way. If you trust where it comes from: "
                "torch.save(torch.load(path, weights_only=False)['state_dict'], other_path)"
            ) from error
        raise _unreadable(path, error, "file of torch") from error
    if not isinstance(loaded, Mapping):
        raise UserError(
            f"{path}: a state dict has names and tensors, and this file a {type(loaded).__name__}; "
            "save the state dict by itself: torch.save(model.state_dict(), path)"
        )
    for key in WITHIN:
        if isinstance(loaded.get(key), Mapping):
            return dict(loaded[key])
    return dict(loaded)


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
