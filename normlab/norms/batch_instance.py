"""Batch-instance normalisation: each channel between batch and instance normalisation."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.norms.affine import per_channel, scale_and_shift
from normlab.norms.moments import Sharing, centre, standardise
from normlab.norms.running import Running, less_running, over_batch


@normaliser(
    paper="arXiv:1805.07925",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
)
@dataclass(frozen=True, kw_only=True)
class BatchInstanceNorm(Running):
    """`rho * batch_norm(x) + (1 - rho) * instance_norm(x)`, with a learnt gate for each channel.

    The gate begins at 1, batch normalisation. It is held within [0, 1] where it is used, and its
    gradient passes as if it were not, so that one that was pushed out can come back; the paper
    clips the parameter after each update instead (Nam & Kim 2018).

    >>> import jax.numpy as jnp
    >>> norm = BatchInstanceNorm()
    >>> params, state = norm.init(features=1)
    >>> params["gate"] = jnp.array([0.0])
    >>> y, _ = norm.apply(params, state, jnp.array([[[1.0], [3.0]], [[7.0], [7.0]]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()]
    ['-1.00', '1.00', '0.00', '0.00']
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return {**params, "gate": jnp.ones((features,), jnp.float32)}, state

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        positions = Sharing(axes=tuple(range(1, x.ndim - 1)))
        of_instance, _ = standardise(x, positions, eps=self.eps, mask=mask)
        if train:
            centred, moments = centre(x, over_batch(x), mask=mask, axis_name=self.axis_name)
            variance = moments.variance
            state = self.moved(state, moments)
        else:
            centred = less_running(x, state["mean"], mask)
            variance = per_channel("variance", state["variance"], centred)
        of_batch = centred * lax.rsqrt(variance + self.eps)
        gate = per_channel("gate", params["gate"], of_batch)
        rho = gate + lax.stop_gradient(jnp.clip(gate, 0, 1) - gate)
        z = rho * of_batch + (1 - rho) * of_instance
        return scale_and_shift(z, x, params.get("scale"), params.get("bias"), mask), state
