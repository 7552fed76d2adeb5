"""Makes learning rates data of a run instead of constants of its program.

A learning rate that is built into an optimiser makes a new program for every rate, and a sweep or a
tuning over rates would compile each. `rated` keeps the rates in the optimiser's state, beside the
momentum.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from normlab.core import Array


class RatedState(NamedTuple):
    """The state of an optimiser, including its learning rates.

    Attributes:
        rates: `()`, one rate for all steps, or `(steps,)`, one for each.
        step: int32, number of steps taken.
        inner: the optimiser's own state.
    """

    rates: Array
    step: Array
    inner: optax.OptState


def rated(
    make: Callable[..., optax.GradientTransformation],
    rate: float | optax.Schedule,
    steps: int,
) -> optax.GradientTransformation:
    """Build the optimiser `make(learning_rate=...)` with its learning rates in its state.

    Args:
        make: builds the optimiser. It receives a traced number, so it must not branch on its value.
        rate: the rate of every step, or a function of the step.
        steps: number of steps for which a function is evaluated; the last rate stays afterwards.

    >>> descent = rated(optax.sgd, optax.linear_schedule(1.0, 0.0, 2), steps=2)
    >>> state = descent.init(jnp.ones(1))
    >>> first, state = descent.update(jnp.ones(1), state)
    >>> second, state = descent.update(jnp.ones(1), state)
    >>> first.tolist(), second.tolist()
    ([-1.0], [-0.5])
    """

    def init(params: optax.Params) -> RatedState:
        if callable(rate):
            found = jax.vmap(rate)(jnp.arange(steps, dtype=jnp.int32))
            rates = jnp.asarray(found, jnp.float32)
        else:
            rates = jnp.full((), rate, jnp.float32)
        inner = make(learning_rate=_at(rates, 0)).init(params)
        return RatedState(rates, jnp.zeros((), jnp.int32), inner)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, RatedState]:
        assert isinstance(state, RatedState)
        optimizer = make(learning_rate=_at(state.rates, state.step))
        updates, inner = optimizer.update(updates, state.inner, params)
        return updates, RatedState(state.rates, state.step + 1, inner)

    return optax.GradientTransformation(init, update)


def _at(rates: Array, step: Array | int) -> Array:
    return rates if rates.ndim == 0 else rates[step]
