"""Batch-instance normalisation: each channel between batch and instance normalisation."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import per_channel
from normlab.ops.moments import Sharing, statistics_dtype
from normlab.ops.normalise import centre, less_given
from normlab.ops.running import Running, over_batch


@normaliser(
    paper="arXiv:1805.07925",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
    keeps_moments=True,
    group="batch and example",
    after=("batch_norm", "instance_norm"),
    aka=("BIN",),
)
@dataclass(frozen=True, kw_only=True)
class BatchInstanceNorm(Running):
    """`rho * batch_norm(x) + (1 - rho) * instance_norm(x)`, with a learnt gate for each channel.

    The gate begins at 1, batch normalisation. It is held within [0, 1] where it is used, and its
    gradient passes as if it were not, so that one that was pushed out can come back; the paper
    clips the parameter after each update instead (Nam & Kim 2018).

    It costs more than batch normalisation, because it takes two sets of statistics and a gate
    between them.

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
        wide = x.astype(statistics_dtype(x))
        of_instance, instance = centre(wide, Sharing(tuple(range(1, x.ndim - 1))), mask=mask)
        if train:
            of_batch, moments = centre(wide, over_batch(x), mask=mask, axis_name=self.axis_name)
            variance = moments.variance
            state = self.moved(state, moments)
        else:
            of_batch = less_given(wide, state["mean"], state["variance"], mask=mask)
            variance = per_channel("variance", state["variance"], wide)
        gate = per_channel("gate", params["gate"], wide)
        rho = gate + lax.stop_gradient(jnp.clip(gate, 0, 1) - gate)
        scale, bias = params.get("scale"), params.get("bias")
        y = of_batch.times(rho * lax.rsqrt(variance + self.eps), scale=scale, bias=bias)
        y = y + of_instance.times((1 - rho) * lax.rsqrt(instance.variance + self.eps), scale=scale)
        return y.astype(x.dtype), state
