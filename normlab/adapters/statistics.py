"""Takes the statistics of a trained model anew: from data (exactly), or from a test batch.

All functions work on the models of this library, and on any linen model whose batch norms are
Flax's own or `normlab.adapters.linen.Norm`. An NNX model holds its own variables, so none are given
(`recalibrate(model, batches)`), and the result is a copy of the model. They call the model as in
evaluation, so dropout is off, and change statistics, never parameters. Arguments of the model's
call other than its input are passed on: `recalibrate(model, variables, batches, training=False)`.
Most models need none.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import PartitionSpec

from normlab.adapters.channel_statistics import (
    mean_and_variance,
    of_batch,
    of_population,
    require_moments,
    with_mean_and_variance,
)
from normlab.adapters.intercepting import at_each_call
from normlab.adapters.linen_places import (
    COLLECTIONS,
    MOMENTS,
    Path,
    Place,
    Variables,
    at,
    evaluate,
    held,
    hold,
    input_of,
    place_of,
)
from normlab.adapters.modes import in_mode
from normlab.adapters.nnx_models import renews_nnx
from normlab.core import Array, State
from normlab.errors import UserError
from normlab.ops.moments import Moments, pool, statistics_dtype, subtract_mean
from normlab.ops.running import counted, over_batch
from normlab.sharding import on_any_mesh


@renews_nnx
def recalibrate(
    model: nn.Module, variables: Variables, batches: Iterable[Array], **call: Any
) -> Variables:
    """Replace running averages by exact population statistics ("PreciseBN").

    Every layer normalises each batch by that batch's own statistics, as in training, and the
    moments of each layer's input are pooled over all batches (Wu & Johnson 2021, arXiv:2105.07576,
    section 3). Counts weigh, so batches may differ in size. The variance of the whole is the mean
    of the variances plus the variance of the means. Only the pooling is exact: in training, the
    input of a layer behind the first depends on the batches, so choose their size as the norm
    batch. See `recalibrate_layer_by_layer` for the other meaning.

    Args:
        model: a model whose layers are of the kinds that the module's docstring names.
        variables: the variables from `model.init` or training; they stay as they are.
        batches: inputs of the model, `(N, ...)`; tuples for a model of several inputs.
        **call: other arguments of the model's call in evaluation.

    Returns:
        The variables with new statistics.

    Raises:
        UserError: there are no batches; there is no such layer, or one with other statistics; or a
            layer's input is not finite, so it has no exact statistics.

    >>> import jax, jax.numpy as jnp
    >>> model = nn.Sequential([nn.BatchNorm(use_running_average=True)])
    >>> batches = [jnp.array([[1.0], [3.0]]), jnp.array([[4.0], [4.0], [4.0], [2.0]])]
    >>> variables = model.init(jax.random.key(0), batches[0])
    >>> new = recalibrate(model, variables, batches)["batch_stats"]["layers_0"]
    >>> f"{new['mean'][0]:.3f} {new['var'][0]:.3f}"  # of 1, 3, 4, 4, 4, 2
    '3.000 1.333'
    """
    step = _Step(model, call, own_statistics=True)
    for place, moments in step.over(variables, batches):
        variables = _renewed(variables, place, moments)
    return variables


@renews_nnx
def recalibrate_layer_by_layer(
    model: nn.Module, variables: Variables, batches: Iterable[Array], **call: Any
) -> Variables:
    """Take the statistics of each layer's input after the layers before it have their new ones.

    It makes one pass over all batches for each layer, in the order of their calls. Every layer's
    statistics are then those of its input in evaluation, whatever the batches' size. Training saw
    other statistics. Arguments, result and errors are those of `recalibrate`, but `batches` must be
    readable again: a list, or an object whose `iter` begins anew.

    >>> import jax, jax.numpy as jnp
    >>> norms = [nn.BatchNorm(use_running_average=True) for _ in range(2)]
    >>> model = nn.Sequential([norms[0], nn.relu, norms[1]])
    >>> batches = [jnp.array([[1.0], [3.0]]), jnp.array([[5.0], [7.0]])]
    >>> variables = model.init(jax.random.key(0), batches[0])
    >>> for renew in (recalibrate, recalibrate_layer_by_layer):
    ...     new = renew(model, variables, batches)["batch_stats"]["layers_2"]
    ...     print(f"{float(new['mean'][0]):.3f} {float(new['var'][0]):.3f}")
    0.500 0.250
    0.447 0.300
    """
    if isinstance(batches, Iterator):
        raise UserError(
            "recalibrate_layer_by_layer reads the batches once for each layer, and an iterator can "
            "be read once only: give a list of them"
        )
    step = _Step(model, call, own_statistics=False)
    first = step.over(variables, batches)
    for index, (place, moments) in enumerate(first):
        if index > 0:
            moments = step.over(variables, batches)[index][1]
        variables = _renewed(variables, place, moments)
    return variables


@renews_nnx
def adapt(
    model: nn.Module, variables: Variables, images: Array, *, prior: float, **call: Any
) -> Variables:
    """Mix the statistics of a test batch with those of training (test-time adaptation).

    With n examples and the `prior` N, each layer mixes `N / (N + n)` of its own mean and variance
    with `n / (N + n)` of the batch's, as if N examples of the source had been seen (Schneider et
    al. 2020, arXiv:2006.16971). The distance between the two means does not enter the variance, as
    in the paper. `prior=0` uses the batch alone (Nado et al. 2020, arXiv:2006.10963), and
    `math.inf` leaves the variables as they are. Layers are adapted in one pass, each on the output
    of the adapted layers before it. `model.apply` with the new variables on the same images
    therefore gives the paper's predictions.

    Args:
        model: a model whose layers are of the kinds that the module's docstring names.
        variables: the variables of the trained model; they stay as they are.
        images: the test batch, `(N, ...)`; labels are not needed.
        prior: the weight of the source, in examples.
        **call: other arguments of the model's call in evaluation.

    Raises:
        UserError: the prior is negative, or there is no layer that can be adapted.

    >>> import jax, jax.numpy as jnp
    >>> model = nn.Sequential([nn.BatchNorm(use_running_average=True)])
    >>> x = jnp.array([[4.0], [8.0]])
    >>> variables = model.init(jax.random.key(0), x)  # mean 0, variance 1
    >>> new = adapt(model, variables, x, prior=2)["batch_stats"]["layers_0"]
    >>> f"{new['mean'][0]:.1f} {new['var'][0]:.1f}"
    '3.0 2.5'
    """
    if not prior >= 0:
        raise UserError(f"prior={prior}: a number of examples, 0 or more")
    if math.isinf(prior):
        return variables
    weight = prior / (prior + images.shape[0])

    def mixed(place: Place, state: State, moments: Moments) -> State:
        return with_mixture(place, state, moments, weight)

    meeting = _Meeting(mixed)
    moved = jax.jit(lambda v, x: meeting.apply(model, v, (x,), call)[1])(variables, images)
    return meeting.renewed(variables, moved)


Change = Callable[[Place, State, Moments], State]
"""A function of a layer, its state and its input's moments that gives the layer another state."""


