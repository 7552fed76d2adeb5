"""The parts of an NNX model: found by path, replaced, copied, and in the order of calls."""

import copy
from typing import Any

import jax
from flax import nnx

from normlab.adapters.calls import Meetings
from normlab.adapters.nnx import parts_of, visit
from normlab.errors import UserError

NO_WEIGHTS = (nnx.RngState, nnx.Cache, nnx.Intermediate)

DIMENSIONS = {
    nnx.Linear: ("kernel", lambda layer: 2),
    nnx.Conv: ("kernel", lambda layer: len(layer.kernel_size) + 2),
    nnx.ConvTranspose: ("kernel", lambda layer: len(layer.kernel_size) + 2),
    nnx.Embed: ("embedding", lambda layer: 2),
    nnx.BatchNorm: ("mean", lambda layer: 1),
}
"""An array of each layer, and its number of axes unless `nnx.vmap` or `nnx.scan` stacks it."""


def found(model: nnx.Module) -> tuple[dict[str, Any], dict[str, nnx.Variable]]:
    """Return all parts of a model, and its weights, by path in the order of definition."""
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


def part_at(model: Any, path: tuple[Any, ...]) -> Any:
    """Return the part at a path of keys, as Flax's states have them; None if there is none."""
    part = model
    for key in path:
        parts = parts_of(part)
        part = parts[key] if key in parts else getattr(part, str(key), None)
    return part


def replace_part(model: Any, path: tuple[str, ...], new: Any) -> None:
    """Put `new` in the place of the part at a path of names, in place."""
    holder = model
    for name in path[:-1]:
        holder = parts_of(holder)[_key(holder, name)]
    key = _key(holder, path[-1])
    if isinstance(key, int) or not isinstance(holder, nnx.Module):
        holder[key] = new
    else:
        setattr(holder, key, new)


def _key(holder: Any, name: str) -> Any:
    return next(key for key in parts_of(holder) if str(key) == name)


def meetings(
    model: nnx.Module, variables: dict[str, nnx.Variable], images: Any, call: dict[str, Any]
) -> Meetings:
    """Find the order in which a call of a model uses its variables; nothing is changed."""
    names = {id(variable): path for path, variable in variables.items()}
    graph, state = nnx.split(model)
    # A state that is no weight has no name.
    paths = [names.get(id(part_at(model, path)), "") for path, _ in nnx.to_flat_state(state)]
    example = jax.ShapeDtypeStruct(images.shape, images.dtype)
    traced = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x, **call))(state, example)
    return Meetings(traced.jaxpr, [*paths, None])


def copied(model: nnx.Module) -> nnx.Module:
    """Copy a model and keep the order of its attributes; flax's deepcopy sorts them."""
    new = copy.deepcopy(model)
    _reorder(model, new, set())
    return new


def is_sorted(parts: dict[str, Any]) -> bool:
    """Return whether a module's attributes are sorted by name, as after `nnx.clone`."""
    named = (
        [name for name, part in parts_of(holder).items() if isinstance(part, nnx.Pytree)]
        for holder in parts.values()
        if isinstance(holder, nnx.Module) and not isinstance(holder, nnx.List)
    )
    return any(len(names) > 1 and names == sorted(names) for names in named)


def _reorder(one: Any, other: Any, seen: set[int]) -> None:
    """Give a copy's attributes the order of the original's."""
    if id(one) in seen:
        return
    seen.add(id(one))
    if isinstance(one, nnx.Pytree):
        held = vars(other)
        ordered = {name: held[name] for name in vars(one)}
        held.clear()
        held.update(ordered)
    for key, part in parts_of(one).items():
        _reorder(part, parts_of(other)[key], seen)


def require_apart(variables: dict[str, nnx.Variable]) -> None:
    """Raise `UserError` if one variable stands in two layers."""
    names: dict[int, list[str]] = {}
    for path, variable in variables.items():
        names.setdefault(id(variable), []).append(path)
    shared = [" and ".join(paths) for paths in names.values() if len(paths) > 1]
    if shared:
        raise UserError(
            f"{'; '.join(shared)} are one variable, which two layers cannot both be given; carry "
            "between models that do not tie it, and tie it afterwards"
        )


def require_unstacked(parts: dict[str, Any]) -> None:
    """Raise `UserError` for layers that `nnx.vmap` or `nnx.scan` has stacked."""
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
