"""Names a normaliser's leaves as Flax does, and guards the state that a backward pass leaves."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from normlab.core import Array, Normaliser, Params, State
from normlab.errors import UserError

FLAX_NAMES = {"variance": "var"}
"""Flax's own names for leaves of the state; all other leaves keep their names."""


def flax_name(leaf: str) -> str:
    """Return the name of a leaf of a normaliser's state in Flax's `batch_stats`."""
    return FLAX_NAMES.get(leaf, leaf)


def require_names(normaliser: Normaliser, params: Params, state: State) -> None:
    """Raise `UserError` where two leaves of a normaliser would have one name in a Flax layer."""
    names = [*params, *map(flax_name, state)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"{type(normaliser).__name__} has two leaves that a Flax layer calls "
            f"{' and '.join(twice)}, among its params {sorted(params)} and its state "
            f"{sorted(state)} (where {FLAX_NAMES} are renamed); give them names of their own"
        )


def wide_enough(x: Array, dtype: jax.typing.DTypeLike) -> Array:
    """Widen `x` if a result of that dtype needs it, so that it is rounded once."""
    with jax.numpy_dtype_promotion("standard"):
        return x.astype(jnp.promote_types(x.dtype, dtype))


def mask_of_rank(ndim: int, mask: Array | None) -> Array | None:
    """Put axes of size one before those of a mask; in Flax a shorter mask has the last axes.

    >>> mask_of_rank(3, jnp.array([True, False])).shape
    (1, 1, 2)
    """
    if mask is None or jnp.ndim(mask) >= ndim:
        return mask
    return jnp.reshape(mask, (1,) * (ndim - jnp.ndim(mask)) + jnp.shape(mask))


def watch_backward_state(
    normaliser: Normaliser, params: Params, state: State, x: Array, how_to_train: str
) -> tuple[Params, State, Array]:
    """Return the arguments unchanged, but watched, so that a backward state is not forgotten.

    A gradient with respect to the parameters or the input, but not the leaves of
    `Facts.backward_state`, would train with a memory that never moves. That is another algorithm,
    so it raises a `UserError` that ends with `how_to_train`.
    """
    names = sorted(normaliser.facts.backward_state)
    if not names:
        return params, state, x
    message = (
        f"{type(normaliser).__name__} keeps {' and '.join(names)} in its backward pass: the "
        "gradient with respect to that is its next value, and it was left out of the "
        f"differentiation. {how_to_train}"
    )
    others, leaves = _watched(message, (params, x), {name: state[name] for name in names})
    return others[0], {**state, **leaves}, others[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _watched(message: str, others: Any, leaves: Any) -> Any:
    return others, leaves


def _watch(message: str, primals: Any, tangents: Any) -> Any:
    zeros = [
        [_is_symbolic(t) for t in jax.tree.leaves(part, is_leaf=_is_symbolic)] for part in tangents
    ]
    if any(zeros[1]) and not all(zeros[0]):
        raise UserError(message)
    dense = jax.tree.map(
        lambda t: jnp.zeros(t.shape, t.dtype) if _is_symbolic(t) else t,
        tangents,
        is_leaf=_is_symbolic,
    )
    return primals, dense


def _is_symbolic(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


_watched.defjvp(_watch, symbolic_zeros=True)
