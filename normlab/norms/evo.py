"""EvoNorm: normaliser and activation in one, found by a search over both."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.group import require_divisor
from normlab.ops.affine import Standardiser, per_channel, scale_and_shift
from normlab.ops.masks import zero_masked
from normlab.ops.moments import Sharing, statistics_dtype
from normlab.ops.normalise import centre
from normlab.ops.running import Running, over_batch


@normaliser(
    paper="arXiv:2004.02967, table 2",
    uses_batch=True,
    fuses_activation=True,
    invariant_to=("channel scale",),
    keeps_moments=True,
    group="fused",
    after=("batch_norm", "instance_norm"),
    aka=("EvoNorm-B0",),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class EvoNormB0(Running):
    """`x / max(sqrt(batch variance + eps), v * x + sqrt(instance variance + eps))`.

    The batch variance is a channel's over the batch, in evaluation the running one; the instance
    variance is a channel's over the positions of the example; `v` is learnt, one a channel, and
    begins at 1 (Liu et al. 2020). No mean is taken away. timm's default `eps` is 1e-3.

    It costs more than batch normalisation, because it takes two variances, and a quotient whose
    larger denominator is chosen at every position.

    >>> import jax.numpy as jnp
    >>> norm = EvoNormB0()
    >>> y, _ = norm.apply(*norm.init(features=1), jnp.array([[[-2.0], [2.0]]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()]
    ['-1.00', '0.50']
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return {**params, "v": jnp.ones((features,), jnp.float32)}, state

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        _, instance = centre(x, Sharing(axes=tuple(range(1, x.ndim - 1))), mask=mask)
        z = zero_masked(x.astype(statistics_dtype(x)), mask)
        if train:
            _, batch = centre(x, over_batch(x), mask=mask, axis_name=self.axis_name)
            variance = batch.variance
            state = self.moved(state, batch)
        else:
            variance = per_channel("variance", state["variance"], z)
        v = per_channel("v", params["v"], z)
        nonlinear = v * z + jnp.sqrt(instance.variance + self.eps)
        y = z / jnp.maximum(jnp.sqrt(variance + self.eps), nonlinear)
        return scale_and_shift(y, x, params.get("scale"), params.get("bias"), mask), state


@normaliser(
    paper="arXiv:2004.02967, table 2",
    fuses_activation=True,
    group="fused",
    after=("group_norm",),
    aka=("EvoNorm-S0",),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class EvoNormS0(Standardiser):
    """`x * sigmoid(v * x) / sqrt(group variance + eps)`.

    The variance is that of a group of channels over the positions of the example, as in group
    normalisation; `v` is learnt, one a channel, and begins at 1 (Liu et al. 2020). No mean is
    taken away. timm's default is 32 groups and an `eps` of 1e-5.

    It costs more than group normalisation, because it holds the activation: a sigmoid at every
    position, and its gradient.

    Attributes:
        groups: into how many equal parts the channels are divided.

    >>> import jax.numpy as jnp
    >>> norm = EvoNormS0(groups=1)
    >>> y, _ = norm.apply(*norm.init(features=2), jnp.array([[-2.0, 2.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()]
    ['-0.12', '0.88']
    """

    groups: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.groups >= 1, "groups", self.groups, "a positive whole number")

    def init(self, features: int) -> tuple[Params, State]:
        require_divisor(self.groups, features)
        params, state = super().init(features)
        return {**params, "v": jnp.ones((features,), jnp.float32)}, state

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        sharing = Sharing(tuple(range(1, x.ndim - 1)), channel_groups=self.groups)
        _, group = centre(x, sharing, mask=mask)
        z = zero_masked(x.astype(statistics_dtype(x)), mask)
        v = per_channel("v", params["v"], z)
        y = z * jax.nn.sigmoid(v * z) * lax.rsqrt(group.variance + self.eps)
        return scale_and_shift(y, x, params.get("scale"), params.get("bias"), mask), state
