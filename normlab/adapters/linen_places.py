"""Finds the normalisers of a linen model: this library's slots and layers, and Flax's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from normlab.adapters.flax_layers import like_flax
from normlab.adapters.flax_names import flax_name
from normlab.adapters.linen_norm import BATCH_STATS
from normlab.adapters.linen_norm import Norm as Layer
from normlab.adapters.modes import with_fields
from normlab.core import Array, Normaliser, Params, State
from normlab.errors import UserError
from normlab.models.slots import NORM, NORM_STATE, Norm

COLLECTIONS = (NORM_STATE, BATCH_STATS)
"""The collections with states: one for this library's models, one for linen layers."""

MOMENTS = "moments"
"""A layer's call can leave the moments of its input under this name, beside its state."""

OUR_NAMES: dict[str, str] = {flax_name(name): name for name in ("mean", "variance")}

Variables = dict[str, Any]
Path = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A layer that normalises, and the place of its variables.

    Attributes:
        path: where its variables stand in each collection.
        normaliser: the normaliser that it computes.
        collection: the one of `COLLECTIONS` with its state.
    """

    path: Path
    normaliser: Normaliser
    collection: str

    def __str__(self) -> str:
        return "/".join(self.path)

    @property
    def in_slot(self) -> bool:
        """Return whether it is a slot of this library's models, whose leaves stand together."""
        return self.collection == NORM_STATE

    def params(self, variables: Variables) -> Params:
        """Return its parameters, under the normaliser's names."""
        return dict(at(variables, ("params", *self.path, *((NORM,) if self.in_slot else ()))) or {})

    def state(self, variables: Variables) -> State:
        """Return its state, under the normaliser's names; empty if it has none."""
        if self.in_slot:
            return dict(at(variables, (NORM_STATE, *self.path, NORM)) or {})
        leaves: dict[str, Any] = at(variables, (BATCH_STATS, *self.path)) or {}
        return {OUR_NAMES.get(name, name): v for name, v in leaves.items() if name != MOMENTS}

    def with_state(self, variables: Variables, state: State) -> Variables:
        """Return `variables` with another state at this place."""
        if self.in_slot:
            return put(variables, (NORM_STATE, *self.path, NORM), state)
        theirs = {flax_name(name): leaf for name, leaf in state.items()}
        return put(variables, (BATCH_STATS, *self.path), theirs)


def place_of(module: nn.Module) -> Place | None:
    """Return the place of a bound module, or None if it is of no kind that can keep statistics.

    Raises:
        UserError: a batch norm of Flax whose settings have no counterpart.
    """
    if not isinstance(module, Norm | Layer | nn.BatchNorm) or module.scope is None:
        return None
    path = module.scope.path
    if isinstance(module, Norm):
        return Place(path, module.normaliser, NORM_STATE)
    if isinstance(module, Layer):
        return Place(path, module.normaliser, BATCH_STATS)
    try:
        return Place(path, like_flax(module), BATCH_STATS)
    except UserError as error:
        raise UserError(f"{'/'.join(path)}: {error}") from error


def held(module: nn.Module, place: Place) -> State:
    """Return the present state of a bound module."""
    if place.in_slot:
        return dict(module.get_variable(NORM_STATE, NORM, {}))
    return Place((), place.normaliser, BATCH_STATS).state(dict(module.variables))


def hold(module: nn.Module, place: Place, state: State) -> None:
    """Give a bound module another state for the rest of the call."""
    if place.in_slot:
        module.put_variable(NORM_STATE, NORM, state)
    else:
        for name, leaf in state.items():
            module.put_variable(BATCH_STATS, flax_name(name), leaf)


def evaluate(module: nn.Module, call: Callable[..., Any], x: Array, mask: Array | None) -> Any:
    """Call the module as in evaluation, whatever the arguments say."""
    if isinstance(module, Norm):
        return call(x, train=False)
    return with_fields({"use_running_average": True}, module, call, (x,), {"mask": mask})


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Array, Array | None]:
    """Return the array and the mask with which a normalising layer is called."""
    return args[0] if args else kwargs["x"], kwargs.get("mask")


def at(tree: Any, path: Path) -> Any:
    """Return the value at a path of nested dictionaries, or None."""
    for key in path:
        if not hasattr(tree, "get") or key not in tree:
            return None
        tree = tree[key]
    return tree


def put(tree: Any, path: Path, value: Any) -> Any:
    """Return `tree` with `value` at a path; nothing is changed in place."""
    if not path:
        return value
    return {**tree, path[0]: put(tree.get(path[0], {}), path[1:], value)}
