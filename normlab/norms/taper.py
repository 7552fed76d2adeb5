"""Taper normalisation: RMS normalisation that fades to a fixed factor for each channel."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.rms import rms_norm
from normlab.ops.affine import Standardiser, per_channel, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import Sharing, statistics_dtype, subtract_mean


@normaliser(
    paper="arXiv:2602.10408",
    group="example",
    after=("rms_norm",),
    aka=("TaperNorm",),
    held_to="reported",
)
@dataclass(frozen=True, kw_only=True)
class TaperNorm(Standardiser):
    """`g * rms_norm(x) * scale + (1 - g) * c * gain * tapered * x`, where g falls from one to zero.

    For `warm_up` steps it is root-mean-square normalisation, and running averages find the number
    `c` with which `c * scale * x` comes nearest to it (least squares). Then `c` and `gain`, a copy
    of `scale`, stand still, and `g` falls along half a cosine over `fade` steps. At its end no
    statistic is taken, and what is left folds into a neighbouring layer (Kanavalau et al. 2026).
    `tapered` is learnt, and begins at one.

    The gate, the calibration by running averages and the cosine are from the paper's abstract. The
    least squares are as reported by other people's code, as the authors' own was not found.

    Attributes:
        warm_up: steps of root-mean-square normalisation alone.
        fade: steps over which it fades.
        momentum: the weight of the old value in the running averages, in [0, 1].
        use_bias: off by default.

    >>> import jax.numpy as jnp
    >>> norm = TaperNorm(warm_up=1, fade=2)
    >>> params, state = norm.init(features=1)
    >>> for x in (2.0, 4.0, 4.0, 4.0):
    ...     y, state = norm.apply(params, state, jnp.array([[x]]), train=True)
    ...     print(f"{y[0, 0]:.2f}")
    1.00
    1.00
    1.50
    2.00
    """

    warm_up: int = 1_000
    fade: int = 10_000
    momentum: float = 0.99
    use_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.warm_up >= 1, "warm_up", self.warm_up, "a positive whole number")
        require_field(self.fade >= 1, "fade", self.fade, "a positive whole number")
        require_field(0 <= self.momentum <= 1, "momentum", self.momentum, "between 0 and 1")

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        tapered = {"tapered": jnp.ones((features,), jnp.float32)} if self.use_scale else {}
        return {**params, **tapered}, {
            **state,
            "gain": jnp.ones((features,), jnp.float32),
            "product": jnp.zeros((), jnp.float32),
            "square": jnp.zeros((), jnp.float32),
            "steps": jnp.zeros((), jnp.float32),
        }

    def pool(self, states: State) -> State:
        """Average over microbatches, and count one step."""
        pooled = {name: leaf.mean(axis=0) for name, leaf in states.items()}
        return {**pooled, "steps": states["steps"].max(axis=0)}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        z = zero_masked(x.astype(statistics_dtype(x)), mask)
        g = self.share(state["steps"]).astype(z.dtype)
        normalised = rms_norm(z, params.get("scale"), eps=self.eps, mask=mask)
        c = state["product"] / jnp.where(state["square"] > 0, state["square"], 1)
        c = jnp.where(state["square"] > 0, c, 1.0)
        factor = per_channel("gain", c * state["gain"], z)
        if "tapered" in params:
            factor = factor * per_channel("tapered", params["tapered"], z)
        # A statistic that is not used any more must not spoil anything, as 0 * NaN would.
        y = jnp.where(g > 0, g * normalised, 0) + jnp.where(g < 1, (1 - g) * factor * z, 0)
        y = scale_and_shift(y, x, None, params.get("bias"), mask)
        return y, self._moved(params, state, z, mask) if train else state

    def is_affine(self, state: State) -> bool:
        """Return whether the root-mean-square normalisation has faded, so that `fold` serves."""
        return bool(self.share(state["steps"]) == 0)

    def share(self, steps: Array) -> Array:
        """Return `g` for the number of steps that were made."""
        part = jnp.clip((steps - self.warm_up) / self.fade, 0, 1)
        return jnp.where(part < 1, (1 + jnp.cos(math.pi * part)) / 2, 0.0)

    def _moved(self, params: Params, state: State, z: Array, mask: Array | None) -> State:
        z = lax.stop_gradient(z)
        scale = lax.stop_gradient(params.get("scale", state["gain"]))
        _, found = subtract_mean(z, Sharing((z.ndim - 1,)), mask=mask, about_zero=True)
        square = ((z * per_channel("scale", scale, z)) ** 2).sum(axis=-1, keepdims=True)
        places = jnp.asarray(math.prod(z.shape[:-1]), z.dtype)
        if mask is not None:
            places = fit_mask(mask, z).any(axis=-1).sum(dtype=z.dtype)
        some = jnp.maximum(places, 1)
        product = (square * lax.rsqrt(found.variance + self.eps)).sum() / some
        square = square.sum() / some
        moves = (places > 0) & jnp.isfinite(product) & jnp.isfinite(square)
        warm = moves & (state["steps"] < self.warm_up)
        # The first step counts whole, as nothing came before it.
        old = jnp.where(state["steps"] > 0, self.momentum, 0.0)
        new = {"product": product, "square": square}
        moved = {
            name: old * state[name] + (1 - old) * value.astype(state[name].dtype)
            for name, value in new.items()
        }
        moved["gain"] = scale.astype(state["gain"].dtype)
        after = {name: jnp.where(warm, value, state[name]) for name, value in moved.items()}
        return {**after, "steps": state["steps"] + moves.astype(state["steps"].dtype)}
