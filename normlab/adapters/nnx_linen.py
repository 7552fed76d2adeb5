"""Presents an NNX model as a linen module, so that tools for linen layers work on it too.

The variables lie in collections as in linen: `params`, `batch_stats`, and others by the name of
their type. While the model runs, each of its layers is called through a linen module at the same
path. Everything that intercepts linen calls (probes, `recalibrate`, `fold`) thus meets the layers.
"""

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import Scope
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT

from normlab.adapters import linen_norm
from normlab.adapters.flax_layers import NNX_LAYERS
from normlab.adapters.nnx import Norm, OverwriteWithGradient
from normlab.adapters.nnx_parts import part_at
from normlab.core import Array

Path = tuple[Any, ...]

NOT_KEPT = (nnx.RngState, nnx.Intermediate)
"""Variables outside the trained state; their keys are drawn anew in every call."""

AFFINE = ("epsilon", "dtype", "param_dtype", "use_bias", "use_scale")
OF_BATCH_NORM = (*AFFINE, "axis", "momentum", "axis_name", "axis_index_groups", "use_fast_variance")
OF_OURS = ("normaliser", "dtype", "param_dtype")

STATELESS = tuple(layer for layer in NNX_LAYERS if layer is not nnx.BatchNorm)
"""The layers of Flax that normalise and keep no statistics."""


class Layer(nn.Module):
    """An NNX layer with a kernel, called at its place among the linen modules.

    Attributes:
        kind: the class of the NNX layer.
        run: the NNX layer's own call.
    """

    kind: type
    run: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the NNX layer."""
        return self.run(*args, **kwargs)


class NormLayer(Layer):
    """An NNX layer of Flax that normalises and keeps no statistics, at its place."""


class Source:
    """The origin of an NNX model: its structure, and the values of its variables.

    Args:
        make: a function that makes the model from `rngs`.
        given: the model itself, whose values are the initial ones. Without it, `make` is called
            with the key of `init`.
    """

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], given: nnx.Module | None = None):
        self.make, self.given = make, given
        template = nnx.eval_shape(lambda: make(nnx.Rngs(0))) if given is None else given
        self.kind = type(template)
        self.graph, state = nnx.split(template)
        self.flat = dict(nnx.to_flat_state(state))

    def values(self, key: Callable[[], Array]) -> dict[Path, nnx.Variable]:
        """Make the initial variables, by path; `key` is called if a key is needed."""
        if self.given is not None:
            return dict(nnx.to_flat_state(nnx.state(self.given)))
        made = self.make(nnx.Rngs(key()))
        return dict(nnx.to_flat_state(nnx.state(made)))

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters of the model's call, without the model itself."""
        return dict(list(inspect.signature(self.kind.__call__).parameters.items())[1:])


class NnxNet(nn.Module):
    """An NNX model as a linen module.

    Attributes:
        source: the origin of the model.
        train: True after the model's `train()`, False after its `eval()`, None as it was made.
    """

    source: Source
    train: bool | None = None

    @nn.compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model with the variables of this module."""
        source, scopes = self.source, _Scopes(self.scope)
        if self.is_initializing():
            values = source.values(lambda: self.make_rng("params"))
            for path, variable in values.items():
                if (collection := collection_of(variable)) is not None:
                    scopes.at(path[:-1]).put_variable(
                        collection, str(path[-1]), variable.get_value()
                    )
        model, before = self._merged(scopes)
        if self.train is not None:
            model.train() if self.train else model.eval()
        shims = _shims(model, scopes)
        token = _running.set(shims)
        try:
            y = model(*args, **kwargs)
        finally:
            _running.reset(token)
        if not self.is_initializing():
            self._keep(model, before, scopes)
        return y

    def _merged(self, scopes: "_Scopes") -> tuple[Any, dict[Path, Any]]:
        state, before = [], {}
        streams = 0
        for path, variable in self.source.flat.items():
            collection = collection_of(variable)
            if collection is not None:
                # A fold takes variables out, and nothing may use them: a shape stands for them.
                value = scopes.at(path[:-1]).get_variable(
                    collection, str(path[-1]), _shape(variable)
                )
                before[path] = value
            elif isinstance(variable, nnx.RngKey):
                streams += 1
                value = self._key(variable, streams)
            else:
                value = jnp.zeros_like(_shape(variable))
            state.append((path, variable.replace(value)))
        return nnx.merge(self.source.graph, nnx.from_flat_state(state)), before

    def _key(self, variable: Any, number: int) -> Array:
        """Make the key of a stream of random numbers from the key of this call."""
        name = "dropout" if self.has_rng("dropout") else "params"
        key = self.make_rng(name) if self.has_rng(name) else jax.random.key(0)
        key = jax.random.fold_in(key, number)
        template = variable.get_value()
        typed = jnp.issubdtype(template.dtype, jax.dtypes.prng_key)
        shape = template.shape if typed else template.shape[:-1]
        key = jax.random.split(key, shape) if shape else key
        return key if typed else jax.random.key_data(key)

    def _keep(self, model: Any, before: dict[Path, Any], scopes: "_Scopes") -> None:
        for path, variable in nnx.to_flat_state(nnx.state(model)):
            collection = collection_of(variable)
            if collection in (None, "params", OVERWRITE_WITH_GRADIENT) or path not in before:
                continue
            if variable.get_value() is not before[path] and self.is_mutable_collection(collection):
                scopes.at(path[:-1]).put_variable(collection, str(path[-1]), variable.get_value())


def as_linen(model: Any) -> NnxNet:
    """Present an NNX model as a linen module; its values are the initial ones.

    >>> import jax, jax.numpy as jnp
    >>> net = as_linen(nnx.Linear(2, 1, rngs=nnx.Rngs(0)))
    >>> variables = net.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> sorted(variables["params"])
    ['bias', 'kernel']
    """
    return NnxNet(Source(lambda rngs: model, model))


def variables_of(model: nnx.Module) -> dict[str, Any]:
    """Collect the variables of an NNX model in collections as in linen."""
    found: dict[str, Any] = {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if (collection := collection_of(variable)) is not None:
            at = found.setdefault(collection, {})
            for key in path[:-1]:
                at = at.setdefault(str(key), {})
            at[str(path[-1])] = variable.get_value()
    return found


def update(model: nnx.Module, variables: dict[str, Any]) -> None:
    """Put variables in linen's collections into an NNX model, in place."""
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        at: Any = variables.get(collection_of(variable) or "", {})
        for key in path:
            at = at.get(str(key)) if isinstance(at, dict) else None
        if at is not None:
            variable[...] = at


