"""Batch and group normalisation together, in the two senses that this has."""

from dataclasses import dataclass

from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.affine import per_channel, scale_and_shift
from normlab.norms.group import require_divisor
from normlab.norms.moments import Sharing, centre
from normlab.norms.running import Running, less_running, over_batch


@dataclass(frozen=True, kw_only=True)
class _Grouped(Running):
    """Attributes:
    groups: into how many equal parts the channels are divided.
    """

    groups: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.groups >= 1, "groups", self.groups, "a positive whole number")

    def init(self, features: int) -> tuple[Params, State]:
        require_divisor(self.groups, features)
        return super().init(features)


@normaliser(paper="arXiv:2012.00782", uses_batch=True)
@dataclass(frozen=True, kw_only=True)
class BatchGroupNorm(_Grouped):
    """One mean and variance for each group of channels, over all examples and positions.

    With as many groups as channels it is batch normalisation; with one example, group
    normalisation. Compare `MixedBatchGroupNorm`, which has statistics of both kinds.

    Attributes:
        groups: into how many equal parts the channels are divided.

    >>> import jax.numpy as jnp
    >>> norm = BatchGroupNorm(groups=1)
    >>> y, _ = norm.apply(*norm.init(features=2), jnp.array([[1.0, 1.0], [3.0, 3.0]]), train=True)
    >>> [f"{value:.1f}" for value in y.ravel()]
    ['-1.0', '-1.0', '1.0', '1.0']
    """

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        if train:
            sharing = Sharing(over_batch(x).axes, channel_groups=self.groups)
            centred, moments = centre(x, sharing, mask=mask, axis_name=self.axis_name)
            variance = moments.variance
            state = self.moved(state, moments)
        else:
            centred = less_running(x, state["mean"], mask)
            variance = per_channel("variance", state["variance"], centred)
        z = centred * lax.rsqrt(variance + self.eps)
        return scale_and_shift(z, x, params.get("scale"), params.get("bias"), mask), state


@normaliser(paper="arXiv:1906.03548, section 3.4", uses_batch=True)
@dataclass(frozen=True, kw_only=True)
class MixedBatchGroupNorm(_Grouped):
    """Batch statistics and group statistics, mixed as if their values had been pooled.

    `weight` is the share of the batch's in the mean and in the mean square, so the mixed variance
    holds the distance between the two means (Summers & Dinneen 2020, for very small batches).
    Evaluation has the running statistics for the batch's, and the example's own for the group's.

    Attributes:
        groups: into how many equal parts the channels are divided.
        weight: the share of the batch statistics, in [0, 1].

    >>> import jax.numpy as jnp
    >>> norm = MixedBatchGroupNorm(groups=1)
    >>> y, _ = norm.apply(*norm.init(features=2), jnp.array([[1.0, 1.0], [3.0, 5.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()]
    ['-0.58', '-0.58', '0.00', '0.90']
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(0 <= self.weight <= 1, "weight", self.weight, "between 0 and 1")

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        in_example = Sharing(tuple(range(1, x.ndim - 1)), channel_groups=self.groups)
        of_group, group = centre(x, in_example, mask=mask)
        if train:
            of_batch, batch = centre(x, over_batch(x), mask=mask, axis_name=self.axis_name)
            batch_variance = batch.variance
            state = self.moved(state, batch)
        else:
            of_batch = less_running(x, state["mean"], mask)
            batch_variance = per_channel("variance", state["variance"], of_batch)
        z = mixture(of_batch, batch_variance, of_group, group.variance, self.weight, self.eps)
        return scale_and_shift(z, x, params.get("scale"), params.get("bias"), mask), state


def mixture(
    one: Array,
    variance_of_one: Array,
    other: Array,
    variance_of_other: Array,
    weight: float,
    eps: float,
) -> Array:
    """The input standardised by the pooled moments of two populations.

    Args:
        one, other: the input less the mean of each.
        variance_of_one, variance_of_other: theirs, broadcastable.
        weight: the share of `one`.
        eps: added to the variance.
    """
    centred = weight * one + (1 - weight) * other
    apart = one - other  # the means', which lie inside the pooled variance
    variance = weight * variance_of_one + (1 - weight) * variance_of_other
    return centred * lax.rsqrt(variance + weight * (1 - weight) * apart**2 + eps)
