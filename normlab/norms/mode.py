"""Mode normalisation: several means and variances, and each example between them."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.masks import zero_masked
from normlab.ops.moments import Moments, Sharing, shared_mean, statistics_dtype
from normlab.ops.normalise import Centred, centre
from normlab.ops.overflow import unless_overflowed
from normlab.ops.running import Running, move, over_batch

EMPTY = 1e-12
"""A mode with less of the batch than this has no statistics of it, and adds nothing that shows."""


@normaliser(
    paper="arXiv:1810.05466",
    uses_batch=True,
    group="batch",
    after=("batch_norm",),
    aka=("MN",),
)
@dataclass(frozen=True, kw_only=True)
class ModeNorm(Running):
    """Batch normalisation with several modes, each with its mean and variance.

    A gate gives every example a weight for each mode: the softmax of a linear function of the
    example's channel means. A mode's mean and variance weigh the examples by it, and the output is
    the mixture of the example normalised by each (Deecke et al. 2019). The state is the running
    `mean` and `variance` of each mode, `(modes, C)`; a mode that no example of a batch belongs to
    keeps its own.

    The gate must not begin with its modes alike, or they would stay so: its `(C, modes)` weights
    are drawn normally over the root of C, from a key that is the same for every layer and run.

    It costs more than batch normalisation, because every example is normalised by each of its
    modes, and because the gate is trained.

    Attributes:
        modes: how many there are.

    >>> import jax.numpy as jnp
    >>> norm = ModeNorm(modes=1)
    >>> y, _ = norm.apply(*norm.init(features=1), jnp.array([[1.0], [3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()]
    ['-1.00', '1.00']
    """

    modes: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.modes >= 1, "modes", self.modes, "a positive whole number")

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        drawn = jax.random.normal(jax.random.key(0), (features, self.modes), jnp.float32)
        gate = {"gate": drawn / features**0.5, "gate_bias": jnp.zeros((self.modes,), jnp.float32)}
        each = {k: jnp.broadcast_to(v, (self.modes, features)) for k, v in state.items()}
        return {**params, **gate}, each

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        gates = _gates(x, params["gate"], params["gate_bias"], mask)
        scale, bias = params.get("scale"), params.get("bias")
        by_mode = [gates[..., mode : mode + 1] for mode in range(self.modes)]
        if not train:
            values, mixed = zero_masked(x.astype(statistics_dtype(x)), mask), 0.0
            for mode, gate in enumerate(by_mode):
                mean = per_channel("mean", state["mean"][mode], values)
                variance = per_channel("variance", state["variance"][mode], values)
                mixed = mixed + gate * (values - mean) * lax.rsqrt(variance + self.eps)
            return scale_and_shift(jnp.asarray(mixed), x, scale, bias, mask), state

        # A gate is one number an example, so a mode's moments are a mixture of the examples' own,
        # taken about the batch's mean, of which the result is independent.
        found, batch = centre(x, over_batch(x), mask=mask, axis_name=self.axis_name)
        within, each = _by_example(found.detached().values, mask)

        def total(values: Array) -> Array:
            summed = values.sum(axis=0, keepdims=True)
            return summed if self.axis_name is None else lax.psum(summed, self.axis_name)

        slope, level, new, counts = 0.0, 0.0, [], []
        for gate in by_mode:
            weight = total(gate * each.count)
            held = ~(weight <= EMPTY * batch.count)  # so that NaN is not taken for an empty mode
            weight = jnp.where(held, weight, 1)
            mean = jnp.where(held, total(gate * each.count * each.mean) / weight, 0)
            apart = each.mean - mean
            spread = total(gate * (each.m2 + each.count * apart**2))
            variance = unless_overflowed(jnp.where(held, spread / weight, 0))
            root = gate * lax.rsqrt(variance + self.eps)
            slope, level = slope + root, level + apart * root
            new.append({"mean": batch.mean + mean, "variance": variance})
            counts.append(jnp.where(held, batch.count, 0))
        moved = {k: jnp.concatenate([one[k].reshape(1, -1) for one in new]) for k in state}
        count = jnp.concatenate([one.reshape(1, -1) for one in counts])
        y = within.times(jnp.asarray(slope), jnp.asarray(level), scale=scale, bias=bias)
        return y.astype(x.dtype), _moved(state, moved, count, self.momentum)


def _by_example(values: Array, mask: Array | None) -> tuple[Centred, Moments]:
    """Centre each example's channels; a channel without positions is its own mean."""
    positions = Sharing(axes=tuple(range(1, values.ndim - 1)))
    if positions.size(values.shape) != 1:
        return centre(values, positions, mask=mask)
    nothing = jnp.zeros_like(values)
    count = zero_masked(jnp.ones_like(values), mask)
    return Centred(values, nothing, mask=mask), Moments(count, values, nothing)


def _moved(state: State, batch: State, count: Array, momentum: float) -> State:
    flat = {name: leaf.reshape(-1) for name, leaf in state.items()}
    moved = move(flat, batch, count, momentum)
    return {name: moved[name].reshape(leaf.shape) for name, leaf in state.items()}


def _gates(x: Array, weights: Array, bias: Array, mask: Array | None) -> Array:
    """Compute each example's weights from its channel means, `(N, 1, ..., 1, modes)`."""
    values = zero_masked(x.astype(statistics_dtype(x)), mask)
    positions = Sharing(axes=tuple(range(1, x.ndim - 1)))
    pooled = shared_mean(values, positions, mask=mask) if x.ndim > 2 else values
    logits = pooled @ weights.astype(pooled.dtype) + bias.astype(pooled.dtype).reshape(
        (1,) * (x.ndim - 1) + (-1,)
    )
    return jax.nn.softmax(logits, axis=-1)
