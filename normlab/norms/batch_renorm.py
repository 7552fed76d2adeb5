"""Batch renormalisation: batch statistics, corrected towards the running ones."""

from dataclasses import dataclass
from numbers import Real

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.ops.affine import per_channel, require_eps, scale_and_shift
from normlab.ops.normalise import centre
from normlab.ops.running import Running, counted, less_running, move, over_batch
from normlab.sharding import on_any_mesh


@on_any_mesh
def batch_renorm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    mean: Array,
    deviation: Array,
    r_max: Array | float = 3.0,
    d_max: Array | float = 5.0,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Compute `z * r + d`, `r = s_batch / s`, `d = (m_batch - m) / s` both clipped (Ioffe 2017).

    `z` is the batch-normalised input, `m` and `s` the running mean and deviation. No gradient goes
    through `r` and `d`. With `r_max=1, d_max=0` it is batch normalisation; without a limit its
    values (not its gradients) are those of the running statistics.

    Args:
        x: `(N, ..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        mean, deviation: `(C,)`, the running statistics.
        r_max: `r` is held within `[1 / r_max, r_max]`.
        d_max: `d` is held within `[-d_max, d_max]`.
        eps: added to the batch's variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        ShapeError: a channel has one value only, or a shape does not fit.

    >>> import jax.numpy as jnp
    >>> x, m, s = jnp.array([[1.0], [3.0]]), jnp.array([0.0]), jnp.array([2.0])
    >>> [f"{value:.2f}" for value in batch_renorm(x, mean=m, deviation=s).ravel()]
    ['0.50', '1.50']
    """
    require_eps(eps)
    _require_limits(r_max, d_max)
    return _renormalise(x, scale, bias, mean, deviation, r_max, d_max, eps, mask, None)[0]


@normaliser(
    paper="arXiv:1702.03275",
    uses_batch=True,
    affine_in_evaluation=True,
    keeps_moments=True,
    group="batch",
    after=("batch_norm",),
    aka=("BRN", "batch renormalization"),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class BatchRenorm(Running):
    """Batch renormalisation, its limits widening as training goes on.

    The state is the running `mean` and `deviation` (the paper averages deviations, not variances)
    and the number of steps that moved any channel. The defaults are the paper's for ImageNet; a
    short run wants a shorter `warm_up` and `rise`, or it is batch normalisation to its end.

    Attributes:
        r_max: the limit of the factor, reached after `r_rise` further steps.
        d_max: the limit of the offset, reached after `d_rise` further steps.
        warm_up: steps of plain batch normalisation at the start.
        r_rise: steps in which the limit of the factor grows from 1 to `r_max`.
        d_rise: steps in which the limit of the offset grows from 0 to `d_max`.

    >>> import jax.numpy as jnp
    >>> norm = BatchRenorm(warm_up=0, r_rise=0, d_rise=0, momentum=0.5)
    >>> params, state = norm.init(features=1)
    >>> y, state = norm.apply(params, state, jnp.array([[1.0], [5.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()], float(state["mean"][0])
    (['1.00', '5.00'], 1.5)
    """

    momentum: float = 0.99
    r_max: float = 3.0
    d_max: float = 5.0
    warm_up: int = 5000
    r_rise: int = 35000
    d_rise: int = 20000

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_limits(self.r_max, self.d_max)
        for name in ("warm_up", "r_rise", "d_rise"):
            value = getattr(self, name)
            require_field(value >= 0, name, value, "a whole number of at least 0")

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        steps = jnp.zeros((), jnp.float32)
        return params, {"mean": state["mean"], "deviation": state["variance"], "steps": steps}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        scale, bias = params.get("scale"), params.get("bias")
        if not train:
            centred = less_running(x, state["mean"], mask)
            z = centred / per_channel("deviation", state["deviation"], centred)
            return scale_and_shift(z, x, scale, bias, mask), state
        after = state["steps"] - self.warm_up
        r_max = 1 + (self.r_max - 1) * _risen(after, self.r_rise)
        d_max = self.d_max * _risen(after, self.d_rise)
        running = (state["mean"], state["deviation"])
        y, batch, count = _renormalise(
            x, scale, bias, *running, r_max, d_max, self.eps, mask, self.axis_name
        )
        moved = move(state, batch, count, self.momentum)
        steps = state["steps"] + counted(batch, count).any().astype(jnp.float32)
        return y, {**moved, "steps": steps}

    def read_moments(self, state: State) -> tuple[Array, Array]:
        return state["mean"], state["deviation"] ** 2 - self.eps

    def write_moments(self, state: State, mean: Array, variance: Array) -> State:
        return {**state, "mean": mean, "deviation": jnp.sqrt(variance + self.eps)}

    def pool(self, states: State) -> State:
        """Average over microbatches; the running deviation is an average of deviations."""
        pooled = {name: leaf.mean(axis=0) for name, leaf in states.items()}
        return {**pooled, "steps": states["steps"].max(axis=0)}


def _require_limits(r_max: Array | float, d_max: Array | float) -> None:
    """Check the limits that are numbers already; a traced one cannot be looked at."""
    for name, limit, least in (("r_max", r_max, 1), ("d_max", d_max, 0)):
        fits = not isinstance(limit, Real) or limit >= least
        require_field(bool(fits), name, limit, f"a number of at least {least}")


def _risen(steps: Array, over: int) -> Array:
    """Rise evenly from 0 before the first step to 1 after `over` of them."""
    return jnp.where(steps < 0, 0.0, jnp.minimum(1.0, steps / over if over else 1.0))


def _renormalise(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    mean: Array,
    deviation: Array,
    r_max: Array | float,
    d_max: Array | float,
    eps: float,
    mask: Array | None,
    axis_name: str | None,
) -> tuple[Array, State, Array]:
    centred, moments = centre(x, over_batch(x), mask=mask, axis_name=axis_name)
    batch_deviation = jnp.sqrt(moments.variance + eps)
    m, s = (
        per_channel(name, values, moments.mean)
        for name, values in (("mean", mean), ("deviation", deviation))
    )
    r_max, d_max = (jnp.asarray(limit).astype(m.dtype) for limit in (r_max, d_max))
    r = lax.stop_gradient(jnp.clip(batch_deviation / s, 1 / r_max, r_max))
    d = lax.stop_gradient(jnp.clip((moments.mean - m) / s, -d_max, d_max))
    y = centred.times(r / batch_deviation, d, scale=scale, bias=bias)
    return y, {"mean": moments.mean, "deviation": batch_deviation}, moments.count
