"""Internal covariate shift, in its two meanings: of a layer's input, and of its gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from normlab.core import Array
from normlab.probes.contract import Moment, PerLayer, Readings, Subject, probe
from normlab.probes.formulas import cosine, norm, ratio, scan
from normlab.probes.layers import gradient_at, kernels, layers, names, owners, seen
from normlab.probes.updates import one_step


class Shift(NamedTuple):
    """By how much a distribution has moved, in units of its deviation before.

    Attributes:
        mean: the root mean square over channels of the difference of their means.
        deviation: the same of their deviations.
    """

    mean: Array
    deviation: Array

    @property
    def distance(self) -> Array:
        """The 2-Wasserstein distance, were each channel normally distributed."""
        return jnp.sqrt(self.mean**2 + self.deviation**2)


def distribution_shift(before: Array, after: Array) -> Shift:
    """How the mean and the deviation of each channel have changed, `(N, ..., C)` each.

    In units of the root of the channels' mean variance before: a channel that is constant then
    does not make a unit of zero.

    >>> x = jnp.array([[-1.0], [1.0]])
    >>> shift = distribution_shift(x, 3 * x + 2)
    >>> shift.mean.item(), shift.deviation.item()
    (2.0, 2.0)
    """
    axes = tuple(range(before.ndim - 1))
    unit = jnp.sqrt(before.var(axis=axes).mean())
    mean = after.mean(axis=axes) - before.mean(axis=axes)
    deviation = after.std(axis=axes) - before.std(axis=axes)
    root = (jnp.sqrt(jnp.mean(change**2)) for change in (mean, deviation))
    return Shift(*(ratio(change, unit) for change in root))


class GradientShift(NamedTuple):
    """Of each layer's gradient, `(L,)`: the distance, and the cosine of the angle, between the one
    that the step uses and the one after the layers before it have taken theirs."""

    distance: Array
    cosine: Array


def gradient_shift(
    gradient: Callable[[Any], Any],
    before: Any,
    after: Any,
    owner: Any,
    weights: Callable[[Any], list[Array]],
) -> GradientShift:
    """How far the updates of the layers before it move a layer's gradient.

    `|G - G'|` of layer i, where G is its gradient at the parameters before the step, and G' the
    one with the layers before i as they are after it (Santurkar et al. 2018, definition 2.1). It
    takes one gradient for each layer.

    Args:
        gradient: of the loss, as a function of the parameters.
        before: the parameters before the step.
        after: those after it.
        owner: which layer each parameter goes with, from 0: a tree of whole numbers like them.
        weights: the layers' weights, in order, out of a tree like the parameters.
    """
    now = weights(gradient(before))

    def at(carry: tuple[()], layer: Array) -> tuple[tuple[()], tuple[Array, Array]]:
        mixed = jax.tree.map(lambda i, a, b: jnp.where(i < layer, b, a), owner, before, after)
        then = weights(gradient(mixed))
        pairs = list(zip(now, then, strict=True))
        distances = jnp.stack([norm(a.astype(jnp.float32) - b) for a, b in pairs])
        cosines = jnp.stack([cosine(a, b) for a, b in pairs])
        return carry, (distances[layer], cosines[layer])

    return GradientShift(*scan(at, (), jnp.arange(len(now)))[1])


@partial(jax.jit, static_argnums=0)
def _inputs(subject: Subject, moment: Moment) -> dict[str, Array]:
    return seen(subject, moment, "inputs")


@probe(paper="input: arXiv:1502.03167; gradient: arXiv:1805.11604, definition 2.1")
@dataclass(frozen=True)
class CovariateShift:
    """What the next step would change for each layer because the others have moved too.

    Of its input, on the same batch (Ioffe & Szegedy 2015), for each layer but the first: mean and
    deviation, by how much those of its channels move, and distance, of both together; all in
    units of the deviation before (`distribution_shift`).

    Of its gradient (Santurkar et al. 2018), for each layer: gradient_distance, between the one
    that the step uses and the one after the layers before it have moved; gradient_change, that
    over the gradient's norm; gradient_cosine, of the angle between the two. The first layer has
    none before it. A parameter that is no kernel goes with the layer called last before it.

    The normalisers' state stands still. It takes one gradient for each layer.

    >>> CovariateShift()
    CovariateShift()
    """

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Each quantity for each layer."""
        gradient, update = one_step(subject, moment)
        after = optax.apply_updates(moment.params, update)
        before, later = (
            _inputs(subject, moment._replace(params=p)) for p in (moment.params, after)
        )
        moved = [distribution_shift(before[name], later[name]) for name in before]

        def of_input(values: list[Array]) -> PerLayer:
            return PerLayer(jnp.stack(values), tuple(before))

        paths = layers(subject, moment)
        shift = gradient_shift(
            lambda params: gradient_at(subject, moment)(params)[1],
            moment.params,
            after,
            owners(subject, moment),
            lambda tree: kernels(tree, paths),
        )
        sizes = jnp.stack([norm(g) for g in kernels(gradient, paths)])
        return {
            "mean": of_input([shift.mean for shift in moved]),
            "deviation": of_input([shift.deviation for shift in moved]),
            "distance": of_input([shift.distance for shift in moved]),
            "gradient_distance": PerLayer(shift.distance, names(paths)),
            "gradient_change": PerLayer(ratio(shift.distance, sizes), names(paths)),
            "gradient_cosine": PerLayer(shift.cosine, names(paths)),
        }
