"""Calls any linen model as training needs it: parameters apart from state, and told its mode.

A model of this library keeps its state in one collection, `norm_state`. The state of another model
is a dictionary of all its collections but `params`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import LazyInitError
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT

from normlab.adapters import linen_norm
from normlab.adapters.flax_layers import LINEN_LAYERS
from normlab.adapters.intercepting import at_each_call
from normlab.adapters.linen_places import Path, Place, place_of
from normlab.adapters.modes import in_mode
from normlab.adapters.nnx_linen import NormLayer
from normlab.core import Array, pool_states
from normlab.errors import UserError
from normlab.models import slots
from normlab.models.slots import NORM_STATE, pool_norm_states, with_backward_state

NORMALISERS = (slots.Norm, linen_norm.Norm, NormLayer, *LINEN_LAYERS)
"""The linen modules that normalise."""


@dataclass(frozen=True)
class Classifier:
    """A model that gives logits `(N, classes)` for images `(N, H, W, C)`.

    Attributes:
        model: any linen module, of this library or not.

    >>> net = Classifier(nn.Sequential([nn.BatchNorm(), nn.Dense(2)]))
    >>> params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 3), jnp.float32))
    >>> logits, moved = net.apply(params, state, jnp.ones((4, 3)), train=True)
    >>> logits.shape, sorted(state)
    ((4, 2), ['batch_stats'])
    """

    model: nn.Module

    @property
    def is_ours(self) -> bool:
        """Return whether the model is one of this library, or is marked as one."""
        return slots.is_ours(self.model)

    def init(self, key: Array, images: Any) -> tuple[Any, Any]:
        """Make parameters and state; only the shape and dtype of `images` matter."""
        images = jax.ShapeDtypeStruct(images.shape, images.dtype)
        model, call = in_mode(self.model, False, {})
        try:
            variables = model.lazy_init(key, images, **call)
        except LazyInitError:  # the parameters depend on the images
            variables = model.init(key, jnp.zeros(images.shape, images.dtype), **call)
        return self.split(variables)

    def traced(self, images: Any) -> tuple[Any, Any]:
        """Trace a training batch through one of this library's models from its start.

        One trace serves two ends: it raises what training would raise, and it finds the shapes.

        Args:
            images: an array or its shape and dtype.

        Returns:
            Parameters and state as shapes.
        """

        def start(key: Array, images: Array) -> Any:
            model, call = in_mode(self.model, True, {})
            logits, variables = model.init_with_output(
                {"params": key, "dropout": key}, images, **call
            )
            _require_logits(logits, images)
            return variables

        return self.split(jax.eval_shape(start, jax.random.key(0), images))

    def split(self, variables: Any) -> tuple[Any, Any]:
        """Split the variables into parameters and state."""
        params = variables.get("params", {})
        if self.is_ours:
            return params, variables.get(NORM_STATE, {})
        return params, {name: tree for name, tree in variables.items() if name != "params"}

    def variables(self, params: Any, state: Any) -> dict[str, Any]:
        """Put parameters and state together, as `model.apply` takes them."""
        return {"params": params, **({NORM_STATE: state} if self.is_ours else state)}

    def apply(
        self, params: Any, state: Any, images: Array, *, train: bool, key: Array | None = None
    ) -> tuple[Array, Any]:
        """Compute logits in float32, and the state after the call; `key` is for dropout.

        Raises:
            UserError: the model returns anything but an array `(N, classes)`.
        """
        variables = self.variables(params, state)
        model, call = in_mode(self.model, train, {})
        rngs = {} if key is None else {"dropout": key}
        if self.is_ours:
            mutable = [NORM_STATE] if train else False
        else:
            # Flax takes this key for every other name, such as the one for stochastic depth.
            rngs |= {} if key is None else {"params": jax.random.fold_in(key, 1)}
            mutable = list(state) if train else False
        found: Any = model.apply(variables, images, mutable=mutable, rngs=rngs, **call)
        logits, moved = found if train else (found, {})
        _require_logits(logits, images)
        if self.is_ours:
            return logits, moved.get(NORM_STATE, {}) if train else state
        return logits.astype(jnp.float32), {**state, **_alike(moved, state)}

    def pool(self, states: Any, params: Any, images: Array) -> Any:
        """Pool the states of microbatches that all started from the same one.

        Args:
            states: the states, with a leading axis over microbatches.
            params: the parameters of the model.
            images: the images of one microbatch; only their shape matters.
        """
        if self.is_ours:
            return pool_norm_states(self.model.norm, states)  # type: ignore[attr-defined]
        first = jax.tree.map(lambda leaf: leaf[0], states)
        pooled = jax.tree.map(_mean_or_last, states)
        for place in self.places(params, first, images):
            if place.collection in states and (state := place.state(states)):
                pooled = place.with_state(pooled, pool_states(place.normaliser, state))
        return pooled

    def places(self, params: Any, state: Any, images: Array) -> list[Place]:
        """Find the layers that can keep statistics."""
        found: dict[Path, Place] = {}

        def meet(module: nn.Module) -> None:
            place = place_of(module)
            if place is not None and place.path not in found:
                found[place.path] = place

        self._meet(meet, params, state, images)
        return list(found.values())

    def norm_paths(self, params: Any, state: Any, images: Any) -> frozenset[Path]:
        """Find the paths of the layers that normalise."""
        return frozenset(self.norms_in_order(params, state, images))

    def norms_in_order(self, params: Any, state: Any, images: Any) -> tuple[Path, ...]:
        """Find the paths of the layers that normalise, in the order of their first calls."""
        found: dict[Path, None] = {}

        def meet(module: nn.Module) -> None:
            if isinstance(module, NORMALISERS) and module.scope is not None:
                found.setdefault(module.scope.path)

        self._meet(meet, params, state, images)
        return tuple(found)

    def _meet(
        self, meet: Callable[[nn.Module], None], params: Any, state: Any, images: Any
    ) -> None:
        def note(module: nn.Module, call: Any, args: Any, kwargs: Any) -> Any:
            meet(module)
            return call(*args, **kwargs)

        with at_each_call(note):
            jax.eval_shape(lambda p, s, x: self.apply(p, s, x, train=False), params, state, images)

    def by_gradient(self, state: Any) -> Any:
        """Extract the part of the state whose gradient is its next value."""
        if not self.is_ours:
            return {name: state[name] for name in state if name == OVERWRITE_WITH_GRADIENT}
        norm: Any = self.model.norm  # type: ignore[attr-defined]
        return state if norm.facts.backward_state else {}

    def with_gradient(self, state: Any, gradient: Any) -> Any:
        """Put the gradient with respect to `by_gradient(state)` into the state."""
        if not self.is_ours:
            return {**state, **gradient}
        norm: Any = self.model.norm  # type: ignore[attr-defined]
        return with_backward_state(norm, state, gradient)


def _require_logits(logits: Any, images: Array) -> None:
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != images.shape[0]:
        found = f"an array {shape}" if shape is not None else f"a {type(logits).__name__}"
        raise UserError(
            f"the model returns {found} for images {images.shape}; a classifier returns logits, an "
            f"array ({images.shape[0]}, classes)"
        )


def _alike(moved: Any, state: Any) -> Any:
    """Keep the collections whose structure is unchanged; the others grow with every call."""
    structure = jax.tree.structure
    return {n: tree for n, tree in moved.items() if structure(tree) == structure(state[n])}


def _mean_or_last(leaves: Array) -> Array:
    return leaves.mean(axis=0) if jnp.issubdtype(leaves.dtype, jnp.floating) else leaves[-1]
