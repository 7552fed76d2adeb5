"""L1 batch normalisation: the mean distance from the mean in place of the deviation."""

import math
from dataclasses import dataclass

import jax.numpy as jnp

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.moments import shared_mean
from normlab.ops.normalise import centre
from normlab.ops.overflow import unless_overflowed
from normlab.ops.running import Running, less_running, move, over_batch

OF_A_NORMAL = math.sqrt(math.pi / 2)
"""The deviation of a normal distribution over its mean absolute deviation."""


@normaliser(
    paper="arXiv:1803.01814, arXiv:1802.09769",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
    affine_in_evaluation=True,
    eps_is="added",
    group="batch",
    after=("batch_norm",),
    aka=("L1-BN",),
)
@dataclass(frozen=True, kw_only=True)
class L1BatchNorm(Running):
    """`(x - mean) / (sqrt(pi / 2) * mean |x - mean| + eps)` of each channel over the batch.

    No squares and no roots, for low precision (Hoffer et al. 2018). The factor makes it the
    deviation of normal values; Wu et al. (2018) leave it out, which the scale makes up for. `eps`
    is added to the deviation. The state is the running `mean` and `deviation`.

    It costs more than batch normalisation, because the absolute deviations need a second pass
    after the mean.

    >>> import jax.numpy as jnp
    >>> norm = L1BatchNorm()
    >>> y, _ = norm.apply(*norm.init(features=1), jnp.array([[1.0], [3.0]]), train=True)
    >>> [f"{value:.3f}" for value in y.ravel()]
    ['-0.798', '0.798']
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return params, {"mean": state["mean"], "deviation": state["variance"]}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        scale, bias = params.get("scale"), params.get("bias")
        if train:
            sharing = over_batch(x)
            centred, moments = centre(x, sharing, mask=mask, axis_name=self.axis_name)
            distance = shared_mean(
                jnp.abs(centred.values), sharing, mask=mask, axis_name=self.axis_name
            )
            deviation = OF_A_NORMAL * unless_overflowed(distance)
            batch = {"mean": moments.mean, "deviation": deviation}
            state = {**state, **move(state, batch, moments.count, self.momentum)}
            return centred.times(1 / (deviation + self.eps), scale=scale, bias=bias), state
        z = less_running(x, state["mean"], mask)
        z = z / (per_channel("deviation", state["deviation"], z) + self.eps)
        return scale_and_shift(z, x, scale, bias, mask), state

    def pool(self, states: State) -> State:
        """Average over microbatches, each with distances from its own mean."""
        return {name: leaf.mean(axis=0) for name, leaf in states.items()}
