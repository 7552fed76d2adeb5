"""Conditional batch normalisation: shared statistics, a scale and bias for each condition.

Conditions are whole numbers, one an example. A model that has none to give leaves them out, and
`apply` says what then.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.ops.moments import statistics_dtype
from normlab.ops.normalise import centre, less_given
from normlab.ops.per_example import for_each, per_example, require_count, times
from normlab.ops.running import Running, over_batch


@normaliser(
    paper="arXiv:1707.00683, arXiv:1610.07629",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
    keeps_moments=True,
    group="batch",
    after=("batch_norm",),
    aka=("CBN", "class-conditional batch norm"),
)
@dataclass(frozen=True, kw_only=True)
class ConditionalBatchNorm(Running):
    """Batch normalisation with a scale and bias for each condition (a class, a style, a speaker).

    Scale and bias have shape `(conditions, C)`; mean and variance, and their running values, are
    of all examples together. (Dumoulin et al. 2017 learn scale and bias so for each style, after
    instance statistics; De Vries et al. 2017 predict them from a question.)

    Attributes:
        conditions: how many there are.

    >>> import jax.numpy as jnp
    >>> norm = ConditionalBatchNorm(conditions=2)
    >>> params, state = norm.init(features=1)
    >>> params["bias"] = jnp.array([[0.0], [10.0]])
    >>> x = jnp.array([[1.0], [3.0]])
    >>> y, _ = norm.apply(params, state, x, train=True, condition=jnp.array([0, 1]))
    >>> [f"{value:.1f}" for value in y.ravel()]
    ['-1.0', '11.0']
    """

    conditions: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("conditions", self.conditions)

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return for_each(self.conditions, params), state

    def apply(
        self,
        params: Params,
        state: State,
        x: Array,
        *,
        train: bool,
        mask: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Array, State]:
        """Apply it as every normaliser; `condition` is `(N,)`, the first for all if absent."""
        if condition is None:
            condition = jnp.zeros(x.shape[0], jnp.int32)
        if train:
            centred, moments = centre(x, over_batch(x), mask=mask, axis_name=self.axis_name)
            variance = moments.variance
            state = self.moved(state, moments)
        else:
            centred = less_given(x, state["mean"], state["variance"], mask=mask)
            variance = state["variance"].reshape((1,) * (x.ndim - 1) + (-1,))
        root = lax.rsqrt(variance.astype(statistics_dtype(x)) + self.eps)
        each = {name: per_example(leaf[condition], x) for name, leaf in params.items()}
        return times(centred, root, each), state
