"""The state dict of a torch or timm network as a side of `carry`; no torch is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np

from normlab.adapters.conventions import Settings, of_torchs_layer
from normlab.adapters.units import FREE, Leaf, Unit, free_parameter
from normlab.adapters.weight_files import as_array, natural
from normlab.adapters.weight_files import load_state_dict as load_state_dict
from normlab.adapters.weight_files import save_state_dict as save_state_dict
from normlab.errors import UserError

COMMON = {
    "weight": "scale",
    "running_mean": "mean",
    "running_var": "variance",
    "tau": "threshold",
}
"""Torch's and timm's own names for the arrays of a normaliser."""

COUNTER = "num_batches_tracked"

OF_LAYERS = {"weight", "bias", "running_mean", "running_var", "weight_g", "weight_v", COUNTER}
"""The arrays that identify a layer; an array without any of them beside it is a free parameter."""


class TorchWeights:
    """A state dict, which maps names such as `layer1.0.conv1.weight` to tensors or arrays.

    A module of torch may be given in its place. Its `eps`, momentum and padding are then known, for
    which `carry` otherwise takes torch's defaults.

    As the target of `carry` it is the template. Names, order, dtypes and devices are its own, and
    so are the values of `num_batches_tracked`, which has no counterpart.

    Layers are in the order of definition, as in `module.state_dict()`; in most networks it is the
    order of calls. A state dict that was sorted or mixed has lost this order, and its keys show it:
    torch writes the parts of a module together, members of a list by their index, and a weight
    before its bias.

    >>> import flax.linen as nn
    >>> from normlab.adapters.interchange import carry
    >>> from normlab.adapters.linen_weights import LinenWeights
    >>> state_dict = {"fc.weight": np.ones((3, 2), "f"), "fc.bias": np.zeros(3, "f")}
    >>> model, x = nn.Dense(3), np.ones((1, 2), "f")
    >>> variables, report = carry(TorchWeights(state_dict), LinenWeights(model, x))
    >>> print(report, variables["params"]["kernel"].shape)
    fc -> Dense  (no other is left of this shape) (2, 3)
    """

    traced = False
    resizes: Sequence[str] = ()

    def __init__(self, state_dict: Any):
        self.module = None if isinstance(state_dict, Mapping) else state_dict
        if self.module is not None and not hasattr(self.module, "state_dict"):
            raise UserError(
                f"TorchWeights takes a state dict, or a module of torch; got {self.module!r:.80}"
            )
        state_dict = state_dict if self.module is None else self.module.state_dict()
        odd = [
            str(n)
            for n, v in state_dict.items()
            if not (isinstance(n, str) and hasattr(v, "shape"))
        ]
        if odd or not state_dict:
            raise UserError(
                f"a state dict has names and tensors; this one has {', '.join(odd) or 'nothing'}. "
                "A checkpoint often keeps it under a key: give checkpoint['state_dict']"
            )
        self.state_dict = dict(state_dict)
        self._ordered = _in_torchs_order(list(self.state_dict))

    def units(self) -> list[Unit]:
        """Return its layers in the state dict's order."""
        layers: dict[str, dict[str, str]] = {}
        names = {key: _names(key) for key in self.state_dict}
        held = {layer for layer, name in names.values() if name in OF_LAYERS}
        for key, (layer, name) in names.items():
            if layer in held and name != COUNTER:
                layers.setdefault(layer, {})[name] = key
            elif name != COUNTER:  # it belongs to the network, not to a layer
                layers[key] = {FREE: key}
        return [
            replace(self._unit(layer, keys), place=place if self._ordered else None)
            for place, (layer, keys) in enumerate(layers.items())
        ]

    def mend(self) -> str:
        """Say how to find the order; empty if the state dict has kept it."""
        if self._ordered:
            return ""
        return "give the state dict in torch's order, which module.state_dict() has"

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
        if FREE in keys:
            return free_parameter(layer, Leaf(keys[FREE], shapes[FREE]))
        leaves = {COMMON.get(n, n): Leaf(key, *_moved(shapes[n])) for n, key in keys.items()}
        return Unit(layer, "norm", leaves)

    def read(self, leaf: Leaf) -> np.ndarray:
        """Return an array in torch's form; bfloat16, which numpy lacks, becomes float32."""
        return as_array(self.state_dict[leaf.key])

    def write(self, arrays: list[tuple[Leaf, np.ndarray]]) -> dict[str, Any]:
        """Return a state dict; each value keeps its kind (tensor, array), dtype and device."""
        new = {leaf.key: values for leaf, values in arrays}

        def like(old: Any, key: str) -> Any:
            if key not in new:
                return old
            values = np.array(new[key], order="C")
            if hasattr(old, "new_tensor"):
                return old.new_tensor(values)
            return values.astype(old.dtype)

        return {key: like(old, key) for key, old in self.state_dict.items()}

    def settings(self) -> dict[str, Settings] | None:
        """Return the conventions of each layer that no array holds; None for a state dict."""
        if self.module is None:
            return None
        return {name: of_torchs_layer(layer) for name, layer in self.module.named_modules()}

    def outputs(self, result: Any, changes: Mapping[str, Settings]) -> None:
        """Return None, because torch's networks are not run here."""

    def remarks(self) -> list[str]:
        """List the assumptions behind torch's numbers."""
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


def _names(key: str) -> tuple[str, str]:
    """Split a key into layer and array; the packed first layer of attention counts as a layer."""
    layer, _, name = key.rpartition(".")
    if name in ("in_proj_weight", "in_proj_bias"):
        return f"{layer}.in_proj".removeprefix("."), name.removeprefix("in_proj_")
    return layer, name


def _in_torchs_order(keys: list[str]) -> bool:
    """Return whether a state dict's keys can be in torch's order, and are not merely sorted."""
    layers = [key.rpartition(".")[0] for key in keys]
    if len(set(layers)) > 1 and keys in (sorted(keys), sorted(keys, key=natural)):
        return False
    place = {key: number for number, key in enumerate(keys)}
    for key in keys:
        layer, dot, name = key.rpartition(".")
        if name == "weight" and place.get(f"{layer}{dot}bias", len(keys)) < place[key]:
            return False
    members: dict[str, list[str]] = {}
    last: list[str] = []
    for key in keys:
        parts = key.split(".")
        pairs = zip(parts, last, strict=False)
        together = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        for depth in range(together, len(parts)):
            siblings = members.setdefault(".".join(parts[:depth]), [])
            if parts[depth] in siblings:
                return False  # a module is left, and comes again
            siblings.append(parts[depth])
        last = parts
    indices = ([int(name) for name in names if name.isdigit()] for names in members.values())
    return all(found == sorted(found) for found in indices)


def _kernel(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the common shape of `(out, in, ...)`, and the conversions."""
    spatial = tuple(range(2, len(shape)))
    there = (*spatial, 1, 0)
    back = (len(shape) - 1, len(shape) - 2, *range(len(spatial)))
    common = tuple(shape[axis] for axis in there)
    return common, lambda values: values.transpose(there), lambda values: values.transpose(back)


def _moved(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return the common shape of `(C, ...)`, channels last, and the conversions."""
    if len(shape) < 2:
        return (shape,)
    return (
        (*shape[1:], shape[0]),
        lambda values: np.moveaxis(values, 0, -1),
        lambda values: np.moveaxis(values, -1, 0),
    )
