"""Normality normalisation: a power transform, and noise, after a normaliser.

A normaliser gives mean 0 and variance 1, and leaves the shape of the distribution. The power
transform of Yeo & Johnson (2000), with one number for each set of values that share statistics,
brings it nearer to a normal distribution (Eftekhari & Papyan 2025). The number is the one of the
greatest likelihood as far as one step of Newton's from 1, the identity, finds it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.group import require_divisor
from normlab.ops.affine import PerExample, per_channel, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import Sharing, shared_mean, statistics_dtype
from normlab.ops.normalise import less_given, normalise
from normlab.ops.running import Running, move, over_batch

NEAR_ZERO = 1e-3
"""Exponents below are taken by a series: what is left out is of their third power."""


def power_transform(h: Array, power: Array) -> Array:
    """Compute Yeo & Johnson's transform of `h`, which broadcasts with `power`.

    >>> [f"{y:.4f}" for y in power_transform(jnp.array([3.0, -3.0]), jnp.array([0.0, 1.0]))]
    ['1.3863', '-3.0000']
    """
    sign = jnp.where(h < 0, -1.0, 1.0).astype(h.dtype)
    log = jnp.log1p(sign * h)
    exponent = 1 + sign * (power - 1)
    near = jnp.abs(exponent) < NEAR_ZERO
    whole = jnp.expm1(jnp.where(near, 1, exponent) * log) / jnp.where(near, 1, exponent)
    series = log * (1 + exponent * log / 2 + (exponent * log) ** 2 / 6)
    return sign * jnp.where(near, series, whole)


def likeliest_power(
    h: Array,
    sharing: Sharing,
    *,
    eps: float,
    mask: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """Find the power that makes standardised values most likely normal, by a step of Newton's.

    Args:
        h: values of mean 0 and variance 1 over what is shared, zero where masked.
        sharing: which elements share a power.
        eps: its root is added to the second derivative of the likelihood.
        mask: True where an element counts.
        axis_name: a mapped axis whose shards share the power too.

    Returns:
        The power, shaped as `h` but with size 1 at each of the shared axes.
    """
    mean = _mean_over(sharing, mask, axis_name)
    sign = jnp.where(h < 0, -1.0, 1.0).astype(h.dtype)
    size = sign * h
    log = jnp.log1p(size)
    slope = (1 + size) * log - size  # of the transform, by the power, at the identity
    curve = sign * ((1 + size) * log**2 - 2 * slope)
    first = mean(h * slope) - mean(sign * log)
    off = zero_masked(slope - mean(slope), mask)
    second = mean(h * curve + off**2) - 2 * mean(h * slope) ** 2
    return 1 - first / (second + eps**0.5)


def with_noise(
    y: Array,
    sharing: Sharing,
    noise: float,
    rng: Array | None,
    mask: Array | None,
    axis_name: str | None = None,
) -> Array:
    """Add normal noise of `noise` times the mean distance from the mean; none without a key."""
    if rng is None or noise == 0:
        return y
    mean = _mean_over(sharing, mask, axis_name)
    given = lax.stop_gradient(y)
    distance = mean(jnp.abs(given - mean(given)))
    return y + jax.random.normal(rng, y.shape, y.dtype) * (noise * distance)


def _mean_over(
    sharing: Sharing, mask: Array | None, axis_name: str | None
) -> Callable[[Array], Array]:
    """Return the function that takes the mean of what is shared and counts."""

    def mean(values: Array) -> Array:
        return shared_mean(zero_masked(values, mask), sharing, mask=mask, axis_name=axis_name)

    return mean


@dataclass(frozen=True, kw_only=True)
class _OfExample(PerExample):
    """Normality normalisation by statistics of one example.

    Attributes:
        noise: the deviation of the noise in training, in units of the mean distance from the
            mean. It needs a key, which a model with dropout has.
    """

    noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.noise >= 0, "noise", self.noise, "a number of at least 0")

    def sharing(self, x: Array) -> Sharing:
        """Return which elements share statistics."""
        raise NotImplementedError

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return self.with_key(x, scale, bias, mask, None)

    def with_key(
        self,
        x: Array,
        scale: Array | None,
        bias: Array | None,
        mask: Array | None,
        rng: Array | None,
    ) -> Array:
        """Normalise, transform, and add noise if there is a key."""
        over, keep = self.sharing(x), None if mask is None else fit_mask(mask, x)
        wide = x.astype(statistics_dtype(x))
        h, _ = normalise(wide, over, None, None, eps=self.eps, mask=keep)
        y = power_transform(h, likeliest_power(h, over, eps=self.eps, mask=keep))
        y = with_noise(y, over, self.noise, rng, keep)
        return scale_and_shift(zero_masked(y, keep), x, scale, bias, keep)

    def apply(
        self,
        params: Params,
        state: State,
        x: Array,
        *,
        train: bool,
        mask: Array | None = None,
        rng: Array | None = None,
    ) -> tuple[Array, State]:
        """Apply it as every normaliser; `rng` is a key for the noise, and there is none without."""
        scale, bias = params.get("scale"), params.get("bias")
        return self.with_key(x, scale, bias, mask, rng if train else None), state


@normaliser(
    paper="arXiv:2505.00685",
    invariant_to=("position scale", "position shift"),
    group="example",
    after=("layer_norm",),
    aka=("LayerNormalNorm", "LNN"),
    held_to="code",
)
@dataclass(frozen=True, kw_only=True)
class NormalityLayerNorm(_OfExample):
    """Layer normalisation, and a power transform of each position's channels towards normality.

    >>> import jax.numpy as jnp
    >>> norm = NormalityLayerNorm()
    >>> y, _ = norm.apply(*norm.init(features=3), jnp.array([[0.0, 0.0, 3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y[0]]
    ['-1.15', '-1.15', '0.69']
    """

    def sharing(self, x: Array) -> Sharing:
        return Sharing((x.ndim - 1,))


@normaliser(
    paper="arXiv:2505.00685",
    invariant_to=("example scale", "example shift"),
    group="example",
    after=("group_norm",),
    aka=("GroupNormalNorm", "GNN", "InstanceNormalNorm (as many groups as channels)"),
    held_to="code",
)
@dataclass(frozen=True, kw_only=True)
class NormalityGroupNorm(_OfExample):
    """Group normalisation, and a power transform of each group's values towards normality.

    Attributes:
        groups: into how many equal parts the channels are divided; as many as there are channels
            make it of instance normalisation.

    >>> import jax.numpy as jnp
    >>> norm = NormalityGroupNorm(groups=1)
    >>> y, _ = norm.apply(*norm.init(features=3), jnp.array([[0.0, 0.0, 3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y[0]]
    ['-1.15', '-1.15', '0.69']
    """

    groups: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.groups >= 1, "groups", self.groups, "a positive whole number")

    def init(self, features: int) -> tuple[Params, State]:
        require_divisor(self.groups, features)
        return super().init(features)

    def sharing(self, x: Array) -> Sharing:
        return Sharing(tuple(range(1, x.ndim - 1)), channel_groups=self.groups)


@normaliser(
    paper="arXiv:2505.00685",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
    keeps_moments=True,
    group="batch",
    after=("batch_norm",),
    aka=("BatchNormalNorm", "BNN"),
    held_to="code",
)
@dataclass(frozen=True, kw_only=True)
class NormalityBatchNorm(Running):
    """Batch normalisation, and a power transform of each channel towards normality.

    The state also holds the running `power` of each channel, which evaluation uses.

    Attributes:
        noise: the deviation of the noise in training, in units of the mean distance from the
            mean. It needs a key, which a model with dropout has.

    >>> import jax.numpy as jnp
    >>> norm = NormalityBatchNorm()
    >>> x = jnp.array([[0.0], [0.0], [3.0]])
    >>> y, state = norm.apply(*norm.init(features=1), x, train=True)
    >>> [f"{value:.2f}" for value in y.ravel()], sorted(state)
    (['-1.15', '-1.15', '0.69'], ['mean', 'power', 'variance'])
    """

    noise: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.noise >= 0, "noise", self.noise, "a number of at least 0")

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return params, {**state, "power": jnp.ones((features,), jnp.float32)}

    def apply(
        self,
        params: Params,
        state: State,
        x: Array,
        *,
        train: bool,
        mask: Array | None = None,
        rng: Array | None = None,
    ) -> tuple[Array, State]:
        """Apply it as every normaliser; `rng` is a key for the noise, and there is none without."""
        keep = None if mask is None else fit_mask(mask, x)
        wide = x.astype(statistics_dtype(x))
        if train:
            over, shards = over_batch(x), self.axis_name
            h, moments = normalise(
                wide, over, None, None, eps=self.eps, mask=keep, axis_name=shards
            )
            power = likeliest_power(h, over, eps=self.eps, mask=keep, axis_name=shards)
            y = with_noise(power_transform(h, power), over, self.noise, rng, keep, shards)
            batch = {**self.statistics(moments), "power": power}
            state = move(state, batch, moments.count, self.momentum)
        else:
            centred = less_given(wide, state["mean"], state["variance"], mask=keep)
            variance = per_channel("variance", state["variance"], wide)
            h = centred.times(lax.rsqrt(variance + self.eps))
            y = power_transform(h, per_channel("power", state["power"], wide))
        y = zero_masked(y, keep)
        return scale_and_shift(y, x, params.get("scale"), params.get("bias"), keep), state
