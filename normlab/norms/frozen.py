"""Frozen batch normalisation: given statistics, in training too."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import Standardiser, per_channel
from normlab.ops.moments import statistics_dtype
from normlab.ops.normalise import less_given


def as_frozen(norm: Standardiser) -> "FrozenBatchNorm":
    """Return the frozen counterpart of a normaliser that is batch normalisation in evaluation."""
    return FrozenBatchNorm(
        eps=norm.eps,
        use_scale=norm.use_scale,
        use_bias=norm.use_bias,
        zero_centred=norm.zero_centred,
    )


@normaliser(
    paper="arXiv:1512.03385, appendix A (detectors trained on with fixed statistics)",
    affine_in_evaluation=True,
    keeps_moments=True,
    group="batch",
    after=("batch_norm",),
    aka=("FrozenBN", "FrozenBatchNorm2d"),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class FrozenBatchNorm(Standardiser):
    """Batch normalisation whose statistics stay as they are, in training too.

    The state is that of `BatchNorm`, `mean` and `variance`, zero and one until statistics are put
    there. Scale and bias learn on; to hold them too, as torchvision's `FrozenBatchNorm2d` does,
    leave their gradients out of the optimiser (`optax.masked`).

    "Frozen" is said of three things: of the statistics (this one); of the scale alone, held at one
    while statistics are the batch's (`BatchNorm` with `use_scale: false`); and of statistics that
    move no further but are not used either in training, which is `BatchNorm` with a momentum of 1.

    >>> import jax.numpy as jnp
    >>> norm = FrozenBatchNorm()
    >>> params, _ = norm.init(features=1)
    >>> state = {"mean": jnp.array([1.0]), "variance": jnp.array([4.0])}
    >>> y, after = norm.apply(params, state, jnp.array([[1.0], [3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()], after is state
    (['0.00', '1.00'], True)
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, _ = super().init(features)
        return params, {
            "mean": jnp.zeros((features,), jnp.float32),
            "variance": jnp.ones((features,), jnp.float32),
        }

    def frozen(self) -> "FrozenBatchNorm":
        return self

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        centred = less_given(x, state["mean"], state["variance"], mask=mask)
        variance = per_channel("variance", state["variance"], x.astype(statistics_dtype(x)))
        root = lax.rsqrt(variance + self.eps)
        return centred.times(root, scale=params.get("scale"), bias=params.get("bias")), state
