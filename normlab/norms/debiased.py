"""Batch normalisation whose running statistics owe nothing to where they began."""

import math
from dataclasses import dataclass

import jax.numpy as jnp

from normlab.core import Array, Params, State, normaliser
from normlab.norms.batch import BatchNorm
from normlab.ops.moments import Moments
from normlab.ops.running import counted, move


@normaliser(
    paper="arXiv:1502.03167, its average debiased as in arXiv:1412.6980",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
    affine_in_evaluation=True,
    keeps_moments=True,
    group="batch",
    after=("batch_norm",),
    aka=("zero-debiased or cumulative batch norm",),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class DebiasedBatchNorm(BatchNorm):
    """Batch normalisation with debiased running statistics.

    Training is that of `BatchNorm`. The running statistics are the weighted means of the batches'
    own, in which a batch weighs `momentum` times what the next one does; the zero and one that
    `BatchNorm` begins with have no weight, so the first batch replaces them. It is haiku's average
    (its `zero_debias`), and with `momentum=1`, where all batches weigh alike, torch's cumulative
    one (its `momentum=None`).

    The state counts, for each channel, the `steps` that moved it: one whose mask leaves fewer than
    two values in a channel leaves that channel's statistics and count as they were.

    >>> import jax.numpy as jnp
    >>> norm = DebiasedBatchNorm(momentum=1.0)
    >>> params, state = norm.init(features=1)
    >>> for batch in ([[1.0], [3.0]], [[5.0], [7.0]]):
    ...     y, state = norm.apply(params, state, jnp.array(batch), train=True)
    >>> y.round(3).tolist(), state["mean"].tolist(), state["variance"].tolist()
    ([[-1.0], [1.0]], [4.0], [1.0])
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return params, {**state, "steps": jnp.zeros((features,), jnp.float32)}

    def moved(self, state: State, moments: Moments) -> State:
        batch = self.statistics(moments)
        steps = state["steps"] + counted(batch, moments.count).astype(jnp.float32)
        return {**move(state, batch, moments.count, self._weight_of_old(steps)), "steps": steps}

    def pool(self, states: State) -> State:
        """Pool the states as `BatchNorm` does, with this step's weight of the old values."""
        steps = states["steps"].max(axis=0)
        new = 1 - self._weight_of_old(steps)
        spread = states["mean"].var(axis=0) / jnp.maximum(new, 1e-6)
        return {
            "mean": states["mean"].mean(axis=0),
            "variance": states["variance"].mean(axis=0) + spread,
            "steps": steps,
        }

    def _weight_of_old(self, steps: Array) -> Array:
        """Compute `m (1 - m^(t-1)) / (1 - m^t)` at step t: `(t - 1) / t` as m goes to 1."""
        t = jnp.maximum(steps, 1)
        if self.momentum == 0:
            return jnp.zeros_like(t)
        if self.momentum == 1:
            return (t - 1) / t
        rate = math.log(self.momentum)
        return self.momentum * jnp.expm1((t - 1) * rate) / jnp.expm1(t * rate)
