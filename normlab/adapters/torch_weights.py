"""Weights of torch and timm: state dicts, and the files that hold them.

No torch is needed but to read its own files. See `normlab.adapters.interchange.carry`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normlab.adapters.interchange import Leaf, Unit
from normlab.errors import UserError

COMMON = {
    "weight": "scale",
    "running_mean": "mean",
    "running_var": "variance",
    "tau": "threshold",
}
"""Of the arrays of a normaliser, where torch and timm have names of their own."""

COUNTER = "num_batches_tracked"


class TorchWeights:
    """A state dict: names such as `layer1.0.conv1.weight`, to tensors or arrays.

    As the target of `carry` it is the template: names, order, dtypes and devices are its own, and
    so are the values of `num_batches_tracked`, which has no counterpart.

    >>> import flax.linen as nn
    >>> from normlab.adapters.interchange import carry
    >>> from normlab.adapters.linen_weights import LinenWeights
    >>> state_dict = {"fc.weight": np.ones((3, 2), "f"), "fc.bias": np.zeros(3, "f")}
    >>> model, x = nn.Dense(3), np.ones((1, 2), "f")
    >>> variables, report = carry(TorchWeights(state_dict), LinenWeights(model, x))
    >>> print(report, variables["params"]["kernel"].shape)
    fc -> Dense (2, 3)
    """

    def __init__(self, state_dict: Mapping[str, Any]):
        odd = [name for name, values in state_dict.items() if not hasattr(values, "shape")]
        if odd or not state_dict:
            raise UserError(
                f"a state dict has names and tensors; this one has {', '.join(odd) or 'nothing'}. "
                "A checkpoint often keeps it under a key: give checkpoint['state_dict']"
            )
        self.state_dict = dict(state_dict)

    def units(self) -> list[Unit]:
        """Its layers in the state dict's order, which is that of the modules' making."""
        layers: dict[str, dict[str, str]] = {}
        for key in self.state_dict:
            layer, _, name = key.rpartition(".")
            if name != COUNTER:
                layers.setdefault(layer, {})[name] = key
        return [self._unit(layer, keys) for layer, keys in layers.items()]

    def _unit(self, layer: str, keys: dict[str, str]) -> Unit:
        shapes = {name: tuple(self.state_dict[key].shape) for name, key in keys.items()}
        weight = shapes.get("weight", ())
        if {"weight_g", "weight_v"} & set(keys) or layer.endswith("parametrizations.weight"):
            raise UserError(
                f"{layer}: its weight is parametrised (weight_norm, spectral_norm); in torch, "
                "torch.nn.utils.remove_weight_norm, or parametrize.remove_parametrizations, makes "
                "it a plain one first"
            )
        # A weight with a bias of its own shape is a scale: elementwise, (C, H, W) in torch.
        if len(weight) >= 2 and shapes.get("bias") != weight:
            leaves = {"kernel": Leaf(keys["weight"], *_kernel(weight))}
            leaves |= {n: Leaf(key, shapes[n]) for n, key in keys.items() if n != "weight"}
            return Unit(layer, "layer", leaves)
        leaves = {COMMON.get(n, n): Leaf(key, *_moved(shapes[n])) for n, key in keys.items()}
        return Unit(layer, "norm" if leaves else "other", leaves)

    def read(self, leaf: Leaf) -> np.ndarray:
        """An array as torch has it; bfloat16, which numpy lacks, as float32."""
        values = self.state_dict[leaf.key]
        if hasattr(values, "detach"):
            values = values.detach().cpu()
            values = values.float() if str(values.dtype) == "torch.bfloat16" else values
            return values.numpy()
        return np.asarray(values)

    def write(self, arrays: list[tuple[Leaf, np.ndarray]]) -> dict[str, Any]:
        """A state dict; each value of the kind (tensor, array), dtype and device that it had."""
        new = {leaf.key: values for leaf, values in arrays}

        def like(old: Any, key: str) -> Any:
            if key not in new:
                return old
            values = np.array(new[key], order="C")
            if hasattr(old, "new_tensor"):
                return old.new_tensor(values)
            return values.astype(old.dtype)

        return {key: like(old, key) for key, old in self.state_dict.items()}

    def remarks(self) -> list[str]:
        """What torch's numbers assume."""
        found = []
        counters = sum(key.rpartition(".")[2] == COUNTER for key in self.state_dict)
        if counters:
            found.append(
                f"{COUNTER} of {counters} layers has no counterpart; a state dict keeps its own"
            )
        if any(key.endswith("running_var") for key in self.state_dict):
            found.append(
                "eps and momentum are no weights: torch's default batch norm is "
                "BatchNorm(momentum=0.9, eps=1e-5, unbiased_running_variance=True)"
            )
        wide = {str(v.dtype) for v in self.state_dict.values()} & {"torch.float64", "float64"}
        return [*found, *(f"{dtype} is rounded to float32" for dtype in sorted(wide))]


def _kernel(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The common shape of `(out, in, ...)`, and the conversions."""
    spatial = tuple(range(2, len(shape)))
    there = (*spatial, 1, 0)
    back = (len(shape) - 1, len(shape) - 2, *range(len(spatial)))
    common = tuple(shape[axis] for axis in there)
    return common, lambda values: values.transpose(there), lambda values: values.transpose(back)


def _moved(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The common shape of `(C, ...)`, channels last, and the conversions."""
    if len(shape) < 2:
        return (shape,)
    return (
        (*shape[1:], shape[0]),
        lambda values: np.moveaxis(values, 0, -1),
        lambda values: np.moveaxis(values, -1, 0),
    )


def load_state_dict(path: str | Path) -> dict[str, Any]:
    """A state dict from a file: `.safetensors`, or torch's own (`.pt`, `.pth`, `.bin`).

    A safetensors file does not keep the order of its arrays. They come in the natural order of
    their names (`layer1.2` before `layer1.10`), which is that of most networks but not of all: read
    the report of what is paired.

    Raises:
        UserError: the file's kind is unknown, it is not there, or a library is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix == ".safetensors":
        loaded = _safetensors().load_file(path)
        return {name: loaded[name] for name in sorted(loaded, key=_natural)}
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise UserError(f"{path}: a file's name ends in .safetensors, .pt, .pth or .bin")
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            f"{path}: torch's own files are read by torch, which is not installed; install it, or "
            "have the file written as .safetensors"
        ) from error
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model"):
        if key in loaded and isinstance(loaded[key], Mapping):
            return dict(loaded[key])
    return dict(loaded)


def save_state_dict(state_dict: Mapping[str, Any], path: str | Path) -> None:
    """Write a state dict as a `.safetensors` file, which torch, timm and `load_state_dict` read.

    Raises:
        UserError: the name ends otherwise, or safetensors is not installed.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a file's name must end in .safetensors")
    weights = TorchWeights(state_dict)
    arrays = {key: weights.read(Leaf(key, ())) for key in state_dict}
    arrays = {key: np.array(values, order="C") for key, values in arrays.items()}
    _safetensors().save_file(arrays, path)


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _safetensors() -> Any:
    try:
        from safetensors import numpy  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            "safetensors is not installed: pip install 'normlab[safetensors]'"
        ) from error
    return numpy
