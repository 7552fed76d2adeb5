"""Measures how fast each layer learns: the effect of one optimiser step on its weights."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from normlab.core import Array
from normlab.probes.contract import Moment, Readings, Subject, probe
from normlab.probes.formulas import cosine, dot, norm, ratio, spread
from normlab.probes.layers import kernels, layers, loss_and_gradient, per_layer


def one_step(subject: Subject, moment: Moment) -> tuple[Any, Any]:
    """Compute the gradient, and the update that the optimiser would add to the parameters."""
    _, gradient = loss_and_gradient(subject, moment)
    update, _ = subject.optimizer.update(gradient, moment.opt_state, moment.params)
    return gradient, update


def across(weight: Array, update: Array) -> Array:
    """Compute the part of an update that is orthogonal to the weight and rotates it.

    >>> across(jnp.array([2.0, 0.0]), jnp.array([1.0, 3.0])).tolist()
    [0.0, 3.0]
    """
    weight, update = weight.astype(jnp.float32), update.astype(jnp.float32)
    direction = ratio(weight, norm(weight))
    return update - dot(direction, update) * direction


def angular_update(weight: Array, update: Array) -> Array:
    """Compute the angle between a weight before and after the update, in radians.

    It is computed from the update's two components, so that an angle of 1e-6 is still accurate. The
    arc cosine in float32 is not.

    >>> f"{angular_update(jnp.array([2.0, 0.0]), jnp.array([0.0, 2e-6])):.2e}"
    '1.00e-06'
    """
    direction = ratio(weight.astype(jnp.float32), norm(weight))
    ahead = norm(weight) + dot(direction, update)
    return jnp.arctan2(norm(across(weight, update)), ahead)


def effective_learning_rate(weight: Array, gradient: Array, update: Array) -> Array:
    """Compute the learning rate of a scale-invariant weight's direction: `|u| / (|g| |w|^2)`.

    `u` is the part of the update that is orthogonal to the weight `w` and rotates it. For SGD, with
    or without weight decay, the result is `rate / |w|^2` (van Laarhoven 2017, Hoffer et al. 2018).
    For any other optimiser `|u| / |g|` replaces the rate. The direction `w/|w|` moves as a weight
    of norm one would at this rate.

    The result is meaningful only if a normaliser after the layer removes the weight's scale. The
    gradient is then orthogonal to the weight.

    >>> w, g = jnp.array([2.0, 0.0]), jnp.array([0.0, 5.0])
    >>> f"{effective_learning_rate(w, g, -0.1 * g - 0.01 * w):.4f}"
    '0.0250'
    """
    return ratio(norm(across(weight, update)), norm(gradient) * norm(weight) ** 2)


@probe(
    paper="arXiv:1706.05350; arXiv:1803.01814; angular update: arXiv:2006.08419",
    leading=("ratio", "angle", "spread"),
)
@dataclass(frozen=True)
class Updates:
    """Measures the effect of the next step on each layer's kernel.

    - ratio: the update's norm divided by the weight's norm.
    - angle: the angle by which the weight rotates, in radians.
    - effective_learning_rate: see the function of that name. It is meaningful for scale-invariant
      weights, whose gradient_cosine is zero up to rounding (1e-6).
    - gradient_cosine: the cosine of the angle between gradient and weight.
    - weight_norm: the kernel's norm.
    - spread: the spread of ratio over layers in powers of ten (`formulas.spread`). It tells how
      unequally fast the layers learn.
    - angle_spread: the spread of angle over layers.

    >>> Updates()
    Updates()
    """

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure each quantity for each layer, and two numbers for the whole network."""
        paths = layers(subject, moment)
        gradient, update = one_step(subject, moment)
        found = [kernels(tree, paths) for tree in (moment.params, gradient, update)]
        rows = list(zip(*found, strict=True))
        ratios = per_layer(paths, [ratio(norm(u), norm(w)) for w, _, u in rows])
        angles = per_layer(paths, [angular_update(w, u) for w, _, u in rows])
        return {
            "ratio": ratios,
            "angle": angles,
            "effective_learning_rate": per_layer(
                paths, [effective_learning_rate(w, g, u) for w, g, u in rows]
            ),
            "gradient_cosine": per_layer(paths, [cosine(w, g) for w, g, _ in rows]),
            "weight_norm": per_layer(paths, [norm(w) for w, _, _ in rows]),
            "spread": spread(ratios.values),
            "angle_spread": spread(angles.values),
        }
