"""Online normalisation: one example after the other, forward and backward, without a batch."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import UserError, require_field
from normlab.ops.affine import Standardiser, per_channel, scale_and_shift
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import Sharing, statistics_dtype
from normlab.ops.normalise import normalise


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _streamed(
    decay: float, x: Array, mean: Array, root: Array, along: Array, sum_: Array, keep: Array
) -> Array:
    """Compute `(x - mean) / root`, all `(N, P, C)` or, for mean and root, `(N, C)`.

    The gradients of `along` and `sum_`, `(C,)`, are their next values (`Facts.backward_state`).
    """
    return (x - mean[:, None]) / root[:, None]


def _forward(decay, x, mean, root, along, sum_, keep):  # type: ignore[no-untyped-def]
    y = (x - mean[:, None]) / root[:, None]
    return y, (jnp.where(keep, y, 0), mean, root, along, sum_, keep)


def _backward(decay, kept, g):  # type: ignore[no-untyped-def]
    y, mean, root, along, sum_, keep = kept
    g, rate = jnp.where(keep, g, 0), 1 - decay

    # What a step needs of its example are means: they are taken of all examples at once.
    def one(errors, example):  # type: ignore[no-untyped-def]
        along, total = errors
        product, square, g, y, root, seen = example
        after_along = along + product - rate * along * square
        after_total = total + (g - rate * along * y) / root - rate * total
        # Errors of a channel of which this example has nothing stay as they are.
        seen = seen & jnp.isfinite(after_along) & jnp.isfinite(after_total)
        after = jnp.where(seen, after_along, along), jnp.where(seen, after_total, total)
        return after, errors

    start = (along.astype(y.dtype), sum_.astype(y.dtype))
    means = [_mean(values, keep) for values in (g * y, y**2, g, y)]
    (after_along, after_sum), before = lax.scan(one, start, (*means, root, keep.any(axis=1)))
    alongs, sums = (values[:, None] for values in before)
    gradient = jnp.where(keep, (g - rate * alongs * y) / root[:, None] - rate * sums, 0)
    nothing = jnp.zeros(keep.shape, jax.dtypes.float0)
    left = after_along.astype(along.dtype), after_sum.astype(sum_.dtype)
    return gradient, jnp.zeros_like(mean), jnp.zeros_like(root), *left, nothing


_streamed.defvjp(_forward, _backward)


@normaliser(
    paper="arXiv:1905.05894",
    uses_batch=True,
    backward_state=("error_along", "error_sum"),
    group="batch and example",
    after=("batch_norm",),
    aka=("ON",),
)
@dataclass(frozen=True, kw_only=True)
class OnlineNorm(Standardiser):
    """Online normalisation: each example by the exponential averages of those before it.

    An example's `(x - mean) / deviation` takes both from before it, then moves them; the examples
    of a batch go one after the other. The gradient has the two components that a normaliser must
    not let through taken out by two control processes, which also run from example to example.
    What comes out, scale and bias included, is divided by the root of its mean square over the
    example's elements, which keeps activations from growing with depth (Chiley et al. 2019,
    algorithm 1 and layer scaling; the authors' code clamps activations to 5 unless told so).

    It costs more than batch normalisation, because forward and backward go through the examples
    one after the other.

    Attributes:
        momentum: the weight of the OLD mean and variance, per example; the paper's 0.999.
        backward_momentum: the same of the control processes; the paper's 0.99.

    >>> import jax.numpy as jnp
    >>> norm = OnlineNorm(momentum=0.5)
    >>> y, state = norm.apply(*norm.init(features=2), jnp.array([[2.0, -2.0]]), train=True)
    >>> [f"{value:.2f}" for value in y.ravel()], state["mean"].tolist(), state["variance"].tolist()
    (['1.00', '-1.00'], [1.0, -1.0], [1.5, 1.5])
    """

    momentum: float = 0.999
    backward_momentum: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("momentum", "backward_momentum"):
            value = getattr(self, name)
            require_field(0 <= value <= 1, name, value, "between 0 and 1")

    def init(self, features: int) -> tuple[Params, State]:
        params, _ = super().init(features)
        return params, {
            "mean": jnp.zeros((features,), jnp.float32),
            "variance": jnp.ones((features,), jnp.float32),
            "error_along": jnp.zeros((features,), jnp.float32),
            "error_sum": jnp.zeros((features,), jnp.float32),
        }

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        z = zero_masked(x.astype(statistics_dtype(x)), mask)
        if train:
            _require_whole_batch(z, state["mean"])
            rows = z.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
            valid = jnp.ones(x.shape, bool) if mask is None else fit_mask(mask, x)
            keep = valid.reshape(rows.shape)
            before, (means, variances) = self._averages(state, lax.stop_gradient(rows), keep)
            roots = jnp.sqrt(variances + self.eps)
            errors = state["error_along"], state["error_sum"]
            y = jnp.asarray(_streamed(self.backward_momentum, rows, means, roots, *errors, keep))
            y = y.reshape(x.shape)
            state = {**state, **before}
        else:
            mean, variance = (per_channel(k, state[k], z) for k in ("mean", "variance"))
            y = (z - mean) * lax.rsqrt(variance + self.eps)
        y = scale_and_shift(zero_masked(y, mask), z, params.get("scale"), params.get("bias"), mask)
        example = Sharing(axes=tuple(range(1, x.ndim)))
        y, _ = normalise(y, example, None, None, eps=self.eps, mask=mask, about_zero=True)
        return y.astype(x.dtype), state

    def _averages(
        self, state: State, rows: Array, keep: Array
    ) -> tuple[State, tuple[Array, Array]]:
        """Return the state after the last example, and what normalises each example, `(N, C)`."""

        def one(
            before: tuple[Array, Array], example: tuple[Array, Array, Array]
        ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            (mean, variance), (own, spread, seen) = before, example
            new = 1 - self.momentum
            moved = (
                mean + new * (own - mean),
                self.momentum * variance + new * spread + self.momentum * new * (own - mean) ** 2,
            )
            return tuple(jnp.where(seen, a, b) for a, b in zip(moved, before, strict=True)), before  # type: ignore[return-value]

        start = state["mean"].astype(rows.dtype), state["variance"].astype(rows.dtype)
        own = _mean(rows, keep)
        spread = _mean(jnp.where(keep, rows - own[:, None], 0) ** 2, keep)
        seen = keep.any(axis=1) & jnp.isfinite(own) & jnp.isfinite(spread)
        (mean, variance), before = lax.scan(one, start, (own, spread, seen))
        moved = {"mean": mean.astype(jnp.float32), "variance": variance.astype(jnp.float32)}
        return moved, before


def _mean(values: Array, keep: Array) -> Array:
    """Average over the positions of `(N, P, C)`; `values` are zero where not kept."""
    return values.sum(axis=1) / jnp.maximum(keep.sum(axis=1).astype(values.dtype), 1)


def _require_whole_batch(x: Array, mean: Array) -> None:
    """Raise `UserError` where `shard_map` hands over some of the examples, and the whole state."""

    def varies_over(values: Array) -> set[str]:
        return set(getattr(getattr(jax.typeof(values), "mat", None), "varying", ()))

    split = varies_over(x) - varies_over(mean)
    if split:
        raise UserError(
            "online_norm goes through a batch one example after the other, and shard_map gives it "
            f"the examples of one shard alone (of {', '.join(sorted(split))}): call it outside of "
            "shard_map, under jit, where arrays may be sharded as you like"
        )
