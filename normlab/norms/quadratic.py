"""Division by a running mean square, with a backward that is steadied by running products.

The gradient of `y = x / sqrt(mean(x^2))` is `(g - y * mean(g y)) / sqrt(mean(x^2))`: a batch enters
by two statistics, one of the forward and one of the backward. Power normalisation and moving
average batch normalisation put averages over steps in the place of both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import require_field
from normlab.ops.affine import per_channel, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import ShapeError, centre, shared_mean, statistics_dtype
from normlab.ops.running import Running, counted, over_batch

Rule = Callable[[Array, Array, Array, Array], tuple[Array, Array]]
"""(memory, steps, the batch's mean of g y, its mean of y^2), each per channel, -> (what stands for
the mean of g y, the next memory)."""


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _divided(
    rule: Rule,
    axis_name: str | None,
    x: Array,
    root: Array,
    memory: Array,
    steps: Array,
    keep: Array | None,
    moves: Array,
) -> Array:
    """`x / root`; the gradient of `memory` is its next value (`Facts.backward_state`).

    A channel that is not in `moves`, or that has a mean which is not finite, keeps its own.
    """
    return x / root


def _forward(rule, axis_name, x, root, memory, steps, keep, moves):  # type: ignore[no-untyped-def]
    return x / root, (x, root, memory, steps, keep, moves)


def _backward(rule, axis_name, kept, g):  # type: ignore[no-untyped-def]
    x, root, memory, steps, keep, moves = kept
    sharing = over_batch(x)

    def mean(values: Array) -> Array:
        return shared_mean(values, sharing, mask=keep, axis_name=axis_name).reshape(-1)

    # Sums of products of what lies in memory: on a CPU those of g * (x / root) are slower.
    r = root.reshape(-1)
    means = mean(g * x) / r, mean(x**2) / r**2
    product, after = rule(memory, steps, *means)
    moves = moves & jnp.isfinite(means[0]) & jnp.isfinite(means[1])
    memory = jnp.where(moves.reshape((1,) * (memory.ndim - 1) + (-1,)), after, memory)
    product = per_channel("product", product, x)
    dx = (g - product * (x / root)) / root
    nothing = [jnp.zeros(m.shape, jax.dtypes.float0) for m in (keep, moves) if m is not None]
    nothing = nothing if keep is not None else [None, *nothing]
    return dx, jnp.zeros_like(root), memory, jnp.zeros_like(steps), *nothing


_divided.defvjp(_forward, _backward)


@dataclass(frozen=True, kw_only=True)
class _Quadratic(Running):
    warm_up: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = "a whole number of at least 0"
        require_field(self.warm_up >= 0, "warm_up", self.warm_up, allowed)

    def pool(self, states: State) -> State:
        """The average over microbatches."""
        pooled = {name: leaf.mean(axis=0) for name, leaf in states.items()}
        return {**pooled, "steps": states["steps"].max(axis=0)}

    def _mean_square(self, x: Array, keep: Array | None) -> tuple[Array, Array]:
        """The batch's, `(C,)`, and which channels it may move."""
        sharing = over_batch(x)
        if sharing.size(x.shape) == 1:
            raise ShapeError(
                f"an input of shape {x.shape} leaves one value to take a mean square of: use a "
                "larger batch or image"
            )
        _, found = centre(x, sharing, mask=keep, axis_name=self.axis_name, about_zero=True)
        square = lax.stop_gradient(found.variance.reshape(-1))
        return square, counted({"mean_square": square}, found.count)

    def _moved(self, running: Array, new: Array, moves: Array) -> Array:
        mixed = self.momentum * running + (1 - self.momentum) * new.astype(running.dtype)
        return jnp.where(moves, mixed, running)

    def _root(self, mean_square: Array, z: Array) -> Array:
        return jnp.sqrt(per_channel("mean_square", mean_square, z) + self.eps)


def _prepared(x: Array, mask: Array | None) -> tuple[Array, Array | None]:
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    return z, None if mask is None else fit_mask(mask, x)


@normaliser(
    paper="arXiv:2003.07845",
    uses_batch=True,
    backward_state=("product",),
    affine_in_evaluation=True,
)
@dataclass(frozen=True, kw_only=True)
class PowerNorm(_Quadratic):
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
        z, keep = _prepared(x, mask)
        running = state["mean_square"]
        if train:
            (batch, moves), steps = self._mean_square(z, keep), state["steps"]
            used = jnp.where(steps < self.warm_up, batch, running.astype(batch.dtype))
            root = self._root(used, z)
            given = state["product"], steps, keep, moves
            y = jnp.asarray(_divided(self._rule, self.axis_name, z, root, *given))
            moved = self._moved(running, batch, moves)
            steps = steps + moves.any().astype(steps.dtype)
            state = {**state, "mean_square": moved, "steps": steps}
        else:
            y = z / self._root(running, z)
        return scale_and_shift(y, x, params.get("scale"), params.get("bias"), mask), state

    def _rule(
        self, memory: Array, steps: Array, product: Array, energy: Array
    ) -> tuple[Array, Array]:
        product, energy = product.astype(memory.dtype), energy.astype(memory.dtype)
        rate = 1 - self.momentum
        warm = steps < self.warm_up
        moved = memory * (1 - rate * energy) + rate * product
        return jnp.where(warm, product, memory), jnp.where(warm, product, moved)


@normaliser(
    paper="arXiv:2001.06838",
    uses_batch=True,
    backward_state=("products",),
    affine_in_evaluation=True,
)
@dataclass(frozen=True, kw_only=True)
class MovingAverageBatchNorm(_Quadratic):
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
        z, keep = _prepared(x, mask)
        running, steps = state["mean_square"], state["steps"]
        if train:
            batch, moves = self._mean_square(z, keep)
            squares = self._remembered(state["squares"], steps, batch)
            squares = jnp.where(moves[None], squares, state["squares"])
            used = jnp.where(self._warm(steps), batch, squares.mean(axis=0).astype(batch.dtype))
            root = self._root(used, z)
            given = state["products"], steps, keep, moves
            y = jnp.asarray(_divided(self._rule, self.axis_name, z, root, *given))
            r = jnp.clip(root / self._root(running, z), 1 / self.r_max, self.r_max)
            y = y * jnp.where(per_channel("steps", steps, r) < self.r_after, 1, r)
            moved = self._moved(running, used, moves)
            steps = steps + moves.astype(steps.dtype)
            state = {**state, "squares": squares, "mean_square": moved, "steps": steps}
        else:
            y = z / self._root(running, z)
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