def call_with(
    model: nn.Module, variables: Variables, images: Array, change: Change, **call: Any
) -> tuple[Any, Variables]:
    """Evaluate a model whose layers take their statistics from `change`, in one pass.

    It can be differentiated, through the statistics too, and works within `jit`.

    Args:
        model: a model whose layers are of the kinds that the module's docstring names.
        variables: the variables of the trained model.
        images: `(N, ...)`.
        change: gives each layer its state for this call. The moments are those of the layer's input
            over the batch, after the layers before it changed.
        **call: other arguments of the model's call in evaluation.

    Returns:
        The model's output, and the variables with the changed states.

    >>> import jax, jax.numpy as jnp
    >>> model = nn.Sequential([nn.BatchNorm(use_running_average=True)])
    >>> x = jnp.array([[4.0], [8.0]])
    >>> y, _ = call_with(model, model.init(jax.random.key(0), x), x, with_batch)
    >>> y.round(3).tolist()
    [[-1.0], [1.0]]
    """
    meeting = _Meeting(change, takes_one=True)
    output, moved = meeting.apply(model, variables, (images,), call)
    return output, meeting.renewed(variables, moved) if meeting.met else variables


def with_batch(place: Place, state: State, moments: Moments) -> State:
    """Return a state with a batch's own mean and variance, as training normalises.

    A channel of fewer than two values, or with a statistic that is not finite, keeps its own.
    """
    batch = of_batch(place.normaliser, moments)
    return _where_counted(place, state, moments, *batch)


def with_mixture(place: Place, state: State, moments: Moments, weight: Array | float) -> State:
    """Return a state with `weight` of its own mean and variance, and the rest of the batch's.

    The distance between the two means does not enter the variance.
    """
    source = mean_and_variance(place.normaliser, state)
    test = of_population(place.normaliser, moments)
    mixed = (
        weight * old + (1 - weight) * new.astype(old.dtype)
        for old, new in zip(source, test, strict=True)
    )
    return _where_counted(place, state, moments, *mixed)


def _where_counted(
    place: Place, state: State, moments: Moments, mean: Array, variance: Array
) -> State:
    """Return a state with another mean and variance in the channels that a batch counts."""
    moves = counted({"mean": mean, "variance": variance}, moments.count)
    source = mean_and_variance(place.normaliser, state)
    chosen = (
        jnp.where(moves, new.astype(old.dtype), old)
        for old, new in zip(source, (mean, variance), strict=True)
    )
    return with_mean_and_variance(place.normaliser, state, *chosen)


def keeps_statistics(model: nn.Module, variables: Variables, images: Array, **call: Any) -> bool:
    """Return whether there is a layer that `adapt` would adapt; nothing is computed.

    Raises:
        UserError: a layer has statistics that cannot be taken anew.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.zeros((2, 1))
    >>> for model in (nn.BatchNorm(use_running_average=True), nn.LayerNorm()):
    ...     print(keeps_statistics(model, model.init(jax.random.key(0), x), x))
    True
    False
    """
    meeting = _Meeting(lambda place, state, moments: state)
    jax.eval_shape(lambda v, x: meeting.apply(model, v, (x,), call), variables, images)
    return bool(meeting.met)


