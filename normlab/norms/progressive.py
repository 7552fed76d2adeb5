"""Progressive batch normalisation: layer normalisation that fades to batch normalisation."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.layer import layer_norm
from normlab.ops.affine import one_number, per_channel, scale_and_shift
from normlab.ops.masks import zero_masked
from normlab.ops.moments import statistics_dtype
from normlab.ops.normalise import centre, less_given
from normlab.ops.running import Running, counted, over_batch


@normaliser(
    paper="arXiv:2405.11582",
    uses_batch=True,
    affine_in_evaluation=True,
    keeps_moments=True,
    group="batch and example",
    after=("batch_norm", "layer_norm"),
    aka=("PRepBN", "RepBN"),
    held_to="code",
)
@dataclass(frozen=True, kw_only=True)
class ProgressiveBatchNorm(Running):
    """PRepBN: `g * layer_norm(x) + (1 - g) * (batch_norm(x) + eta * x)`, where g falls to zero.

    Guo et al. 2024 (SLAB) train transformers so, because batch normalisation from the first step
    on is unstable there. In evaluation the second part stands alone (their RepBN), with a learnt
    number `eta` that begins at one. It is a factor and an offset for each channel, and folds into
    the layer before it. Each part has its own scale and bias. `g` is `start` for the first step
    after `warm_up` and falls by equal parts over `fade` steps. During the warm-up `g` is one and
    the running statistics stand still, as in the authors' code.

    Attributes:
        fade: steps over which the layer normalisation fades.
        warm_up: steps of layer normalisation alone, before.
        start: what `g` falls from.

    >>> import jax.numpy as jnp
    >>> norm = ProgressiveBatchNorm(fade=2)
    >>> params, state = norm.init(features=2)
    >>> x = jnp.array([[1.0, 3.0], [3.0, 1.0]])
    >>> for step in range(3):
    ...     y, state = norm.apply(params, state, x, train=True)
    ...     print([f"{value:.1f}" for value in y[0]])
    ['-1.0', '1.0']
    ['-0.5', '2.5']
    ['0.0', '4.0']
    """

    fade: int = 10_000
    warm_up: int = 0
    start: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.fade >= 1, "fade", self.fade, "a positive whole number")
        allowed = "a whole number of at least 0"
        require_field(self.warm_up >= 0, "warm_up", self.warm_up, allowed)
        require_field(0 <= self.start <= 1, "start", self.start, "between 0 and 1")

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        of_layer = {f"layer_{name}": jnp.copy(leaf) for name, leaf in params.items()}
        params = {**params, **of_layer, "eta": jnp.ones((), jnp.float32)}
        return params, {**state, "steps": jnp.zeros((), jnp.float32)}

    def pool(self, states: State) -> State:
        """Pool the statistics as batch normalisation does, and count one step."""
        return {**super().pool(states), "steps": states["steps"].max(axis=0)}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        z = zero_masked(x.astype(statistics_dtype(x)), mask)
        if not train:
            of_batch = less_given(z, state["mean"], state["variance"], mask=mask)
            root = lax.rsqrt(per_channel("variance", state["variance"], z) + self.eps)
            return self._of_batch(of_batch.values * root, z, x, params, mask).astype(x.dtype), state
        of_batch, moments = centre(z, over_batch(x), mask=mask, axis_name=self.axis_name)
        root = lax.rsqrt(moments.variance + self.eps)
        whole = self._of_batch(of_batch.values * root, z, z, params, mask)
        own = (params.get(f"layer_{name}") for name in ("scale", "bias"))
        g = self._share(state["steps"]).astype(z.dtype)
        y = g * layer_norm(z, *own, eps=self.eps, mask=mask) + (1 - g) * whole
        moves = counted(moments.statistics, moments.count).any()
        steps = state["steps"] + moves.astype(state["steps"].dtype)
        after = {**self.moved(state, moments), "steps": steps}
        still = state["steps"] < self.warm_up
        kept = {name: jnp.where(still, state[name], after[name]) for name in ("mean", "variance")}
        return y.astype(x.dtype), {**after, **kept}

    def _of_batch(
        self, normalised: Array, z: Array, like: Array, params: Params, mask: Array | None
    ) -> Array:
        y = scale_and_shift(normalised, z, params.get("scale"), params.get("bias"), mask)
        return (y + one_number("eta", params["eta"], z) * z).astype(like.dtype)

    def _share(self, steps: Array) -> Array:
        falling = self.start * jnp.clip(1 - (steps - self.warm_up) / self.fade, 0, 1)
        return jnp.where(steps < self.warm_up, 1.0, falling)
