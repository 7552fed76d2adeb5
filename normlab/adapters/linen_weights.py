"""The variables of a linen model, ours or any other, as a side of `interchange.carry`."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from normlab.adapters.calls import Meetings
from normlab.adapters.channel_statistics import is_optional
from normlab.adapters.conventions import Settings, changed_fields, of_layer, resizes
from normlab.adapters.intercepting import at_each_call
from normlab.adapters.linen_places import (
    OUR_NAMES,
    Path,
    Place,
    Variables,
    at,
    place_of,
)
from normlab.adapters.modes import in_mode, with_fields
from normlab.adapters.units import Leaf, Unit, as_scale, free_parameter, unchanged
from normlab.core import Array
from normlab.errors import UserError
from normlab.models.slots import NORM

OF_LAYERS = {"kernel", "bias", "scale", "embedding"}
"""The parameters that identify a layer of Flax, except a normaliser."""

REORDERED = "its inputs are in another order: (C, H, W) flattened, in Flax (H, W, C)"


class LinenWeights:
    """A linen model and its variables.

    Layers are in the order of the model's calls. A trace tells it; names do not (`Norm_0` comes
    after `NormAct_1` in a residual block). A dense layer, or a normaliser, behind a flattened image
    has its inputs reordered, as torch flattens channels first.

    Args:
        model: a model of this library, or any linen module whose layers are Flax's own.
        images: an example of its input; only shape and dtype count.
        variables: a source needs them. In a target they give the values that the source lacks.
        **call: other arguments of the model's call in evaluation.

    >>> from normlab.models.plain import MLP
    >>> from normlab.norms import BatchNorm
    >>> model = MLP(norm=BatchNorm(), classes=2, widths=(8,))
    >>> [unit.name for unit in LinenWeights(model, np.zeros((1, 3), np.float32)).units()]
    ['Dense_0', 'NormAct_0/Norm_0', 'Dense_1']
    """

    traced = True

    def __init__(
        self, model: nn.Module, images: Any, variables: Variables | None = None, **call: Any
    ):
        self.variables = variables
        self._example = None if isinstance(images, jax.ShapeDtypeStruct) else images
        images = jax.ShapeDtypeStruct(images.shape, images.dtype)

        def init(x: Array) -> Any:
            told, settings = in_mode(model, False, call)
            return told.init(jax.random.key(0), x, **settings)

        self._init = init
        self._images = images
        self._trace = _Trace(model, init, images, call)
        self.shapes = self._trace.shapes
        self.resizes = self._trace.resizes
        if variables is not None:
            _require_same(flatten_dict(self.shapes), flatten_dict(unfreeze(variables)))

    def units(self) -> list[Unit]:
        """Return its layers in the order of calls."""
        layers: dict[Path, dict[str, Path]] = {}
        for key, path in self._trace.layers.items():
            name = key[-1] if key[0] == "params" else str(OUR_NAMES.get(key[-1], key[-1]))
            layers.setdefault(path, {})[name] = key
        order = {path: place for place, path in enumerate(self._trace.calls)}
        return [
            replace(self._unit(path, layers[path]), place=order.get(path))
            for path in sorted(layers, key=lambda path: (order.get(path, len(order)), path))
        ]

    def _name(self, path: Path) -> str:
        return "/".join(path) or type(self._trace.model).__name__

    def _unit(self, path: Path, keys: dict[str, Path]) -> Unit:
        flat = self._trace.flattened.get(path)
        if ("params", *path) in keys.values():
            key = ("params", *path)
            return free_parameter("/".join(path), Leaf(key, at(self.shapes, key).shape))
        leaves = {}
        for name, key in keys.items():
            shape = at(self.shapes, key).shape
            if name == "embedding":
                leaves["kernel"] = Leaf(key, shape[::-1], np.transpose, np.transpose)
            elif path in self._trace.general:
                leaves[name] = general_leaf(key, shape, name, self._trace.general[path])
            elif name == "kernel" and len(shape) > 2:
                leaves[name] = self._convolution(path, key, shape)
            elif name == "kernel" or (flat and "kernel" not in keys and math.prod(flat) in shape):
                leaves[name] = Leaf(key, shape, *reordering(flat))
            else:
                place = self._trace.places.get(path)
                turned = as_scale(None if place is None else place.normaliser, name)
                leaves[name] = Leaf(key, shape, *turned, self._optional(path, name, key))
        kind = "layer" if "kernel" in leaves else "norm"
        return Unit(self._name(path), kind, leaves, REORDERED if flat else "")

    def _convolution(self, path: Path, key: Path, shape: tuple[int, ...]) -> Leaf:
        module = self._trace.transposed.get(path)
        if module is None:
            return Leaf(key, shape)
        return transposed_kernel(key, shape, module.transpose_kernel)

    def _optional(self, path: Path, name: str, key: Path) -> bool:
        place = self._trace.places.get(path)
        if key[0] == "params":
            return False
        normaliser = None if place is None else place.normaliser
        return is_optional(normaliser, name, at(self.shapes, key).shape)

    def mend(self) -> str:
        """Return nothing, because the order of calls is known."""
        return ""

    def read(self, leaf: Leaf) -> np.ndarray:
        """Return an array of the variables."""
        if self.variables is None:
            raise UserError("a source needs its values: LinenWeights(model, images, variables)")
        return np.asarray(at(self.variables, leaf.key))

    def write(self, arrays: list[tuple[Leaf, np.ndarray]]) -> Variables:
        """Return the variables, in the model's dtypes."""
        flat: dict[Any, Any] = flatten_dict(self.shapes)
        new = {leaf.key: jnp.asarray(v, flat[leaf.key].dtype) for leaf, v in arrays}
        if len(new) < len(flat):
            start = self.variables or jax.jit(self._init)(
                jnp.zeros(self._images.shape, self._images.dtype)
            )
            new = {key: new.get(key, at(start, key)) for key in flat}
        return unflatten_dict({key: new[key] for key in flat})

    def remarks(self) -> list[str]:
        """Name the normalisers that will read the numbers."""
        found = {repr(place.normaliser) for place in self._trace.places.values()}
        return [f"the model of Flax has {normaliser}" for normaliser in sorted(found)]

    def settings(self) -> dict[str, Settings]:
        """Return the conventions of each layer that no array holds, by the layer's name."""
        return {self._name(path): found for path, found in self._trace.settings.items()}

    def outputs(self, result: Any, changes: Mapping[str, Settings]) -> Any:
        """Compute the outputs on the example in evaluation, with other settings for some layers."""
        variables = self.variables if result is None else result
        if self._example is None or variables is None:
            return None

        def meet(module: Any, call: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            change = changes.get("/".join(module.path) or type(module).__name__, {})
            fields = changed_fields(module, change)
            return with_fields(fields, module, call, args, kwargs)

        def evaluated(variables: Variables, x: Array) -> Any:
            with at_each_call(meet):
                return self._trace.evaluate(variables, x)[0]

        return jax.jit(evaluated)(variables, self._example)


def _require_same(shapes: dict[Path, Any], given: dict[Path, Any]) -> None:
    for path, shape in shapes.items():
        found = getattr(given.get(path), "shape", "none")
        if found != shape.shape:
            raise UserError(
                f"the variables are not the model's: {'/'.join(path)} should be an array "
                f"{shape.shape}, found {found}"
            )
    more = ["/".join(path) for path in given if path not in shapes]
    if more:
        raise UserError(f"the variables are not the model's: it has no {', '.join(more)}")


def transposed_kernel(key: Any, shape: tuple[int, ...], as_torch: bool) -> Leaf:
    """Describe a transposed convolution's kernel in Flax; `as_torch` is its `transpose_kernel`."""
    if as_torch:  # the axes are (..., out, in), as torch's (in, out, ...) becomes
        return Leaf(key, shape)
    spatial = tuple(range(len(shape) - 2))

    def turned(values: np.ndarray) -> np.ndarray:
        return np.flip(values, spatial).swapaxes(-1, -2)

    return Leaf(key, (*shape[:-2], shape[-1], shape[-2]), turned, turned)


def general_leaf(key: Any, shape: tuple[int, ...], name: str, outputs: int) -> Leaf:
    """Describe an array of a dense layer over several axes as if the layer had one axis.

    Args:
        key, shape: those of the array.
        name: "kernel", or the name of an array over the axes of the outputs alone.
        outputs: how many axes the layer gives.
    """
    cut = len(shape) - outputs if name == "kernel" else 0
    flat = (math.prod(shape[:cut]), math.prod(shape[cut:])) if cut else (math.prod(shape),)
    return Leaf(key, flat, lambda values: values.reshape(flat), lambda v: v.reshape(shape))


def reordering(flat: tuple[int, ...] | None) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Reorder rows from (..., C) to (C, ...), and back; `flat` is the shape before flattening."""
    if flat is None:
        return unchanged, unchanged
    *spatial, channels = flat

    def there(values: np.ndarray) -> np.ndarray:
        apart = values.reshape(*flat, *values.shape[1:])
        return np.moveaxis(apart, len(spatial), 0).reshape(values.shape)

    def back(values: np.ndarray) -> np.ndarray:
        apart = values.reshape(channels, *spatial, *values.shape[1:])
        return np.moveaxis(apart, 0, len(spatial)).reshape(values.shape)

    return there, back


class _Trace:
    """Holds facts that a call of the model shows: the order of its layers, and flattened images.

    Attributes:
        calls: paths in the order in which their variables are used.
        places: the layers that normalise.
        transposed: the layers that are transposed convolutions.
        general: dense layers over several axes -> how many axes they give.
        settings: the conventions of each layer that no array holds.
        resizes: the resizes in a call.
        layers: path of each variable -> path of its layer, or its own path if it has no layer.
        flattened: path of each layer that takes a flattened image -> the image's shape.
    """

    def __init__(
        self, model: nn.Module, init: Callable[[Array], Variables], images: Any, call: Any
    ):
        self.model, self.call = model, call
        self.settings: dict[Path, Settings] = {}
        self.places: dict[Path, Place] = {}
        self.transposed: dict[Path, nn.ConvTranspose] = {}
        self.general: dict[Path, int] = {}
        with at_each_call(self._meet):
            self.shapes: Variables = jax.eval_shape(init, images)

        def evaluated(variables: dict[Path, Any], x: Array) -> Any:
            return self.evaluate(unflatten_dict(variables), x)

        flat = flatten_dict(self.shapes)
        traced = jax.make_jaxpr(evaluated)(flat, images)
        self.layers = self._layers(flat)
        paths = {"/".join(key): path for key, path in self.layers.items()}
        met = Meetings(traced.jaxpr, [*map("/".join, sorted(flat)), None])
        self.calls = list(dict.fromkeys(paths[name] for name in met.order))
        self.flattened = {paths[name]: image for name, image in met.flattened.items()}
        self.resizes = resizes(met)

    def evaluate(self, variables: Variables, x: Array) -> Any:
        """Compute the model's output in evaluation, and its collections."""
        told, settings = in_mode(self.model, False, self.call)
        rngs = {"params": jax.random.key(0)}
        return told.apply(variables, x, rngs=rngs, mutable=True, **settings)

    def _layers(self, keys: Iterable[Path]) -> dict[Path, Path]:
        held: dict[Path, set[str]] = {}

        def layer_of(key: Path) -> Path:
            _, *path, _ = key
            slot = self.places.get(tuple(path[:-1])) if path and path[-1] == NORM else None
            return tuple(path[:-1] if slot is not None and slot.in_slot else path)

        for key in keys:
            held.setdefault(layer_of(key), set()).add(key[-1])

        def free(key: Path) -> bool:
            path = layer_of(key)
            return key[0] == "params" and path not in self.places and not held[path] & OF_LAYERS

        return {key: key[1:] if free(key) else layer_of(key) for key in keys}

    def _meet(
        self,
        module: nn.Module,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if isinstance(module, nn.ConvTranspose):
            self.transposed[module.path] = module
        if isinstance(module, nn.DenseGeneral):
            features = module.features
            self.general[module.path] = 1 if isinstance(features, int) else len(features)
        place = place_of(module)
        if place is not None:
            self.places[module.path] = place
        if found := of_layer(module):
            self.settings[module.path] = found
        return call(*args, **kwargs)
