"""Switchable normalisation: instance, layer and batch statistics, mixed by learnt weights."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import per_channel
from normlab.ops.moments import Sharing, statistics_dtype
from normlab.ops.normalise import centre, less_given
from normlab.ops.running import Running, over_batch

KINDS = 3
"""Instance, layer (over the whole example) and batch statistics, in this order."""


@normaliser(
    paper="arXiv:1806.10779",
    uses_batch=True,
    group="batch and example",
    after=("batch_norm", "layer_norm", "instance_norm"),
    aka=("SN",),
)
@dataclass(frozen=True, kw_only=True)
class SwitchableNorm(Running):
    """`(x - sum_k w_k mean_k) / sqrt(sum_k v_k variance_k + eps)` over instance, layer and batch.

    `w` and `v` are softmaxes of the parameters `mean_weights` and `variance_weights`, `(3,)` each
    and one for the whole layer; they begin alike (Luo et al. 2018). Evaluation has the running
    statistics for the batch's (the authors offer averages over batches afterwards instead). All
    variances are biased, as in the paper; the authors' code divides the instance variance by one
    less. An input needs positions.

    It costs more than batch normalisation, because it takes three sets of statistics and trains
    their weights.

    >>> import jax.numpy as jnp
    >>> norm = SwitchableNorm()
    >>> params, state = norm.init(features=1)
    >>> y, _ = norm.apply(params, state, jnp.array([[[1.0], [3.0]]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()]
    ['-1.00', '1.00']
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return {
            **params,
            "mean_weights": jnp.ones((KINDS,), jnp.float32),
            "variance_weights": jnp.ones((KINDS,), jnp.float32),
        }, state

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        positions, example = tuple(range(1, x.ndim - 1)), tuple(range(1, x.ndim))
        wide = x.astype(statistics_dtype(x))
        of_instance, instance = centre(wide, Sharing(positions), mask=mask)
        of_layer, layer = centre(wide, Sharing(example), mask=mask)
        if train:
            of_batch, batch = centre(wide, over_batch(x), mask=mask, axis_name=self.axis_name)
            batch_variance = batch.variance
            state = self.moved(state, batch)
        else:
            of_batch = less_given(wide, state["mean"], state["variance"], mask=mask)
            batch_variance = per_channel("variance", state["variance"], wide)

        w, v = (
            jax.nn.softmax(params[name].astype(wide.dtype))
            for name in ("mean_weights", "variance_weights")
        )
        variance = v[0] * instance.variance + v[1] * layer.variance + v[2] * batch_variance
        root = lax.rsqrt(variance + self.eps)
        scale, bias = params.get("scale"), params.get("bias")
        # The weights sum to one, so x less the mixed mean is the mixture of x less each.
        y = of_instance.times(w[0] * root, scale=scale, bias=bias)
        y = y + of_layer.times(w[1] * root, scale=scale) + of_batch.times(w[2] * root, scale=scale)
        return y.astype(x.dtype), state
