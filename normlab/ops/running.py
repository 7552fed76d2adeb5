"""Keeps running statistics, for the normalisers that learn them from batches."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State
from normlab.errors import require_field
from normlab.ops.affine import Standardiser, per_channel
from normlab.ops.masks import zero_masked
from normlab.ops.moments import Moments, ShapeError, Sharing, statistics_dtype


@dataclass(frozen=True, kw_only=True)
class Running(Standardiser):
    """A normaliser whose state holds the running `mean` and `variance` of each channel.

    Attributes:
        momentum: the weight of the OLD running value, in [0, 1]. 0.9 here is 0.1 in torch.
        axis_name: a mapped axis (`shard_map`, `vmap`) over which statistics are synchronised.
    """

    momentum: float = 0.9
    axis_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(0 <= self.momentum <= 1, "momentum", self.momentum, "between 0 and 1")

    def init(self, features: int) -> tuple[Params, State]:
        params, _ = super().init(features)
        return params, {
            "mean": jnp.zeros((features,), jnp.float32),
            "variance": jnp.ones((features,), jnp.float32),
        }

    def moved(self, state: State, moments: Moments) -> State:
        """Return `state` with its mean and variance one step further."""
        return {**state, **move(state, self.statistics(moments), moments.count, self.momentum)}

    def statistics(self, moments: Moments) -> State:
        """Return the statistics whose averages are kept: the batch's mean and biased variance."""
        return moments.statistics

    def pool(self, states: State) -> State:
        """Return the state after a step whose equal microbatches ended in `states` (leading axis).

        The variance of the whole batch is the average of the variances plus the spread of the
        means, which is read off the states; everything else is averaged.
        """
        pooled = jax.tree.map(lambda leaf: leaf.mean(axis=0), states)
        if self.momentum < 1:
            pooled["variance"] += states["mean"].var(axis=0) / (1 - self.momentum)
        return pooled


def move(state: State, batch: State, count: Array, momentum: Array | float) -> State:
    """Compute `momentum * old + (1 - momentum) * new` for each leaf of `batch`, without a gradient.

    A channel that is not `counted` stays as it was. A mean of complex numbers makes its leaf
    complex.
    """
    moves = counted(batch, count)

    def one(old: Array, new: Array) -> Array:
        new = lax.stop_gradient(new).reshape(old.shape)
        if jnp.iscomplexobj(new):
            old = old.astype(new.dtype)
        new = new.astype(old.dtype)
        return jnp.where(moves, momentum * old + (1 - momentum) * new, old)

    return {name: one(state[name], new) for name, new in batch.items()}


def counted(batch: State, count: Array) -> Array:
    """Return which channels have statistics that may move a state, `(C,)`.

    Those of which two values or more were counted, and of which every statistic is finite.

    >>> batch = {"mean": jnp.array([0.0, jnp.nan, 0.0])}
    >>> counted(batch, jnp.array([2.0, 2.0, 1.0])).tolist()
    [True, False, False]
    """
    found = count.reshape(-1) > 1
    for statistic in batch.values():
        found = found & jnp.isfinite(statistic.reshape(-1))
    return lax.stop_gradient(found)


def over_batch(x: Array) -> Sharing:
    """Share one statistic a channel over the whole batch.

    Raises:
        ShapeError: there is no batch axis.
    """
    if x.ndim < 2:
        raise ShapeError(f"a batch axis and a channel axis are needed, got shape {x.shape}")
    return Sharing(axes=tuple(range(x.ndim - 1)))


def less_running(x: Array, mean: Array, mask: Array | None) -> Array:
    """Compute `x - mean` of each channel, float32 or wider, finite where masked."""
    x = zero_masked(x.astype(statistics_dtype(x)), mask)
    return x - per_channel("mean", mean, x)
