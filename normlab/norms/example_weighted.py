"""Batch normalisation that weighs the example in at inference."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.moments import Sharing, statistics_dtype
from normlab.ops.normalise import centre, normalise
from normlab.ops.overflow import unless_overflowed
from normlab.ops.running import Running, less_running, over_batch


@normaliser(
    paper="arXiv:1906.03548, section 3.1",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
    keeps_moments=True,
    group="batch and example",
    after=("batch_norm",),
    aka=("inference example weighing",),
)
@dataclass(frozen=True, kw_only=True)
class ExampleWeightedBatchNorm(Running):
    """Batch normalisation in training; in evaluation the example counts among the statistics.

    In training an example is part of its own statistics and in evaluation it is not; here mean and
    mean square are `weight` times the example's own and `1 - weight` times the running ones
    (Summers & Dinneen 2020). Nothing is trained differently: a trained `BatchNorm` of the same
    momentum may be evaluated so, with a weight chosen on held-out examples. An example without
    positions is its own mean, and has a variance of zero. (The authors keep a running mean square;
    here it is the running variance plus the square of the running mean, which leaves out how the
    mean moved between steps.)

    Attributes:
        weight: the example's share, in [0, 1]; zero is batch normalisation.

    >>> import jax.numpy as jnp
    >>> norm = ExampleWeightedBatchNorm(weight=1.0)
    >>> params, state = norm.init(features=1)
    >>> y, _ = norm.apply(params, state, jnp.array([[[1.0], [3.0]]]), train=False)
    >>> [f"{value:.2f}" for value in y.ravel()]
    ['-1.00', '1.00']
    """

    weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(0 <= self.weight <= 1, "weight", self.weight, "between 0 and 1")

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        scale, bias = params.get("scale"), params.get("bias")
        if train:
            over, eps = over_batch(x), self.eps
            y, moments = normalise(
                x, over, scale, bias, eps=eps, mask=mask, axis_name=self.axis_name
            )
            return y, self.moved(state, moments)
        running = less_running(x, state["mean"], mask)
        variance = per_channel("variance", state["variance"], running)
        own, own_variance = _of_example(x, mask)
        # Pooling the mean squares leaves the distance of the means in the variance.
        w, apart = self.weight, own - running
        pooled = w * own_variance + (1 - w) * variance + w * (1 - w) * apart**2
        z = (w * own + (1 - w) * running) * lax.rsqrt(unless_overflowed(pooled) + self.eps)
        return scale_and_shift(z, x, scale, bias, mask), state


def _of_example(x: Array, mask: Array | None) -> tuple[Array, Array]:
    """Return the example's channels less their means, and their variances, over its positions."""
    positions = Sharing(axes=tuple(range(1, x.ndim - 1)))
    if positions.size(x.shape) == 1:
        nothing = jnp.zeros(x.shape, statistics_dtype(x))
        return nothing, nothing
    own, moments = centre(x, positions, mask=mask)
    return own.values, moments.variance
