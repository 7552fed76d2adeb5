"""Power normalisation: a running mean square forward, a running product backward."""

from dataclasses import dataclass

import jax.numpy as jnp

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import scale_and_shift
from normlab.ops.mean_square import Quadratic, divided, prepared


@normaliser(
    paper="arXiv:2003.07845",
    uses_batch=True,
    backward_state=("product",),
    affine_in_evaluation=True,
    group="batch",
    after=("batch_norm", "rms_norm"),
    aka=("PN", "PowerNorm"),
)
@dataclass(frozen=True, kw_only=True)
class PowerNorm(Quadratic):
    """Power normalisation: each channel over the root of its running mean square.

    No mean is taken away. Forward divides by the running `mean_square` as it stands before the
    step; backward takes `product`, a running estimate of `mean(g y)`, for the batch's own (Shen et
    al. 2020, algorithm 2). During the warm-up both are the batch's, and the gradient is exact.

    The authors' code differs from their algorithm: it puts a root-mean-square normalisation of
    each token before it, takes the running product during the warm-up too, and divides the
    gradient by the batch's root always. Here is the algorithm. Their warm-up is 10,000 steps.

    It costs more than batch normalisation, whose backward is a closed form.

    Attributes:
        warm_up: steps that use the batch's own statistics.

    >>> import jax.numpy as jnp
    >>> norm = PowerNorm()
    >>> y, state = norm.apply(*norm.init(features=1), jnp.array([[3.0], [-3.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()], sorted(state)
    (['1.00', '-1.00'], ['mean_square', 'product', 'steps'])
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return params, {
            "mean_square": state["variance"],
            "product": state["mean"],
            "steps": jnp.zeros((), jnp.float32),
        }

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        z, keep = prepared(x, mask)
        running = state["mean_square"]
        if train:
            (batch, moves), steps = self.batch_mean_square(z, keep), state["steps"]
            used = jnp.where(steps < self.warm_up, batch, running.astype(batch.dtype))
            root = self.root(used, z)
            given = state["product"], steps, keep, moves
            y = jnp.asarray(divided(self._rule, self.axis_name, z, root, *given))
            moved = self.moved_by(running, batch, moves)
            steps = steps + moves.any().astype(steps.dtype)
            state = {**state, "mean_square": moved, "steps": steps}
        else:
            y = z / self.root(running, z)
        return scale_and_shift(y, x, params.get("scale"), params.get("bias"), mask), state

    def _rule(
        self, memory: Array, steps: Array, product: Array, energy: Array
    ) -> tuple[Array, Array]:
        product, energy = product.astype(memory.dtype), energy.astype(memory.dtype)
        rate = 1 - self.momentum
        warm = steps < self.warm_up
        moved = memory * (1 - rate * energy) + rate * product
        return jnp.where(warm, product, memory), jnp.where(warm, product, moved)
