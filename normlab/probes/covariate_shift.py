"""Measures internal covariate shift in two senses: of a layer's input, and of its gradient."""

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
from normlab.probes.layers import activations, gradient_at, kernels, layers, names, owners
from normlab.probes.updates import one_step


class DistributionShift(NamedTuple):
    """The change of a distribution, in units of its standard deviation before.

    Attributes:
        mean: the root mean square over channels of the change of the mean.
        deviation: the root mean square over channels of the change of the standard deviation.
    """

    mean: Array
    deviation: Array

    @property
    def distance(self) -> Array:
        """The 2-Wasserstein distance if each channel were normally distributed."""
        return jnp.sqrt(self.mean**2 + self.deviation**2)


def distribution_shift(before: Array, after: Array) -> DistributionShift:
    """Measure the change of each channel's mean and deviation between two arrays `(N, ..., C)`.

    The unit is the square root of the channels' mean variance before. A constant channel therefore
    does not lead to a unit of zero.

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
    return DistributionShift(*(ratio(change, unit) for change in root))


class GradientShift(NamedTuple):
    """The change of each layer's gradient when the earlier layers take their step.

    Attributes:
        distance: `(L,)`, the norm of the change.
        cosine: `(L,)`, the cosine of the angle between the gradients before and after.
    """

    distance: Array
    cosine: Array


def gradient_shift(
    gradient: Callable[[Any], Any],
    before: Any,
    after: Any,
    owner: Any,
    weights: Callable[[Any], list[Array]],
) -> GradientShift:
    """Measure how much the updates of earlier layers change each layer's gradient.

    For layer i it is `|G - G'|`, where G is the layer's gradient before the step and G' its
    gradient after the layers before i are updated (Santurkar et al. 2018, definition 2.1). One
    gradient is computed for each layer.

    Args:
        gradient: the gradient of the loss as a function of the parameters.
        before: the parameters before the step.
        after: the parameters after the step.
        owner: a tree like the parameters, with the number (from 0) of each parameter's layer.
        weights: a function that extracts the layers' weights, in order, from such a tree.
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
    return activations(subject, moment, "inputs")


@probe(
    paper="input: arXiv:1502.03167; gradient: arXiv:1805.11604, definition 2.1",
    leading=("distance", "gradient_change", "gradient_cosine"),
)
@dataclass(frozen=True)
class CovariateShift:
    """Measures how the next step changes each layer's input and gradient through other layers.

    The shift of the input on the same batch (Ioffe & Szegedy 2015), for each layer but the first,
    in units of the deviation before (`distribution_shift`):

    - mean, deviation: the change of the channels' means and standard deviations.
    - distance: both together.

    The shift of the gradient when earlier layers are updated (Santurkar et al. 2018), for each
    layer:

    - gradient_distance: the norm of the difference of the gradients before and after.
    - gradient_change: that norm divided by the gradient's norm.
    - gradient_cosine: the cosine of the angle between the two.

    No layer comes before the first. A parameter that is not a kernel belongs to the last layer
    called before it. The normalisers' state does not change. One gradient is computed for each
    layer.

    >>> CovariateShift()
    CovariateShift()
    """

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure each quantity for each layer."""
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
