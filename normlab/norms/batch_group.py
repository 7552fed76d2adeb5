"""Batch-group normalisation: one mean and variance for a group of channels, of several examples."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.batch import normalise_batch, require_norm_batch
from normlab.norms.frozen import as_frozen
from normlab.norms.group import require_divisor
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.moments import Moments, pool
from normlab.ops.running import Running, less_running


@normaliser(
    paper="arXiv:1906.03548, section 3.4; arXiv:2012.02782",
    uses_batch=True,
    affine_in_evaluation=True,
    keeps_moments=True,
    group="batch and example",
    after=("batch_norm", "group_norm"),
    aka=("BGN",),
)
@dataclass(frozen=True, kw_only=True)
class BatchGroupNorm(Running):
    """One mean and variance for each group of channels, over examples and positions together.

    Summers & Dinneen (2020) combine batch and group normalisation so for batches of a few
    examples, with `norm_batch` of them sharing statistics (2, with 32 groups, in their code). No
    statistics are mixed: each is of one larger set of values. With as many groups as channels it
    is batch normalisation, ghost batches included; with a `norm_batch` of 1, group normalisation.

    Zhou et al. (2020) have the same over the whole batch, and also let groups be finer than a
    channel, by cutting its image in parts; that is not here.

    Attributes:
        groups: into how many equal parts the channels are divided.
        norm_batch: how many consecutive examples share statistics; None for all of a call.

    >>> import jax.numpy as jnp
    >>> norm = BatchGroupNorm(groups=1)
    >>> y, _ = norm.apply(*norm.init(features=2), jnp.array([[1.0, 1.0], [3.0, 3.0]]), train=True)
    >>> [f"{value:.1f}" for value in y.ravel()]
    ['-1.0', '-1.0', '1.0', '1.0']
    """

    groups: int = 8
    norm_batch: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.groups >= 1, "groups", self.groups, "a positive whole number")
        require_norm_batch(self.norm_batch)

    def init(self, features: int) -> tuple[Params, State]:
        require_divisor(self.groups, features)
        return super().init(features)

    def share_moments(self, moments: Moments) -> Moments:
        shape = moments.mean.shape
        grouped = (leaf.reshape(*shape[:-1], self.groups, -1) for leaf in moments)
        size = shape[-1] // self.groups
        pooled = pool(Moments(*grouped), axis=-1)
        return Moments(*(jnp.repeat(leaf[..., 0], size, axis=-1) for leaf in pooled))

    frozen = as_frozen

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        affine = params.get("scale"), params.get("bias")
        if train:
            y, moments = normalise_batch(
                x, *affine, self.eps, mask, self.norm_batch, self.axis_name, self.groups
            )
            return y, self.moved(state, moments)
        centred = less_running(x, state["mean"], mask)
        variance = per_channel("variance", state["variance"], centred)
        z = centred * lax.rsqrt(variance + self.eps)
        return scale_and_shift(z, x, *affine, mask), state
