"""The variables of an NNX model, with Flax's layers or ours, as a side of `interchange.carry`."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from normlab.adapters.interchange import Leaf, Unit
from normlab.adapters.linen_weights import REORDERED, reordering, transposed_kernel
from normlab.adapters.nnx import Norm, visit
from normlab.adapters.places import OUR_NAMES
from normlab.errors import UserError
from normlab.norms.evo import EvoNormB0

NO_WEIGHTS = (nnx.RngState, nnx.Cache, nnx.Intermediate)

DIMENSIONS = {
    nnx.Linear: ("kernel", lambda layer: 2),
    nnx.Conv: ("kernel", lambda layer: len(layer.kernel_size) + 2),
    nnx.ConvTranspose: ("kernel", lambda layer: len(layer.kernel_size) + 2),
    nnx.Embed: ("embedding", lambda layer: 2),
    nnx.BatchNorm: ("mean", lambda layer: 1),
}
"""Of layers whose arrays have more than that when `nnx.vmap` or `nnx.scan` stacks them."""


class NnxWeights:
    """An NNX model.

    Layers are in the order in which attributes were defined. A model that went through `nnx.clone`,
    `nnx.merge` or `nnx.eval_shape` has them in the order of their names, which the report says. As
    the target of `carry` the model stays as it is: a copy gets the arrays.

    No call is traced, so what takes a flattened image in is not known, and its rows are in another
    order in torch. A dense layer is refused, with the norm before it, if its inputs are a multiple
    of a convolution's channels and not the width of the layer before, unless `flattened` says what
    it takes. All others are taken to have none, which the report says.

    Args:
        model: of `flax.nnx`; as a target, what the source does not have stays as there.
        flattened: name of a layer -> shape of the image `(H, W, C)` that is flattened before it, or
            `(features,)` if none is.

    Raises:
        UserError: `flattened` does not fit, two layers share a variable, or layers are stacked.

    >>> from normlab.adapters.interchange import carry
    >>> from normlab.adapters.torch_weights import TorchWeights
    >>> state_dict = {"0.weight": np.ones((3, 2), "f"), "0.bias": np.zeros(3, "f")}
    >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    >>> carried, report = carry(TorchWeights(state_dict), NnxWeights(model))
    >>> report.pairs, carried(jnp.ones((1, 2))).tolist()
    ({'0': 'layers/0'}, [[2.0, 2.0, 2.0]])
    """

    def __init__(
        self, model: nnx.Module, *, flattened: Mapping[str, tuple[int, ...]] | None = None
    ):
        self.model = model
        self.flattened = dict(flattened or {})
        self._modules, self._variables = _found(model)
        self._layers: dict[str, dict[str, str]] = {}
        for path in self._variables:
            layer, _, name = path.rpartition("/")
            self._layers.setdefault(layer, {})[OUR_NAMES.get(name, name)] = path
        _require_apart(self._variables)
        _require_unstacked(self._modules)
        unknown = [name for name in self.flattened if name not in map(self._name, self._layers)]
        if unknown:
            raise UserError(
                f"flattened: the model has no layer {', '.join(unknown)}; it has "
                f"{', '.join(map(self._name, self._layers))}"
            )

    def units(self) -> list[Unit]:
        """Its layers in the order of definition.

        Raises:
            UserError: a layer may take a flattened image, and `flattened` does not say.
        """
        units = [self._unit(layer, keys) for layer, keys in self._layers.items()]
        self._require_told(units)
        return units

    def _name(self, layer: str) -> str:
        return layer or type(self.model).__name__

    def _unit(self, layer: str, keys: dict[str, str]) -> Unit:
        module, name = self._modules[layer], self._name(layer)
        image = self.flattened.get(name)
        leaves, fits = {}, False
        for leaf, key in keys.items():
            shape = tuple(self._variables[key].shape)
            rows = leaf == "kernel" if "kernel" in keys else len(shape) == 1
            if leaf == "embedding":
                leaves["kernel"] = Leaf(key, shape[::-1], np.transpose, np.transpose)
            elif leaf == "kernel" and isinstance(module, nnx.ConvTranspose):
                leaves[leaf] = transposed_kernel(key, shape, module.transpose_kernel)
            elif image is not None and rows and len(shape) < 3 and math.prod(image) in shape[:1]:
                leaves[leaf], fits = Leaf(key, shape, *reordering(tuple(image))), True
            else:
                leaves[leaf] = Leaf(key, shape, optional=self._optional(module, leaf, key))
        unit = Unit(name, "layer" if "kernel" in leaves else "norm", leaves)
        if image is not None and not fits:
            raise UserError(
                f"flattened: {unit} does not take {math.prod(image)} = "
                f"{' * '.join(map(str, image))} inputs; give the shape (H, W, C) of the image "
                "behind the batch axis"
            )
        reordered = image is not None and len(image) > 1
        return Unit(name, unit.kind, leaves, REORDERED if reordered else "")

    def _optional(self, module: Any, name: str, key: str) -> bool:
        normaliser = getattr(module, "normaliser", None)
        unused = name == "mean" and isinstance(normaliser, EvoNormB0)
        is_param = isinstance(self._variables[key], nnx.Param)
        return unused or (not is_param and name not in ("mean", "variance"))

    def _require_told(self, units: list[Unit]) -> None:
        """Raise `UserError` for every layer that may take a flattened image of a convolution."""
        wrong: list[str] = []
        channels: set[int] = set()
        before, norms = 0, []
        for unit, layer in zip(units, self._layers, strict=True):
            module = self._modules[layer]
            if unit.kind != "layer":
                norms.append(unit)
                continue
            rows, width = (0, 0, *unit.leaves["kernel"].shape)[-2:]
            if isinstance(module, nnx.Conv | nnx.ConvTranspose):
                width = module.out_features
                channels.add(width)
            elif isinstance(module, nnx.Embed):
                width = module.features
            elif isinstance(module, nnx.Linear):
                told = self.flattened.get(unit.name)
                doubt = told is None and rows != before and _may_be_flat(rows, channels)
                if doubt:
                    wrong.append(f"{unit}: it takes {rows} inputs; the layer before gives {before}")
                if doubt or (told is not None and len(told) > 1):
                    wrong += [
                        f"{norm}: it takes {rows} inputs, as {unit.name} does"
                        for norm in norms
                        if norm.name not in self.flattened and _width(norm) == rows
                    ]
            before, norms = width, []
        if wrong:
            raise UserError(
                "these layers may take a flattened image, whose order is (H, W, C) in Flax and "
                "(C, H, W) in torch:\n  "
                + "\n  ".join(wrong)
                + "\nsay which image by NnxWeights(model, flattened={name: (H, W, C)}), or that it "
                "is none by {name: (features,)}"
            )

    def read(self, leaf: Leaf) -> np.ndarray:
        """An array of the model."""
        values = self._variables[leaf.key].get_value()
        if isinstance(values, jax.ShapeDtypeStruct):
            raise UserError(f"a source needs its values: {leaf.key} of the model has only a shape")
        return np.asarray(values)

    def write(self, arrays: list[tuple[Leaf, np.ndarray]]) -> Any:
        """A copy of the model with these arrays, in the model's dtypes."""
        model = copy.deepcopy(self.model)  # `nnx.clone` would lose the order of definition
        _, variables = _found(model)
        for leaf, values in arrays:
            held = variables[leaf.key]
            held.set_value(jnp.asarray(values, held.dtype))
        return model

    def remarks(self) -> list[str]:
        """What the order of layers and of inputs assumes, and the normalisers of this library."""
        modules = self._modules.values()
        found = {repr(layer.normaliser) for layer in modules if isinstance(layer, Norm)}
        remarks = [f"the model of NNX has {normaliser}" for normaliser in sorted(found)]
        if list(vars(self.model)) == sorted(vars(self.model)):
            remarks.append(
                "the model of NNX has its layers in the order of their names: nnx.clone, nnx.merge "
                "and nnx.eval_shape lose that of definition; read the pairs, or give names"
            )
        untold = [
            self._name(layer)
            for layer in self._layers
            if isinstance(self._modules[layer], nnx.Linear)
            and self._name(layer) not in self.flattened
        ]
        if untold:
            remarks.append(
                f"{', '.join(untold)} of NNX: taken to have no flattened image for its input; if "
                "one does, say so by NnxWeights(model, flattened={name: (H, W, C)})"
            )
        return remarks


