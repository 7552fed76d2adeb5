"""Proxy normalisation: activations are normalised by those of a proxy that knows no data."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.group import require_divisor
from normlab.ops.affine import Standardiser, per_channel, scale_and_shift
from normlab.ops.masks import zero_masked
from normlab.ops.moments import Sharing, statistics_dtype
from normlab.ops.normalise import normalise

Activation = Literal["relu", "gelu", "silu"]

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}


@normaliser(
    paper="arXiv:2106.03743",
    fuses_activation=True,
    invariant_to=("example scale", "example shift"),
    group="fused",
    after=("group_norm",),
    aka=("proxy normalization", "LN+PN (one group)", "GN+PN"),
    held_to="code",
)
@dataclass(frozen=True, kw_only=True)
class ProxyGroupNorm(Standardiser):
    """Group normalisation, activation, and division of it by what a normal variable would give.

    `z = f(scale * y + bias)`, where y is the group normalisation; the output is
    `(z - mean Z) / sqrt(variance Z + proxy_eps)`, where `Z = f(scale * Y + bias)` and Y is normal
    with the mean `proxy_mean` and the deviation `1 + proxy_spread`, learnt for each channel from
    zero on. So each channel keeps a mean near 0 and a variance near 1, as batch normalisation
    would keep it, without a batch (Labatie et al. 2021). Statistics of Z are of its quantiles in
    the middles of `samples` equal parts. The authors decay the proxy's two parameters.

    One group is their layer normalisation with proxy normalisation, and as many groups as
    channels is instance normalisation with it.

    Attributes:
        groups: into how many equal parts the channels are divided.
        activation: the activation f, which the model then leaves out.
        proxy_eps: added to the variance of the proxy, 0.03 in the paper.
        samples: of the proxy for each channel; the authors' code takes 200.

    >>> import jax.numpy as jnp
    >>> norm = ProxyGroupNorm(groups=1, proxy_eps=1e-6)
    >>> y, _ = norm.apply(*norm.init(features=2), jnp.array([[1.0, 3.0]]), train=True)
    >>> [f"{value:.1f}" for value in y[0]]
    ['-0.7', '1.0']
    """

    groups: int = 1
    activation: Activation = "relu"
    proxy_eps: float = 0.03
    samples: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.groups >= 1, "groups", self.groups, "a positive whole number")
        require_field(self.proxy_eps > 0, "proxy_eps", self.proxy_eps, "a positive number")
        require_field(self.samples >= 2, "samples", self.samples, "a whole number of at least 2")
        known = ", ".join(ACTIVATIONS)
        require_field(
            self.activation in ACTIVATIONS, "activation", self.activation, f"one of {known}"
        )

    def init(self, features: int) -> tuple[Params, State]:
        require_divisor(self.groups, features)
        params, state = super().init(features)
        proxy = {name: jnp.zeros((features,), jnp.float32) for name in ("mean", "spread")}
        return {**params, **{f"proxy_{name}": leaf for name, leaf in proxy.items()}}, state

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        wide = x.astype(statistics_dtype(x))
        sharing = Sharing(tuple(range(1, x.ndim - 1)), channel_groups=self.groups)
        y, _ = normalise(wide, sharing, None, None, eps=self.eps, mask=mask)
        mean, variance = self._proxy(params, wide)
        z = self._activated(y, params) - per_channel("mean", mean, wide)
        z = zero_masked(z * jax.lax.rsqrt(per_channel("variance", variance, wide)), mask)
        return z.astype(x.dtype), state

    def _proxy(self, params: Params, wide: Array) -> tuple[Array, Array]:
        """Return the mean and the variance of the proxy's activation, `(C,)` each."""
        middles = (jnp.arange(self.samples, dtype=wide.dtype) + 0.5) / self.samples
        quantiles = jnp.broadcast_to(ndtri(middles)[:, None], (self.samples, wide.shape[-1]))
        spread = 1 + per_channel("proxy_spread", params["proxy_spread"], quantiles)
        shift = per_channel("proxy_mean", params["proxy_mean"], quantiles)
        z = self._activated(spread * quantiles + shift, params)
        mean = z.mean(axis=0)
        return mean, ((z - mean[None]) ** 2).mean(axis=0) + self.proxy_eps

    def _activated(self, y: Array, params: Params) -> Array:
        y = scale_and_shift(y, y, params.get("scale"), params.get("bias"), None)
        return ACTIVATIONS[self.activation](y)
