"""Any normaliser as a Flax linen layer."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT

from normlab.adapters.flax_axes import features_of, without_axis_name
from normlab.adapters.flax_names import (
    flax_name,
    mask_of_rank,
    require_names,
    watch_backward_state,
    wide_enough,
)
from normlab.core import Array, Normaliser, Params, State
from normlab.errors import ShapeError, UserError

BATCH_STATS = "batch_stats"

HOW_TO_TRAIN = (
    f"Hold the collection {OVERWRITE_WITH_GRADIENT!r} beside the params, differentiate with "
    "respect to both, and put its gradient in its place; flax's TrainState does so if its params "
    f"are {{'params': ..., {OVERWRITE_WITH_GRADIENT!r}: ...}}"
)


class Norm(nn.Module):
    """A normaliser with the habits of `flax.linen.BatchNorm`.

    Its parameters stand under their own names (`scale`, `bias`), its state in the collection
    `batch_stats` under Flax's (`mean`, `var`), so `mutable=["batch_stats"]` and checkpoints work as
    with Flax's own layers. In `init` the state never moves, and the batch's statistics normalise
    the output. If the batch has too few values, such as one example, the state normalises it.

    A state that the backward pass leaves (`Facts.backward_state`: power norm, moving-average batch
    norm, online norm) stands in Flax's collection `_overwrite_with_gradient`. Its gradient is its
    next value, as Flax's own `TrainState` knows.

    Attributes:
        normaliser: the normaliser.
        use_running_average: whether statistics come from the state. It is given here or in the
            call, as in Flax; a normaliser without a state needs neither.
        dtype: the dtype of the result; None for the input's. Statistics are float32 or wider.
        param_dtype: the dtype of the parameters.
        scale_init, bias_init: initialisers of those parameters; None for the normaliser's own.

    >>> import jax, jax.numpy as jnp
    >>> from normlab.norms import BatchNorm
    >>> layer = Norm(BatchNorm(momentum=0.5), use_running_average=False)
    >>> x = jnp.array([[1.0], [3.0]])
    >>> variables = layer.init(jax.random.key(0), x)
    >>> y, moved = layer.apply(variables, x, mutable=["batch_stats"])
    >>> [f"{value:.2f}" for value in y.ravel()], moved["batch_stats"]["mean"].tolist()
    (['-1.00', '1.00'], [1.0])
    """

    normaliser: Normaliser
    use_running_average: bool | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    scale_init: Callable[..., Any] | None = None
    bias_init: Callable[..., Any] | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
        **given: Any,
    ) -> Array:
        """Normalise `x`; the result has its shape.

        Args:
            x: `(N, ..., C)`, any dtype that the normaliser takes.
            use_running_average: as the attribute. Give one of the two, as in Flax.
            mask: True where an element counts, as in `normlab.core`. It may have fewer axes than
                `x`, which are then the last ones, as in Flax.
            **given: further arguments of this normaliser, such as a `condition`.
        """
        normaliser, out = self.normaliser, x.dtype if self.dtype is None else self.dtype
        params, state = normaliser.init(features_of(normaliser, x.shape))
        require_names(normaliser, params, state)
        params = {name: self._param(name, leaf) for name, leaf in params.items()}
        x, mask = wide_enough(x, out), mask_of_rank(x.ndim, mask)
        if self.is_initializing():
            normaliser = without_axis_name(normaliser)
        if not state:
            return normaliser.apply(params, {}, x, train=True, mask=mask, **given)[0].astype(out)

        stands = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        train = not stands and not self.is_initializing()
        backward = normaliser.facts.backward_state
        variables = {
            name: self.variable(BATCH_STATS, flax_name(name), lambda v=leaf: v)
            for name, leaf in state.items()
            if name not in backward
        }
        held: State = {name: variable.value for name, variable in variables.items()}
        held |= {name: self._backward(name, state[name], train) for name in sorted(backward)}
        if self.is_initializing() and not stands:
            return _first(normaliser, params, held, x, mask, given).astype(out)
        if train:
            params, held, x = watch_backward_state(normaliser, params, held, x, HOW_TO_TRAIN)
        y, moved = normaliser.apply(params, held, x, train=train, mask=mask, **given)
        if train:
            for name, variable in variables.items():
                variable.value = moved[name]
        return y.astype(out)

    def _param(self, name: str, leaf: Array) -> Array:
        init = {"scale": self.scale_init, "bias": self.bias_init}.get(name)
        if init is not None:
            return self.param(name, init, leaf.shape, self.param_dtype)
        return self.param(name, lambda _: leaf.astype(self.param_dtype))

    def _backward(self, name: str, start: Array, train: bool) -> Array:
        """Return a leaf that the backward pass moves; evaluation does not need it."""
        if self.is_initializing() or self.has_variable(OVERWRITE_WITH_GRADIENT, name):
            return self.variable(OVERWRITE_WITH_GRADIENT, name, lambda: start).value
        if train:
            raise UserError(
                f"{type(self.normaliser).__name__} keeps {name} in its backward pass, and the "
                f"variables have no collection {OVERWRITE_WITH_GRADIENT!r}. {HOW_TO_TRAIN}"
            )
        return jax.lax.stop_gradient(start)


def _first(
    normaliser: Normaliser,
    params: Params,
    state: State,
    x: Array,
    mask: Array | None,
    given: dict[str, Any],
) -> Array:
    """Normalise in `init` by the batch's statistics, or by the state if values are too few."""
    try:
        return normaliser.apply(params, state, x, train=True, mask=mask, **given)[0]
    except ShapeError:
        train = False
    return normaliser.apply(params, state, x, train=train, mask=mask, **given)[0]
