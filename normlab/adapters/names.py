"""What Flax calls the leaves of a normaliser, and the state that a backward pass leaves."""

from functools import partial

import jax

from normlab.core import Array, Normaliser, Params, State
from normlab.errors import UserError

FLAX_NAMES = {"variance": "var"}
"""Of state leaves, where Flax has its own name; all other leaves keep theirs."""


def flax_name(leaf: str) -> str:
    """The name of a leaf of a normaliser's state in Flax's `batch_stats`."""
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


def backward_values(
    normaliser: Normaliser, x: Array, state: State, how_to_train: str
) -> tuple[Array, State]:
    """`x` and `state`, watched so that a backward state cannot be left behind unnoticed.

    Whoever differentiates the output with respect to the parameters or the input, but not the
    leaves of `Facts.backward_state`, would train with a memory that never moves: another
    algorithm. They get a `UserError` that ends with `how_to_train`.
    """
    names = sorted(normaliser.facts.backward_state)
    if not names:
        return x, state
    message = (
        f"{type(normaliser).__name__} keeps {' and '.join(names)} in its backward pass: the "
        "gradient with respect to them is their next value, and they were left out of the "
        f"differentiation. {how_to_train}"
    )
    x, *leaves = _watched(message, x, *(state[name] for name in names))
    return x, {**state, **dict(zip(names, leaves, strict=True))}


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _watched(message: str, x: Array, *leaves: Array) -> tuple[Array, ...]:
    return (x, *leaves)


def _watch(message, primals, tangents):  # type: ignore[no-untyped-def]
    symbolic = [isinstance(t, jax.custom_derivatives.SymbolicZero) for t in tangents]
    if not symbolic[0] and any(symbolic[1:]):
        raise UserError(message)
    return primals, tuple(
        jax.numpy.zeros(t.shape, t.dtype) if zero else t
        for t, zero in zip(tangents, symbolic, strict=True)
    )


_watched.defjvp(_watch, symbolic_zeros=True)
