"""Population normalisation: running statistics in training, as if they were given."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.normalise import centre
from normlab.ops.running import Running, counted, less_running, move, over_batch


@normaliser(
    paper="arXiv:1809.00846",
    uses_batch=True,
    affine_in_evaluation=True,
    keeps_moments=True,
    group="batch",
    after=("batch_norm",),
    aka=("PN",),
)
@dataclass(frozen=True, kw_only=True)
class PopulationNorm(Running):
    """Batch normalisation by running statistics, through which no gradient goes.

    What is left of batch normalisation without the noise of its batches: Luo et al. (2019) show
    that, to first order, batch normalisation is this and a decay of the scale; give the decay by
    `decay: {rate: ..., roles: [norm]}` in a config (the bias then decays too). `FrozenBatchNorm`
    also normalises by given statistics, which never move.

    The statistics are those that the step's own batch has just moved. The first steps weigh all
    batches alike (the old value has the weight `min(momentum, t / (t + 1))` at step t), so the
    first is normalised by itself and not by zeros and ones. The state counts, for each channel, the
    `steps` that moved it.

    >>> import jax.numpy as jnp
    >>> norm = PopulationNorm()
    >>> params, state = norm.init(features=1)
    >>> _, state = norm.apply(params, state, jnp.array([[1.0], [3.0]]), train=True)
    >>> _, state = norm.apply(params, state, jnp.array([[3.0], [5.0]]), train=True)
    >>> state["mean"].tolist(), state["variance"].tolist()
    ([3.0], [1.0])
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return params, {**state, "steps": jnp.zeros((features,), jnp.float32)}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        scale, bias = params.get("scale"), params.get("bias")
        if train:
            centred, moments = centre(x, over_batch(x), mask=mask, axis_name=self.axis_name)
            batch, old = moments.statistics, self._weight_of_old(state["steps"])
            steps = state["steps"] + counted(batch, moments.count).astype(jnp.float32)
            state = {**move(state, batch, moments.count, old), "steps": steps}
            # x less the new mean, through the batch's own, so that a large mean costs no digits.
            mean, variance = lax.stop_gradient((moments.mean, moments.variance))
            offset = mean - per_channel("mean", state["mean"], mean)
            moved = per_channel("variance", state["variance"], mean)
            root = lax.rsqrt(jnp.where(jnp.isfinite(variance), moved, variance) + self.eps)
            y = centred.detached().times(root, offset * root, scale=scale, bias=bias)
            return y, state
        z = less_running(x, state["mean"], mask)
        z = z * lax.rsqrt(per_channel("variance", state["variance"], z) + self.eps)
        return scale_and_shift(z, x, scale, bias, mask), state

    def pool(self, states: State) -> State:
        """Pool the states as `BatchNorm` does, with this step's weight of the old values."""
        steps = states["steps"].max(axis=0)
        new = 1 - self._weight_of_old(jnp.maximum(steps - 1, 0))
        spread = states["mean"].var(axis=0) / jnp.maximum(new, 1e-6)
        return {
            "mean": states["mean"].mean(axis=0),
            "variance": states["variance"].mean(axis=0) + spread,
            "steps": steps,
        }

    def _weight_of_old(self, steps: Array) -> Array:
        return jnp.minimum(self.momentum, steps / (steps + 1))