def _found(model: nnx.Module) -> tuple[dict[str, Any], dict[str, nnx.Variable]]:
    """What a model holds by its path, in the order of definition: all parts, and its weights."""
    parts: dict[str, Any] = {"": model}

    def note(path: str, part: Any) -> Any:
        parts[path] = part
        return part

    visit(model, note, "", set())
    variables = {
        path: part
        for path, part in parts.items()
        if isinstance(part, nnx.Variable) and not isinstance(part, NO_WEIGHTS)
    }
    return parts, variables


def _require_apart(variables: dict[str, nnx.Variable]) -> None:
    names: dict[int, list[str]] = {}
    for path, variable in variables.items():
        names.setdefault(id(variable), []).append(path)
    shared = [" and ".join(paths) for paths in names.values() if len(paths) > 1]
    if shared:
        raise UserError(
            f"{'; '.join(shared)} are one variable, which two layers cannot both be given; carry "
            "between models that do not tie it, and tie it afterwards"
        )


def _require_unstacked(parts: dict[str, Any]) -> None:
    wrong = []
    for path, layer in parts.items():
        for kind, (name, dimensions) in DIMENSIONS.items():
            held: Any = getattr(layer, name, None) if isinstance(layer, kind) else None
            if isinstance(held, nnx.Variable) and held.ndim != dimensions(layer):
                wrong.append(f"{path}: {name} {held.shape}")
    if wrong:
        raise UserError(
            "these layers are stacked by nnx.vmap or nnx.scan, and are no layers in order:\n  "
            + "\n  ".join(wrong)
            + "\ncarry into a model whose layers stand one by one, and stack its state"
        )


def _may_be_flat(rows: int, channels: set[int]) -> bool:
    return any(width > 1 and rows > width and rows % width == 0 for width in channels)


def _width(norm: Unit) -> int:
    shapes = [leaf.shape for leaf in norm.leaves.values() if leaf.shape]
    return shapes[0][-1] if shapes else 0
