"""Averages the weights over the steps of training, for evaluation (`train.ema`)."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from normlab.adapters.classifier import Classifier
from normlab.adapters.statistics import keeps_statistics, recalibrate
from normlab.core import Array
from normlab.training.host_data import HostData, first_examples
from normlab.training.state import DeviceData, TrainState

Statistics = Literal["averaged", "recalibrated", "current"]
"""The statistics of normalisers beside averaged weights: averaged too, those that the averaged
network has on training images, or those of the last step."""


MOST_RECALIBRATION_BATCHES = 10
"""The greatest number of training batches for recalibrated statistics: some thousand examples are
enough (Wu and Johnson 2021, arXiv:2105.07576, section 3)."""


class AveragedState(NamedTuple):
    """The state of an optimiser, and the averages.

    Attributes:
        inner: the optimiser's own state.
        step: int32, the number of steps taken.
        params: the averaged parameters.
        norm_state: the averaged state of the normalisers; None if it is not averaged.
    """

    inner: optax.OptState
    step: Array
    params: Any
    norm_state: Any


def with_average(
    optimizer: optax.GradientTransformation, decay: float | None
) -> optax.GradientTransformation:
    """Keep an average of the parameters beside an optimiser's state; None returns it unchanged.

    After t steps the weight of the parameters after step s is `(1 - d) d^(t - s) / (1 - d^t)`, so
    the initial parameters do not count, as in Adam's averages (Kingma and Ba 2015,
    arXiv:1412.6980, section 3).

    >>> averaged = with_average(optax.sgd(1.0), 0.5)
    >>> params, state = jnp.zeros(1), averaged.init(jnp.zeros(1))
    >>> for _ in range(2):
    ...     updates, state = averaged.update(-jnp.ones(1), state, params)
    ...     params = params + updates
    >>> params.tolist(), state.params.tolist()  # 1 and 2 with the weights 1/3 and 2/3
    ([2.0], [1.6666...])
    """
    if decay is None:
        return optimizer

    def init(params: optax.Params) -> AveragedState:
        return AveragedState(optimizer.init(params), jnp.zeros((), jnp.int32), params, None)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AveragedState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        step = state.step + 1
        new = optax.apply_updates(params, updates)
        return updates, AveragedState(
            inner, step, moved_average(state.params, new, decay, step), state.norm_state
        )

    return optax.GradientTransformation(init, update)


def begun(opt_state: Any, norm_state: Any) -> Any:
    """Begin the average of the normalisers' state; None leaves it out."""
    if not isinstance(opt_state, AveragedState):
        return opt_state
    return opt_state._replace(norm_state=norm_state)


def with_statistics(opt_state: Any, norm_state: Any, decay: float | None) -> Any:
    """Move the average of the normalisers' state, if there is one, after a step of the weights."""
    if decay is None or not isinstance(opt_state, AveragedState) or opt_state.norm_state is None:
        return opt_state
    moved = moved_average(opt_state.norm_state, norm_state, decay, opt_state.step)
    return opt_state._replace(norm_state=moved)


def moved_average(average: Any, new: Any, decay: float, step: Array) -> Any:
    """Move an average to the values after step `step` (from 1); integers are replaced.

    The weight of the new values is `(1 - d) / (1 - d^t)`.
    """
    power = jnp.asarray(step, jnp.float32) * jnp.log(jnp.float32(decay))
    weight = (1 - decay) / -jnp.expm1(power)

    def moved(old: Array, leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return (old + weight.astype(leaf.dtype) * (leaf - old)).astype(leaf.dtype)

    return jax.tree.map(moved, average, new)


def evaluation_parameters(params: Any, opt_state: Any) -> Any:
    """Return the parameters for evaluation, which are averages if the optimiser keeps them.

    The averages are those of `train.ema`, or of a schedule-free optimiser (Defazio et al. 2024,
    arXiv:2405.15682).
    """
    if isinstance(opt_state, AveragedState):
        return opt_state.params
    states = _schedule_free(opt_state)
    return schedule_free_eval_params(states[0], params) if states else params


def for_evaluation(
    network: Classifier,
    statistics: Statistics,
    params: Any,
    norm_state: Any,
    opt_state: Any,
    images: Array,
) -> tuple[Any, Any]:
    """Return the parameters and the normalisers' state that an evaluation takes.

    A schedule-free optimiser, whose average is not of states, has recalibrated statistics.

    Args:
        network: the network to evaluate.
        statistics: the kind of statistics that stand beside averaged weights.
        params: the parameters after the last step.
        norm_state: the normalisers' state after the last step.
        opt_state: the optimiser's state after the last step, with the averages.
        images: `(B, N, H, W, C)`, batches of training images for recalibrated statistics.
    """
    averaged = evaluation_parameters(params, opt_state)
    if isinstance(opt_state, AveragedState) and statistics != "recalibrated":
        current = opt_state.norm_state is None
        return averaged, norm_state if current else opt_state.norm_state
    variables = network.variables(averaged, norm_state)
    if not keeps_statistics(network.model, variables, images[0]):
        return averaged, norm_state
    return network.split(recalibrate(network.model, variables, list(images)))


def weights_for_evaluation(
    averaged: Callable[..., Any], batch_size: int, state: TrainState, data: DeviceData | HostData
) -> tuple[Any, Any]:
    """Return the parameters and the normalisers' state that an evaluation takes.

    Args:
        averaged: `Program.averaged`, jitted; it is called if the optimiser keeps averages.
        batch_size: examples in one step.
        state: the state after a step.
        data: the data, whose first training images may be needed for statistics.
    """
    if not keeps_average(state.opt_state):
        return state.params, state.norm_state
    batches = min(len(data.train.labels) // batch_size, MOST_RECALIBRATION_BATCHES)
    images, _ = first_examples(data, batches * batch_size)
    images = images.reshape(batches, batch_size, *images.shape[1:])
    return averaged(state.params, state.norm_state, state.opt_state, images)


def keeps_average(opt_state: Any) -> bool:
    """Return whether evaluation has other parameters than training."""
    return isinstance(opt_state, AveragedState) or has_schedule_free(opt_state)


def has_schedule_free(opt_state: Any) -> bool:
    """Return whether an optimiser's state is, or holds, that of a schedule-free optimiser."""
    return bool(_schedule_free(opt_state))


def _schedule_free(opt_state: Any) -> list[ScheduleFreeState]:
    def is_one(node: Any) -> bool:
        return isinstance(node, ScheduleFreeState)

    leaves = jax.tree.leaves(opt_state, is_leaf=is_one)
    return [leaf for leaf in leaves if is_one(leaf)]