_EVERYWHERE: Any = (PartitionSpec(),) * 3


@partial(on_any_mesh, like=lambda *_: Moments(*_EVERYWHERE))
def _of_batch(x: Array, mask: Array | None) -> Moments:
    """Compute the moments of each channel over the whole batch, which may be on any mesh."""
    return subtract_mean(x, over_batch(x), mask=mask)[1]


def _renewed(variables: Variables, place: Place, moments: Moments) -> Variables:
    population = of_population(place.normaliser, moments)
    state = with_mean_and_variance(place.normaliser, place.state(variables), *population)
    return place.with_state(variables, state)


class _Meeting:
    """Gives each called place a state from the moments of its input, and notes both.

    The moments are left beside the state, in its collection, so that they pass through any
    transformation around the layers (`nn.scan`, `nn.remat`).
    """

    def __init__(self, change: Change, takes_one: bool = False):
        self.change, self.takes_one = change, takes_one
        self.met: dict[Path, Place] = {}
        self.inside: list[Path] = []

    def apply(
        self, model: nn.Module, variables: Variables, inputs: tuple[Array, ...], call: Any
    ) -> tuple[Any, Variables]:
        """Call the model, and return its output and the collections of states."""
        told, settings = in_mode(model, False, call)
        with at_each_call(self._meet):
            found: Any = told.apply(variables, *inputs, mutable=list(COLLECTIONS), **settings)
            return found

    def renewed(self, variables: Variables, moved: Variables) -> Variables:
        """Return `variables` with the states that the layers had in a call."""
        for place in self.places():
            variables = place.with_state(variables, place.state(moved))
        return variables

    def places(self) -> list[Place]:
        """Return the places in the order of their calls."""
        if not self.met:
            raise UserError(
                "the model keeps no statistics of batches: none of its layers is a batch norm of "
                "flax.linen, or a normaliser of normlab with a state"
            )
        return list(self.met.values())

    def _moments(self, x: Array, mask: Array | None) -> Moments:
        """Return the moments of each channel, `(C,)`, also of one value if `takes_one`."""
        if self.takes_one and x.size == x.shape[-1]:
            one = x.reshape(-1).astype(statistics_dtype(x))
            return Moments(jnp.ones_like(one), one, jnp.zeros_like(one))
        return jax.tree.map(lambda leaf: leaf.reshape(-1), _of_batch(x, mask))

    def _meet(
        self,
        module: nn.Module,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        place = place_of(module)
        state = {} if place is None else held(module, place)
        if place is None or not state:
            return call(*args, **kwargs)
        require_moments(place)
        x, mask = input_of(args, kwargs)
        moments = self._moments(x, mask)
        hold(module, place, self.change(place, state, moments))
        # A repeated call of a layer is pooled; a layer in another's place is the same call.
        before = module.get_variable(place.collection, MOMENTS, None)
        if before is not None and place.path not in self.inside:
            moments = _pool([Moments(*before), moments])
        module.put_variable(place.collection, MOMENTS, tuple(moments))
        self.met[place.path] = place
        self.inside.append(place.path)
        y = evaluate(module, call, x, mask)
        self.inside.pop()
        return y


class _Step:
    """The moments of each place's input, over batches; compiled once.

    With `own_statistics` each batch is normalised by its own statistics, else by the state.
    """

    def __init__(self, model: nn.Module, call: dict[str, Any], own_statistics: bool):
        def change(place: Place, state: State, moments: Moments) -> State:
            if not own_statistics:
                return state
            batch = of_batch(place.normaliser, moments)
            return with_mean_and_variance(place.normaliser, state, *batch)

        self.meeting = _Meeting(change)
        self.run = jax.jit(lambda v, inputs: self.meeting.apply(model, v, inputs, call)[1])

    def over(self, variables: Variables, batches: Iterable[Array]) -> list[tuple[Place, Moments]]:
        """Return each place in the order of calls, and its moments over all batches."""
        seen = [
            self.run(variables, batch if isinstance(batch, tuple) else (batch,))
            for batch in batches
        ]
        if not seen:
            raise UserError("there are no batches: give one at least (was an iterator used up?)")

        def pooled(place: Place) -> Moments:
            where = (place.collection, *place.path, MOMENTS)
            found = _pool([Moments(*at(moved, where)) for moved in seen])
            bad = (~jnp.isfinite(found.mean + found.m2)).sum()
            if not isinstance(bad, Tracer) and bad:
                raise UserError(
                    f"{place}: in {bad} of {found.mean.size} channels the input or its square "
                    "is not finite: leave such batches out, or mend the data"
                )
            return found

        return [(place, pooled(place)) for place in self.meeting.places()]


def _pool(several: list[Moments]) -> Moments:
    stacked = Moments(*(jnp.stack(leaves) for leaves in zip(*several, strict=True)))
    return jax.tree.map(lambda leaf: leaf[0], pool(stacked, axis=0))