def collection_of(variable: Any) -> str | None:
    """Name the collection of linen for such a variable; None if it is not kept."""
    if isinstance(variable, NOT_KEPT):
        return None
    if isinstance(variable, OverwriteWithGradient):
        return OVERWRITE_WITH_GRADIENT
    if isinstance(variable, nnx.Param):
        return "params"
    if isinstance(variable, nnx.BatchStat):
        return "batch_stats"
    return type(variable).__name__.lower()


class _Scopes:
    """The scopes of the layers by path, below that of the model; each is made once."""

    def __init__(self, root: Scope | None):
        assert root is not None
        self._found: dict[Path, Scope] = {(): root}

    def at(self, path: Path) -> Scope:
        if path not in self._found:
            self._found[path] = self.at(path[:-1]).push(str(path[-1]), reuse=True)
        return self._found[path]


class _Shim:
    """A layer of a running model, and the linen module through which it is called."""

    def __init__(self, layer: Any, scope: Any):
        self.layer, self.scope = layer, scope
        self.kind = type(layer)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        layer, kind = self.layer, self.kind
        if kind not in (nnx.BatchNorm, Norm):
            cls = NormLayer if issubclass(kind, STATELESS) else Layer
            run = lambda *a, **k: kind.__call__(layer, *a, **k)  # noqa: E731
            return cls(kind, run, parent=self.scope)(*args, **kwargs)
        given = inspect.signature(kind.__call__).bind(layer, *args, **kwargs).arguments
        stands = given.pop("use_running_average", None)
        stands = layer.use_running_average if stands is None else stands
        names, new = (
            (OF_BATCH_NORM, nn.BatchNorm) if kind is nnx.BatchNorm else (OF_OURS, linen_norm.Norm)
        )
        fields: dict[str, Any] = {name: getattr(layer, name) for name in names}
        module = new(**fields, use_running_average=stands, parent=self.scope)
        return module(given["x"], mask=given.get("mask"), **given.get("given", {}))


_running: ContextVar[dict[int, _Shim] | None] = ContextVar("running", default=None)
"""The layers of the model that is running, by identity."""


@cache
def _watched(kind: type) -> type:
    """Make the class of a layer that is called through its shim.

    Within `nnx.scan`, `nnx.vmap` and the like the layer is another object, without a shim.
    """

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        shim = (_running.get() or {}).get(id(self))
        return kind.__call__(self, *args, **kwargs) if shim is None else shim(*args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _shims(model: Any, scopes: _Scopes) -> dict[int, _Shim]:
    """Let every layer of the model be called through a shim, and return the shims by identity."""
    found = {}
    for path in {path[:-1] for path, _ in nnx.to_flat_state(nnx.state(model))} - {()}:
        part = part_at(model, path)
        if isinstance(part, nnx.Module) and _is_layer(part):
            found[id(part)] = _Shim(part, scopes.at(path))
            part.__class__ = _watched(type(part))
    return found


def _shape(variable: Any) -> jax.ShapeDtypeStruct:
    value = variable.get_value()
    return jax.ShapeDtypeStruct(value.shape, value.dtype)


def _is_layer(part: Any) -> bool:
    has_kernel = isinstance(getattr(part, "kernel", None), nnx.Param)
    return has_kernel or isinstance(part, (*NNX_LAYERS, Norm))
