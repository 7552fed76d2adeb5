"""Batch normalisation by its running statistics, of which the gradient sees the newest batch."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.normalise import centre
from normlab.ops.running import Running, counted, less_running, over_batch


@normaliser(
    paper="equinox.nn.BatchNorm, its mode 'ema'",
    uses_batch=True,
    affine_in_evaluation=True,
    keeps_moments=True,
    group="batch",
    after=("batch_norm",),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class AveragedBatchNorm(Running):
    """Running statistics in training too, with the gradient of the newest batch's share in them.

    A step moves the statistics by `momentum * old + (1 - momentum) * batch`, the first replaces
    them, and then normalises by them. It is what equinox means by batch normalisation unless told
    otherwise. `PopulationNorm` is the same forward in the long run, but no gradient goes through
    its statistics: here a share of `1 - momentum` of batch normalisation's does.

    The state counts, for each channel, the `steps` that moved it: one whose mask leaves fewer than
    two values in a channel leaves that channel's statistics and count as they were.

    >>> import jax.numpy as jnp
    >>> norm = AveragedBatchNorm(momentum=0.5)
    >>> params, state = norm.init(features=1)
    >>> y, state = norm.apply(params, state, jnp.array([[1.0], [3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()], state["mean"].tolist()
    (['-1.00', '1.00'], [2.0])
    >>> y, state = norm.apply(params, state, jnp.array([[5.0], [7.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()], state["mean"].tolist()
    (['1.00', '3.00'], [4.0])
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return params, {**state, "steps": jnp.zeros((features,), jnp.float32)}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        scale, bias = params.get("scale"), params.get("bias")
        if not train:
            z = less_running(x, state["mean"], mask)
            z = z * lax.rsqrt(per_channel("variance", state["variance"], z) + self.eps)
            return scale_and_shift(z, x, scale, bias, mask), state
        centred, batch = centre(x, over_batch(x), mask=mask, axis_name=self.axis_name)
        mean, variance, steps = (
            per_channel(n, state[n], batch.mean) for n in ("mean", "variance", "steps")
        )
        later = jnp.where(steps > 0, self.momentum, 0)
        old = jnp.where(batch.count > 1, later, 1).astype(mean.dtype)
        offset = old * (mean - batch.mean)  # of the new mean from the batch's own
        variance = old * variance + (1 - old) * batch.variance
        new = {"mean": batch.mean + offset, "variance": variance, "steps": steps + 1}
        moves = counted(batch.statistics, batch.count)
        root = lax.rsqrt(variance + self.eps)
        y = centred.times(root, -offset * root, scale=scale, bias=bias)
        return y, {n: jnp.where(moves, _stored(new[n]), state[n]) for n in state}

    def pool(self, states: State) -> State:
        """Pool the states as `BatchNorm` does, with this step's weight of the old values."""
        steps = states["steps"].max(axis=0)
        new = jnp.where(steps > 1, max(1 - self.momentum, 1e-6), 1.0)
        return {
            "mean": states["mean"].mean(axis=0),
            "variance": states["variance"].mean(axis=0) + states["mean"].var(axis=0) / new,
            "steps": steps,
        }


def _stored(values: Array) -> Array:
    return lax.stop_gradient(values).reshape(-1).astype(jnp.float32)
