"""Batch normalisation: one mean and variance a channel, shared by the examples of a batch."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.frozen import as_frozen
from normlab.ops.affine import per_channel, require_eps, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import (
    Moments,
    ShapeError,
    Sharing,
    pool,
    statistics_dtype,
    synchronise,
)
from normlab.ops.normalise import normalise
from normlab.ops.running import Running
from normlab.sharding import on_any_mesh


@on_any_mesh
def batch_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    mean: Array | None = None,
    variance: Array | None = None,
    eps: float = 1e-5,
    mask: Array | None = None,
    norm_batch: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Subtract each channel's mean and divide by its deviation (Ioffe & Szegedy 2015).

    Args:
        x: `(N, ..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        mean, variance: `(C,)`, both or neither: statistics to use (evaluation). Without them they
            are those of `x` (training).
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.
        norm_batch: how many consecutive examples share statistics; None for all. See `BatchNorm`.
        axis_name: a mapped axis whose shards share the statistics too.

    Raises:
        ShapeError: a channel has one value only, `norm_batch` does not divide N, or a shape does
            not fit.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0], [3.0]])
    >>> batch_norm(x).round(3).tolist()
    [[-1.0], [1.0]]
    >>> batch_norm(x, mean=jnp.array([1.0]), variance=jnp.array([4.0])).round(3).tolist()
    [[0.0], [1.0]]
    """
    require_eps(eps)
    if (mean is None) != (variance is None):
        raise ShapeError("give both mean and variance, or neither")
    if mean is None or variance is None:
        return normalise_batch(x, scale, bias, eps, mask, norm_batch, axis_name)[0]
    z = _standardise_with(x, mean, variance, eps, mask)
    return scale_and_shift(z, x, scale, bias, mask)


@normaliser(
    paper="arXiv:1502.03167",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
    affine_in_evaluation=True,
    keeps_moments=True,
    group="batch",
    aka=("BN", "BatchNorm", "SyncBN (axis_name)", "ghost batch norm (norm_batch)"),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class BatchNorm(Running):
    """Batch normalisation, with running statistics for evaluation.

    The state is the running `mean` and `variance` of each channel, zero and one at first. A step
    moves them by `new = momentum * old + (1 - momentum) * batch`; a step whose mask leaves fewer
    than two values in a channel leaves that channel's as they were.

    Attributes:
        momentum: the weight of the OLD running value, in [0, 1]. 0.9 here is 0.1 in torch.
        norm_batch: how many consecutive examples share statistics ("ghost" batches); None for
            all that one call sees. The running statistics are those of the whole call, the spread
            between groups included. With gradient accumulation a call sees one microbatch, so a
            `norm_batch` that divides it makes the result independent of the accumulation.
        axis_name: a mapped axis (`shard_map`, `vmap`) over which statistics are synchronised.
            Under `jit` with a sharded batch they are so by themselves, on a mesh with automatic
            axes as with explicit ones; `tests/norms/test_sharding.py` holds every entry to that.
            With `axis_name` and `norm_batch` the groups lie inside a shard, and the running
            statistics alone are synchronised.
        unbiased_running_variance: divide the running variance by count - 1, as torch does. The
            normalisation itself always divides by the count. Microbatches then each divide by
            their own count - 1, so the running variance depends slightly on the accumulation.

    >>> import jax.numpy as jnp
    >>> norm = BatchNorm(momentum=0.5)
    >>> params, state = norm.init(features=1)
    >>> y, state = norm.apply(params, state, jnp.array([[1.0], [3.0]]), train=True)
    >>> y.round(3).tolist(), state["mean"].tolist(), state["variance"].tolist()
    ([[-1.0], [1.0]], [1.0], [1.0])
    """

    norm_batch: int | None = None
    unbiased_running_variance: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_norm_batch(self.norm_batch)

    frozen = as_frozen

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        affine = params.get("scale"), params.get("bias")
        if train:
            y, moments = normalise_batch(
                x, *affine, self.eps, mask, self.norm_batch, self.axis_name
            )
            return y, self.moved(state, moments)
        z = _standardise_with(x, state["mean"], state["variance"], self.eps, mask)
        return scale_and_shift(z, x, *affine, mask), state

    def statistics(self, moments: Moments) -> State:
        unbiased = self.unbiased_running_variance
        variance = moments.unbiased_variance if unbiased else moments.variance
        return {"mean": moments.mean, "variance": variance}


def normalise_batch(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    eps: float,
    mask: Array | None,
    norm_batch: int | None,
    axis_name: str | None,
    channel_groups: int | None = None,
) -> tuple[Array, Moments]:
    """Return the normalised batch, and the moments of the whole of it, shape `(1, ..., 1, C)`."""
    if x.ndim < 2:
        raise ShapeError(
            f"batch_norm needs a batch axis and a channel axis, got shape {x.shape}; under vmap "
            "over examples, leave the batch axis unmapped or give axis_name"
        )
    if norm_batch is None:
        sharing = Sharing(tuple(range(x.ndim - 1)), channel_groups)
        return normalise(x, sharing, scale, bias, eps=eps, mask=mask, axis_name=axis_name)

    require_norm_batch(norm_batch)
    if x.shape[0] % norm_batch:
        raise ShapeError(
            f"norm_batch={norm_batch} does not divide the {x.shape[0]} examples of this call; "
            "choose a divisor, or drop the incomplete last batch"
        )

    def in_groups(values: Array) -> Array:
        return values.reshape(values.shape[0] // norm_batch, norm_batch, *values.shape[1:])

    if mask is not None:
        mask = in_groups(fit_mask(mask, x))
    sharing = Sharing(tuple(range(1, x.ndim)), channel_groups)
    y, moments = normalise(in_groups(x), sharing, scale, bias, eps=eps, mask=mask)
    moments = pool(moments, axis=0)
    if axis_name is not None:
        moments = synchronise(moments, axis_name)
    return y.reshape(x.shape), moments


def require_norm_batch(norm_batch: int | None) -> None:
    """Raise `FieldError` unless it can be how many examples share statistics."""
    positive = norm_batch is None or norm_batch >= 1
    require_field(positive, "norm_batch", norm_batch, "a positive whole number or null")


def _standardise_with(
    x: Array, mean: Array, variance: Array, eps: float, mask: Array | None
) -> Array:
    x = zero_masked(x if jnp.iscomplexobj(x) else x.astype(statistics_dtype(x)), mask)
    mean, variance = per_channel("mean", mean, x), per_channel("variance", variance, x.real)
    return (x - mean) * lax.rsqrt(variance + eps).astype(x.dtype)
