"""Mode normalisation: several means and variances, and each example between them."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.norms.affine import per_channel, scale_and_shift, zero_masked
from normlab.norms.moments import Sharing, centre, shared_mean, statistics_dtype
from normlab.norms.running import Running, move, over_batch

EMPTY = 1e-12
"""A mode with less of the batch than this has no statistics of it, and adds nothing that shows."""


@normaliser(paper="arXiv:1810.05466", uses_batch=True)
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
        over = over_batch(x)
        if train:
            centred, moments = centre(x, over, mask=mask, axis_name=self.axis_name)
            origin, count = moments.mean, moments.count
        else:
            centred, origin, count = zero_masked(x.astype(statistics_dtype(x)), mask), 0.0, 0

        mixed, batch, counts = 0.0, [], []
        for mode in range(self.modes):
            gate = zero_masked(jnp.broadcast_to(gates[..., mode : mode + 1], x.shape), mask)
            if train:
                share = shared_mean(gate, over, mask=mask, axis_name=self.axis_name)
                held = share > EMPTY
                share = jnp.where(held, share, 1)

                def weighted(
                    values: Array, gate: Array = gate, share: Array = share, held: Array = held
                ) -> Array:
                    mean = shared_mean(gate * values, over, mask=mask, axis_name=self.axis_name)
                    return jnp.where(held, mean / share, 0)

                mean = weighted(centred)
                variance = weighted((centred - mean) ** 2)
                batch.append({"mean": origin + mean, "variance": variance})
                counts.append(jnp.where(held, count, 0))
            else:
                mean = per_channel("mean", state["mean"][mode], centred)
                variance = per_channel("variance", state["variance"][mode], centred)
            mixed = mixed + gate * (centred - mean) * lax.rsqrt(variance + self.eps)
        if train:
            new = {k: jnp.concatenate([one[k].reshape(1, -1) for one in batch]) for k in state}
            count = jnp.concatenate([one.reshape(1, -1) for one in counts])
            state = _moved(state, new, count, self.momentum)
        z = jnp.asarray(mixed)
        return scale_and_shift(z, x, params.get("scale"), params.get("bias"), mask), state


def _moved(state: State, batch: State, count: Array, momentum: float) -> State:
    flat = {name: leaf.reshape(-1) for name, leaf in state.items()}
    moved = move(flat, batch, count, momentum)
    return {name: moved[name].reshape(leaf.shape) for name, leaf in state.items()}


def _gates(x: Array, weights: Array, bias: Array, mask: Array | None) -> Array:
    """`(N, 1, ..., 1, modes)`: each example's weights, from its channel means."""
    values = zero_masked(x.astype(statistics_dtype(x)), mask)
    positions = Sharing(axes=tuple(range(1, x.ndim - 1)))
    pooled = shared_mean(values, positions, mask=mask) if x.ndim > 2 else values
    logits = pooled @ weights.astype(pooled.dtype) + bias.astype(pooled.dtype).reshape(
        (1,) * (x.ndim - 1) + (-1,)
    )
    return jax.nn.softmax(logits, axis=-1)
