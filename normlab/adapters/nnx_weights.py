"""The variables of an NNX model, with Flax's layers or ours, as a side of `interchange.carry`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from normlab.adapters.calls import Meetings
from normlab.adapters.channel_statistics import is_optional
from normlab.adapters.conventions import Settings, changed_fields, of_layer, resizes
from normlab.adapters.linen_places import OUR_NAMES
from normlab.adapters.linen_weights import (
    OF_LAYERS,
    REORDERED,
    general_leaf,
    reordering,
    transposed_kernel,
)
from normlab.adapters.nnx import Norm
from normlab.adapters.nnx_parts import (
    copied,
    found,
    is_sorted,
    meetings,
    require_apart,
    require_unstacked,
)
from normlab.adapters.units import Leaf, Unit, as_scale, free_parameter
from normlab.errors import UserError


class NnxWeights:
    """An NNX model.

    Layers are in the order in which a call on `images` uses them. Without an example the order is
    not known. Attributes are in the order of definition, which may differ from that of calls;
    `nnx.clone` and `nnx.merge` sort them by name. `carry` then pairs by names, by shape, and
    members of one list by their index. As the target of `carry` the model stays as it is: a copy
    gets the arrays.

    A layer that takes a flattened image has its rows in another order in torch. The call on
    `images` finds these layers. Without an example, a dense layer is refused, with the norm before
    it, if the number of its inputs is a multiple of a convolution's channels. It is accepted if
    that number is the width of the layer defined before it, or if `flattened` names its input. All
    other layers are taken to have no flattened image; the report says so.

    Args:
        model: a model of `flax.nnx`; a target keeps its values for everything that the source
            lacks.
        images: an example of its input; only shape and dtype count. The model is called as it is,
            so call `model.eval()` first if its layers need to be told.
        flattened: name of a layer -> shape `(H, W, C)` of the image that is flattened before it, or
            `(features,)` for no image.
        **call: other arguments of the model's call.

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
        self,
        model: nnx.Module,
        images: Any = None,
        *,
        flattened: Mapping[str, tuple[int, ...]] | None = None,
        **call: Any,
    ):
        self.model = model
        self.traced = images is not None
        self.resizes: list[str] = []
        self._call = call
        self._example = None if isinstance(images, jax.ShapeDtypeStruct) else images
        self._modules, self._variables = found(model)
        self._layers: dict[str, dict[str, str]] = {}
        for path, layer in layers_of(self._modules, self._variables).items():
            name = path.rpartition("/")[2]
            self._layers.setdefault(layer, {})[OUR_NAMES.get(name, name)] = path
        require_apart(self._variables)
        require_unstacked(self._modules)
        self.flattened: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, int] = {}
        if images is not None:
            self._follow(meetings(model, self._variables, images, call))
        self.flattened |= dict(flattened or {})
        unknown = [name for name in self.flattened if name not in map(self._name, self._layers)]
        if unknown:
            raise UserError(
                f"flattened: the model has no layer {', '.join(unknown)}; it has "
                f"{', '.join(map(self._name, self._layers))}"
            )

    def _follow(self, met: Meetings) -> None:
        self.resizes = resizes(met)
        layers = layers_of(self._modules, self._variables)
        for path in met.order:
            self._places.setdefault(layers[path], len(self._places))
        for path, image in met.flattened.items():
            self.flattened.setdefault(self._name(path.rpartition("/")[0]), image)

    def units(self) -> list[Unit]:
        """Return its layers: those that are called, in the order of calls, then the others.

        Raises:
            UserError: a layer may take a flattened image, and nothing says whether.
        """
        units = [self._unit(layer, keys) for layer, keys in self._layers.items()]
        if not self.traced:
            self._require_told(units)
        return sorted(units, key=lambda unit: len(units) if unit.place is None else unit.place)

    def mend(self) -> str:
        """Say how to find the order of calls; empty if it is known."""
        return "" if self.traced else "NnxWeights(model, images) traces a call on an example"

    def _name(self, layer: str) -> str:
        return layer or type(self.model).__name__

    def _unit(self, layer: str, keys: dict[str, str]) -> Unit:
        module, name = self._modules[layer], self._name(layer)
        image = self.flattened.get(name)
        if layer in self._variables:
            leaf = Leaf(layer, tuple(self._variables[layer].shape))
            return replace(free_parameter(name, leaf), place=self._places.get(layer))
        leaves, fits = {}, False
        for leaf, key in keys.items():
            shape = tuple(self._variables[key].shape)
            rows = leaf == "kernel" if "kernel" in keys else len(shape) == 1
            if leaf == "embedding":
                leaves["kernel"] = Leaf(key, shape[::-1], np.transpose, np.transpose)
            elif isinstance(module, nnx.LinearGeneral):
                leaves[leaf] = general_leaf(key, shape, leaf, len(module.out_features))
            elif leaf == "kernel" and isinstance(module, nnx.ConvTranspose):
                leaves[leaf] = transposed_kernel(key, shape, module.transpose_kernel)
            elif image is not None and rows and len(shape) < 3 and math.prod(image) in shape[:1]:
                leaves[leaf], fits = Leaf(key, shape, *reordering(tuple(image))), True
            else:
                turned = as_scale(getattr(module, "normaliser", None), leaf)
                leaves[leaf] = Leaf(key, shape, *turned, self._optional(module, leaf, key))
        kind = "layer" if "kernel" in leaves else "norm"
        unit = Unit(name, kind, leaves, place=self._places.get(layer))
        if image is not None and not fits:
            raise UserError(
                f"flattened: {unit} does not take {math.prod(image)} = "
                f"{' * '.join(map(str, image))} inputs; give the shape (H, W, C) of the image "
                "behind the batch axis"
            )
        reordered = image is not None and len(image) > 1
        return replace(unit, remark=REORDERED) if reordered else unit

    def _optional(self, module: Any, name: str, key: str) -> bool:
        normaliser = getattr(module, "normaliser", None)
        variable = self._variables[key]
        if isinstance(variable, nnx.Param):
            return False
        return is_optional(normaliser, name, tuple(variable.shape))

    def _require_told(self, units: list[Unit]) -> None:
        """Raise `UserError` for every layer that may take a flattened image of a convolution."""
        wrong: list[str] = []
        kept = not is_sorted(self._modules)  # only then is the layer before another known
        convolutions = nnx.Conv | nnx.ConvTranspose
        widths = [m.out_features for m in self._modules.values() if isinstance(m, convolutions)]
        channels = set() if kept else set(widths)
        before, norms = 0, []
        for unit, layer in zip(units, self._layers, strict=True):
            module = self._modules[layer]
            if unit.kind != "layer":
                norms.append(unit)
                continue
            rows, width = (0, 0, *unit.leaves["kernel"].shape)[-2:]
            if isinstance(module, convolutions):
                width = module.out_features
                channels.add(width)
            elif isinstance(module, nnx.Embed):
                width = module.features
            elif isinstance(module, nnx.Linear):
                told = self.flattened.get(unit.name)
                fits = rows == before if kept else rows in channels
                doubt = told is None and not fits and _may_be_flat(rows, channels)
                if doubt and kept:
                    wrong.append(f"{unit}: it takes {rows} inputs; the layer before gives {before}")
                elif doubt:
                    wrong.append(
                        f"{unit}: it takes {rows} inputs; which layer gives them is unknown"
                    )
                if doubt or (told is not None and len(told) > 1):
                    wrong += [
                        f"{norm}: it takes {rows} inputs, as {unit.name} does"
                        for norm in (norms if kept else units)
                        if norm.kind != "layer"
                        and norm.name not in self.flattened
                        and _width(norm) == rows
                    ]
            before, norms = width, []
        if wrong:
            raise UserError(
                "these layers may take a flattened image, whose order is (H, W, C) in Flax and "
                "(C, H, W) in torch:\n  "
                + "\n  ".join(wrong)
                + "\ngive an example of the input, NnxWeights(model, images), or say which image "
                "by NnxWeights(model, flattened={name: (H, W, C)}), or that it is none by "
                "{name: (features,)}"
            )

    def read(self, leaf: Leaf) -> np.ndarray:
        """Return an array of the model."""
        values = self._variables[leaf.key].get_value()
        if isinstance(values, jax.ShapeDtypeStruct):
            raise UserError(f"a source needs its values: {leaf.key} of the model has only a shape")
        return np.asarray(values)

    def write(self, arrays: list[tuple[Leaf, np.ndarray]]) -> Any:
        """Return a copy of the model with these arrays, in the model's dtypes."""
        model = copied(self.model)
        _, variables = found(model)
        for leaf, values in arrays:
            held = variables[leaf.key]
            held.set_value(jnp.asarray(values, held.dtype))
        return model

    def settings(self) -> dict[str, Settings]:
        """Return the conventions of each layer that no array holds, by the layer's name."""
        named = {self._name(path): of_layer(self._modules[path]) for path in self._layers}
        return {name: settings for name, settings in named.items() if settings}

    def outputs(self, result: Any, changes: Mapping[str, Settings]) -> Any:
        """Compute the outputs on the example, with other settings for some layers."""
        if self._example is None:
            return None
        model = copied(self.model if result is None else result)
        modules, _ = found(model)
        for path in self._layers:
            for field, value in changed_fields(
                modules[path], changes.get(self._name(path), {})
            ).items():
                setattr(modules[path], field, value)
        graph, state = nnx.split(model)
        run = jax.jit(lambda state, x: nnx.merge(graph, state)(x, **self._call))
        return run(state, self._example)

    def remarks(self) -> list[str]:
        """List assumptions on the order of layers and inputs, and this library's normalisers."""
        modules = self._modules.values()
        ours = {repr(layer.normaliser) for layer in modules if isinstance(layer, Norm)}
        remarks = [f"the model of NNX has {normaliser}" for normaliser in sorted(ours)]
        if self.traced:
            return remarks
        if is_sorted(self._modules):
            remarks.append(
                "the model of NNX has its layers in the order of their names: nnx.clone, nnx.merge "
                "and nnx.eval_shape lose that of definition"
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
                "one does, say so by NnxWeights(model, flattened={name: (H, W, C)}), or give an "
                "example of the input"
            )
        return remarks


def layers_of(modules: Mapping[str, Any], variables: Mapping[str, nnx.Variable]) -> dict[str, str]:
    """Return for each variable's path the path of its layer, or its own if it has no layer."""
    held: dict[str, set[str]] = {}
    for path in variables:
        layer, _, name = path.rpartition("/")
        held.setdefault(layer, set()).add(name)

    def free(path: str) -> bool:
        layer = path.rpartition("/")[0]
        ours = isinstance(modules[layer], Norm)
        return isinstance(variables[path], nnx.Param) and not ours and not held[layer] & OF_LAYERS

    return {path: path if free(path) else path.rpartition("/")[0] for path in variables}


def _may_be_flat(rows: int, channels: set[int]) -> bool:
    return any(width > 1 and rows > width and rows % width == 0 for width in channels)


def _width(norm: Unit) -> int:
    shapes = [leaf.shape for leaf in norm.leaves.values() if leaf.shape]
    return shapes[0][-1] if shapes else 0
