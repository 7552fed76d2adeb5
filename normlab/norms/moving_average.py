"""Moving-average batch normalisation (MABN), for batches of one or two examples."""

from dataclasses import dataclass

import jax.numpy as jnp

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.mean_square import Quadratic, divided, prepared


@normaliser(
    paper="arXiv:2001.06838",
    uses_batch=True,
    backward_state=("products",),
    affine_in_evaluation=True,
    group="batch",
    after=("batch_norm",),
    aka=("MABN",),
)
@dataclass(frozen=True, kw_only=True)
class MovingAverageBatchNorm(Quadratic):
    """MABN: mean squares, and `mean(g y)` in the backward, averaged over the last few batches.

    For batches of one or two: the averages are as steady as those of `memory` times as many
    examples. No mean is taken away; the paper centres each kernel for it. The output is multiplied
    by `r`, the root of the simple average over that of the running one, held within
    `[1 / r_max, r_max]` and at 1 for `r_after` steps, so that training approaches what evaluation
    does (Yan et al. 2020; the last two as in the authors' code). During the warm-up, and until the
    memory is full, statistics are the batch's and the gradient is exact. The state counts, for each
    channel, the `steps` that moved it.

    It costs more than batch normalisation, whose statistics and backward are one closed form.

    Attributes:
        memory: how many batches the simple averages run over.
        warm_up: steps that use the batch's own statistics.
        r_max: the limit of `r`.
        r_after: steps for which `r` is 1.

    >>> import jax.numpy as jnp
    >>> norm = MovingAverageBatchNorm()
    >>> y, state = norm.apply(*norm.init(features=1), jnp.array([[3.0], [-3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()], state["squares"].shape
    (['1.00', '-1.00'], (16, 1))
    """

    momentum: float = 0.98
    memory: int = 16
    warm_up: int = 100
    r_max: float = 5.0
    r_after: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.memory >= 1, "memory", self.memory, "a positive whole number")
        require_field(self.r_max >= 1, "r_max", self.r_max, "a number of at least 1")
        require_field(self.r_after >= 0, "r_after", self.r_after, "a whole number of at least 0")

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return params, {
            "mean_square": state["variance"],
            "products": jnp.zeros((self.memory, features), jnp.float32),
            "squares": jnp.zeros((self.memory, features), jnp.float32),
            "steps": jnp.zeros((features,), jnp.float32),
        }

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        z, keep = prepared(x, mask)
        running, steps = state["mean_square"], state["steps"]
        if train:
            batch, moves = self.batch_mean_square(z, keep)
            squares = self._remembered(state["squares"], steps, batch)
            squares = jnp.where(moves[None], squares, state["squares"])
            used = jnp.where(self._warm(steps), batch, squares.mean(axis=0).astype(batch.dtype))
            root = self.root(used, z)
            given = state["products"], steps, keep, moves
            y = jnp.asarray(divided(self._rule, self.axis_name, z, root, *given))
            r = jnp.clip(root / self.root(running, z), 1 / self.r_max, self.r_max)
            y = y * jnp.where(per_channel("steps", steps, r) < self.r_after, 1, r)
            moved = self.moved_by(running, used, moves)
            steps = steps + moves.astype(steps.dtype)
            state = {**state, "squares": squares, "mean_square": moved, "steps": steps}
        else:
            y = z / self.root(running, z)
        return scale_and_shift(y, x, params.get("scale"), params.get("bias"), mask), state

    def _warm(self, steps: Array) -> Array:
        return steps < max(self.warm_up, self.memory - 1)

    def _remembered(self, memory: Array, steps: Array, new: Array) -> Array:
        places = jnp.arange(self.memory, dtype=steps.dtype)[:, None]
        new = new[None].astype(memory.dtype)
        return jnp.where(places == steps[None] % self.memory, new, memory)

    def _rule(
        self, memory: Array, steps: Array, product: Array, energy: Array
    ) -> tuple[Array, Array]:
        memory = self._remembered(memory, steps, product)
        product = product.astype(memory.dtype)
        return jnp.where(self._warm(steps), product, memory.mean(axis=0)), memory
