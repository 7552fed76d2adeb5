"""Reads, writes and renews the mean and variance of each channel that a normaliser keeps.

Each function asks a method of `normlab.core.OptionalMethods`, or takes its default.
"""

from functools import cache

import jax
import jax.numpy as jnp

from normlab.adapters.linen_places import Place
from normlab.core import Array, Normaliser, State
from normlab.errors import UserError
from normlab.ops.moments import Moments


def require_moments(place: Place) -> None:
    """Raise `UserError` for a normaliser whose statistics are not each channel's moments."""
    if not place.normaliser.facts.keeps_moments:
        raise UserError(
            f"{place}: the statistics that {type(place.normaliser).__name__} keeps are not the "
            "moments of its channels, so they cannot be taken anew. `normlab describe NAME` says "
            "whether a normaliser 'keeps moments'; declare it for one of your own by "
            "@normaliser(..., keeps_moments=True)"
        )


def of_batch(normaliser: Normaliser, moments: Moments) -> tuple[Array, Array]:
    """Return the mean and the biased variance, `(C,)`, with which training normalises."""
    moments = _shared(normaliser, moments)
    return moments.mean, moments.variance


def of_population(normaliser: Normaliser, moments: Moments) -> tuple[Array, Array]:
    """Return the mean and the variance, `(C,)`, as the state keeps them.

    The variance is biased, unless the normaliser says otherwise.
    """
    moments = _shared(normaliser, moments)
    unbiased = getattr(normaliser, "unbiased_running_variance", False)
    return moments.mean, moments.unbiased_variance if unbiased else moments.variance


def mean_and_variance(normaliser: Normaliser, state: State) -> tuple[Array, Array]:
    """Return the mean and the variance that a state holds."""
    read = getattr(normaliser, "read_moments", None)
    return (state["mean"], state["variance"]) if read is None else read(state)


def with_mean_and_variance(
    normaliser: Normaliser, state: State, mean: Array, variance: Array
) -> State:
    """Return a state with another mean and variance; its other leaves stay."""
    write = getattr(normaliser, "write_moments", None)
    new = {"mean": mean, "variance": variance} if write is None else write(state, mean, variance)
    changed = {name: leaf.astype(state[name].dtype) for name, leaf in new.items()}
    return {**state, **changed}


def is_optional(normaliser: Normaliser | None, name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a leaf of a state may stay at its start when weights come from elsewhere.

    A mean or a variance may not, unless no evaluation looks at it. EvoNorm B0, for example, keeps a
    running mean and never subtracts it.
    """
    if name not in ("mean", "variance"):
        return True
    return normaliser is not None and not _reads(normaliser, name, shape[-1])


@cache
def _reads(normaliser: Normaliser, name: str, features: int) -> bool:
    """Return whether an evaluation looks at a leaf of the state."""
    params, state = jax.eval_shape(lambda: normaliser.init(features))
    x = jax.ShapeDtypeStruct((2, 2, 2, features), jnp.float32)

    def evaluated(leaf: Array, params: State, state: State, x: Array) -> Array:
        return normaliser.apply(params, {**state, name: leaf}, x, train=False)[0]

    trace = jax.make_jaxpr(evaluated)(state[name], params, state, x).jaxpr
    used = [value for equation in trace.eqns for value in equation.invars] + trace.outvars
    return any(value is trace.invars[0] for value in used)


def _shared(normaliser: Normaliser, moments: Moments) -> Moments:
    share = getattr(normaliser, "share_moments", None)
    return moments if share is None else share(moments)
