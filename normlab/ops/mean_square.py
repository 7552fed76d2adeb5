"""Divides by a running mean square, with a backward that running products steady.

The gradient of `y = x / sqrt(mean(x^2))` is `(g - y * mean(g y)) / sqrt(mean(x^2))`: a batch enters
by two statistics, one of the forward and one of the backward. Power normalisation and moving
average batch normalisation put averages over steps in the place of both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, State
from normlab.errors import require_field
from normlab.ops.affine import per_channel
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import ShapeError, shared_mean, statistics_dtype, subtract_mean
from normlab.ops.running import Running, counted, over_batch

Rule = Callable[[Array, Array, Array, Array], tuple[Array, Array]]
"""(memory, steps, the batch's mean of g y, its mean of y^2), each per channel, -> (what stands for
the mean of g y, the next memory)."""


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def divided(
    rule: Rule,
    axis_name: str | None,
    x: Array,
    root: Array,
    memory: Array,
    steps: Array,
    keep: Array | None,
    moves: Array,
) -> Array:
    """Compute `x / root`; the gradient of `memory` is its next value (`Facts.backward_state`).

    A channel that is not in `moves`, or that has a mean which is not finite, keeps its own.
    """
    return x / root


def _forward(rule, axis_name, x, root, memory, steps, keep, moves):  # type: ignore[no-untyped-def]
    return x / root, (x, root, memory, steps, keep, moves)


def _backward(rule, axis_name, kept, g):  # type: ignore[no-untyped-def]
    x, root, memory, steps, keep, moves = kept
    sharing = over_batch(x)

    def mean(values: Array) -> Array:
        return shared_mean(values, sharing, mask=keep, axis_name=axis_name).reshape(-1)

    # Sums of products of what lies in memory: on a CPU those of g * (x / root) are slower.
    r = root.reshape(-1)
    means = mean(g * x) / r, mean(x**2) / r**2
    product, after = rule(memory, steps, *means)
    moves = moves & jnp.isfinite(means[0]) & jnp.isfinite(means[1])
    memory = jnp.where(moves.reshape((1,) * (memory.ndim - 1) + (-1,)), after, memory)
    product = per_channel("product", product, x)
    dx = (g - product * (x / root)) / root
    nothing = [jnp.zeros(m.shape, jax.dtypes.float0) for m in (keep, moves) if m is not None]
    nothing = nothing if keep is not None else [None, *nothing]
    return dx, jnp.zeros_like(root), memory, jnp.zeros_like(steps), *nothing


divided.defvjp(_forward, _backward)


@dataclass(frozen=True, kw_only=True)
class Quadratic(Running):
    """The fields and the statistics of a normaliser that divides by a running mean square.

    Attributes:
        warm_up: steps that use the batch's own statistics.
    """

    warm_up: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = "a whole number of at least 0"
        require_field(self.warm_up >= 0, "warm_up", self.warm_up, allowed)

    def pool(self, states: State) -> State:
        """Average over microbatches."""
        pooled = {name: leaf.mean(axis=0) for name, leaf in states.items()}
        return {**pooled, "steps": states["steps"].max(axis=0)}

    def batch_mean_square(self, x: Array, keep: Array | None) -> tuple[Array, Array]:
        """Return the batch's mean square, `(C,)`, and which channels it may move."""
        sharing = over_batch(x)
        if sharing.size(x.shape) == 1:
            raise ShapeError(
                f"an input of shape {x.shape} leaves one value to take a mean square of: use a "
                "larger batch or image"
            )
        _, found = subtract_mean(x, sharing, mask=keep, axis_name=self.axis_name, about_zero=True)
        square = lax.stop_gradient(found.variance.reshape(-1))
        return square, counted({"mean_square": square}, found.count)

    def moved_by(self, running: Array, new: Array, moves: Array) -> Array:
        """Move the running value one step further, in the channels that move."""
        mixed = self.momentum * running + (1 - self.momentum) * new.astype(running.dtype)
        return jnp.where(moves, mixed, running)

    def root(self, mean_square: Array, z: Array) -> Array:
        """Return the divisor, ready to broadcast to `z`."""
        return jnp.sqrt(per_channel("mean_square", mean_square, z) + self.eps)


def prepared(x: Array, mask: Array | None) -> tuple[Array, Array | None]:
    """Return the input in the precision of statistics, zero where masked, and its mask."""
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    return z, None if mask is None else fit_mask(mask, x)
