"""Reads the state dict in a file of torch without running anything from the file.

A pickle names functions, and a reader that looks them up can be made to run any program. Here only
the functions that make a tensor are looked up. All other names become `Inert` objects, which keep
their arguments and do nothing. A checkpoint's arguments, optimiser and loggers thus do not hinder
its weights.
"""

import builtins
import pickle
import re
import types
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from normlab.errors import UserError

WITHIN = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
"""The keys under which a checkpoint may have the state dict; the first one present is taken."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of DataParallel and torch.compile before every name; no layer is called so."""

REBUILT = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
"""Functions of torch._utils that make a tensor from its numbers."""

PROGRAMS = {"os", "posix", "nt", "sys", "subprocess", "commands", "runpy", "importlib"}
PROGRAMS |= {"shutil", "socket", "ctypes", "pty", "webbrowser"}
"""Modules without an object in any checkpoint; `commands` is how old pickles call subprocess."""

BUILTINS = {"builtins", "__builtin__"}
"""The names of that module, now and in old pickles."""

RUNNING = {"eval", "exec", "compile", "open", "getattr", "setattr", "__import__", "breakpoint"}
"""Built-in functions that no checkpoint needs."""


def read_torch(path: Path, key: str | None) -> dict[Any, Any]:
    """Read the state dict in a file that `torch.save` wrote.

    Args:
        path: the path of the file.
        key: the key of the state dict; None for the usual ones.

    Raises:
        UserError: torch is not installed, there is not exactly one state dict, or the file names a
            function that runs programs. Errors from a damaged file are not caught.
    """
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            f"{path}: torch's own files are read by torch, which is not installed; install it, or "
            "have the file written as .safetensors"
        ) from error
    with warnings.catch_warnings():
        # no warning concerns the weights, and a strict filter raises
        warnings.simplefilter("ignore")
        try:
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            if "TorchScript" in str(error):
                raise UserError(
                    f"{path}: it is a program of TorchScript, not a state dict; save its part: "
                    "torch.save(torch.jit.load(path).state_dict(), other_path)"
                ) from error
            if blocked := re.search(r"GLOBAL ([\w.]+) whose module \S+ is blocked", str(error)):
                raise _program(path, blocked[1]) from error
            if not re.search(r"was not an allowed global|Unsupported operand", str(error)):
                raise
            loaded = torch.load(
                path, map_location="cpu", weights_only=False, pickle_module=careful(path)
            )
    return unwrapped(state_dict_in(loaded, path, key))


def state_dict_in(loaded: Any, path: Path, key: str | None) -> dict[Any, Any]:
    """Find the state dict in the content of a file.

    Raises:
        UserError: the file has no state dict, or several.
    """
    if key is not None:
        if not isinstance(loaded, Mapping) or key not in loaded:
            has = ", ".join(map(repr, loaded)) if isinstance(loaded, Mapping) else "no keys"
            raise UserError(f"{path}: it has no key {key!r}; it has {has}")
        return state_dict_in(loaded[key], path, None)
    if isinstance(loaded, Inert) and loaded.is_module():
        return loaded.state_dict("")
    if not isinstance(loaded, Mapping):
        what = loaded.name if isinstance(loaded, Inert) else type(loaded).__name__
        raise UserError(
            f"{path}: a state dict has names and tensors, and this file a {what}; "
            "save the state dict by itself: torch.save(model.state_dict(), path)"
        )
    if _is_state_dict(loaded):
        return dict(loaded)
    for usual in WITHIN:
        part = loaded.get(usual)
        if isinstance(part, Mapping) or (isinstance(part, Inert) and part.is_module()):
            return state_dict_in(part, path, None)
    found = [name for name, part in loaded.items() if _is_state_dict(part)]
    if len(found) == 1:
        return dict(loaded[found[0]])
    if found:
        raise UserError(
            f"{path}: it has state dicts under {' and '.join(map(repr, found))}; say which one: "
            f"load_state_dict(path, key={found[0]!r})"
        )
    return dict(loaded)  # the caller names odd values


def unwrapped(state_dict: dict[Any, Any]) -> dict[Any, Any]:
    """Return a state dict with the names that the network itself gives.

    >>> list(unwrapped({"module._orig_mod.fc.weight": 1.0, "n_averaged": 3}))
    ['fc.weight']
    """
    names = [name for name in state_dict if name != "n_averaged"]  # torch's AveragedModel adds it
    if not all(isinstance(name, str) for name in names):
        return state_dict
    for wrapper in WRAPPERS:
        if names and all(name.startswith(wrapper) for name in names):
            inner = {name.removeprefix(wrapper): state_dict[name] for name in names}
            return unwrapped(inner)
    return {name.replace("._orig_mod.", "."): values for name, values in state_dict.items()}


class Inert:
    """An object in the place of one that is not made; it keeps its arguments and does nothing.

    Attributes:
        name: the name of the class or function in the file.
    """

    name = ""

    def __init__(self, *args: Any, **kwargs: Any):
        self.held: dict[Any, Any] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        """Make an object from any arguments."""
        made = super().__new__(cls)
        made.held = {}
        return made

    def __setitem__(self, key: Any, value: Any) -> None:
        self.held[key] = value

    def append(self, value: Any) -> None:
        """Take a member of a list, and drop it."""

    def extend(self, values: Any) -> None:
        """Take members of a list, and drop them."""

    def add(self, value: Any) -> None:
        """Take a member of a set, and drop it."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.held.update(state)

    def is_module(self) -> bool:
        """Return whether it stands for a `torch.nn.Module`."""
        return {"_parameters", "_modules"} <= set(self.held)

    def state_dict(self, prefix: str) -> dict[str, Any]:
        """Return the state dict as the module itself would give it, in its order."""
        found: dict[str, Any] = {}
        temporary = self.held.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, values in self.held.get(kind, {}).items():
                if values is not None and not (kind == "_buffers" and name in temporary):
                    found[f"{prefix}{name}"] = values
        for name, module in self.held["_modules"].items():
            if isinstance(module, Inert) and module.is_module():
                found |= module.state_dict(f"{prefix}{name}.")
        return found


def _is_state_dict(part: Any) -> bool:
    return (
        isinstance(part, Mapping)
        and bool(part)
        and all(isinstance(name, str) and hasattr(v, "shape") for name, v in part.items())
    )


def _program(path: Path, name: str) -> UserError:
    return UserError(
        f"{path}: it names {name}, which runs programs and has no place among weights; nothing of "
        "the file is loaded. Do not open it elsewhere, and fetch it from a source that you trust"
    )


def _of_torch(module: str, name: str) -> Any:
    """Return the part of torch that makes a tensor, or None for any other name."""
    if module.partition(".")[0] != "torch":
        return None
    import torch  # type: ignore[import-not-found]

    own = getattr(torch, name, None) if module == "torch" else None
    if isinstance(own, torch.dtype) or own is torch.Size or name.endswith("Storage"):
        return own if module == "torch" else getattr(torch.storage, name, None)
    return getattr(torch._utils, name) if module == "torch._utils" and name in REBUILT else None


def careful(path: Path) -> Any:
    """Return a pickle module for `torch.load` that runs no function named in a file.

    Loading raises `UserError` for a name that runs programs.
    """
    stubs: dict[str, type] = {}

    python: Any = pickle
    base: Any = python._Unpickler  # the one in C has no dispatch, and gives any object a state

    class Unpickler(base):
        dispatch: ClassVar[dict[int, Any]] = dict(base.dispatch)

        def find_class(self, module: str, name: str) -> Any:
            whole = f"{module}.{name}"
            runs = module in BUILTINS and name in RUNNING
            if runs or module.partition(".")[0] in PROGRAMS:
                raise _program(path, whole)
            if module in BUILTINS and name in ("set", "frozenset"):
                return getattr(builtins, name)
            found = _of_torch(module, name)
            if found is not None:
                return found
            if whole == "collections.OrderedDict":
                return OrderedDict
            return stubs.setdefault(whole, type(name, (Inert,), {"name": whole}))

        def load_build(self) -> None:
            state = self.stack.pop()
            held = self.stack[-1]
            if isinstance(held, Inert):
                held.__setstate__(state)
            elif not isinstance(held, OrderedDict):  # its `_metadata` are not needed
                raise pickle.UnpicklingError(f"a {type(held).__name__} takes no state")

        dispatch[pickle.BUILD[0]] = load_build

    def load(file: Any, **arguments: Any) -> Any:
        return Unpickler(file, **arguments).load()

    return types.SimpleNamespace(__name__="careful", Unpickler=Unpickler, load=load)
