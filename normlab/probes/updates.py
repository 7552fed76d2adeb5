"""How fast each layer learns: what one step of the optimiser would do to its weights."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from normlab.core import Array
from normlab.probes.contract import Moment, Readings, Subject, probe
from normlab.probes.formulas import cosine, dot, norm, ratio, spread
from normlab.probes.layers import kernels, layers, loss_and_gradient, per_layer


def one_step(subject: Subject, moment: Moment) -> tuple[Any, Any]:
    """The gradient, and the update that the optimiser would add to the parameters; on paper."""
    _, gradient = loss_and_gradient(subject, moment)
    update, _ = subject.optimizer.update(gradient, moment.opt_state, moment.params)
    return gradient, update


def across(weight: Array, update: Array) -> Array:
    """The part of an update at right angles to the weight: what turns it.

    >>> across(jnp.array([2.0, 0.0]), jnp.array([1.0, 3.0])).tolist()
    [0.0, 3.0]
    """
    weight, update = weight.astype(jnp.float32), update.astype(jnp.float32)
    direction = ratio(weight, norm(weight))
    return update - dot(direction, update) * direction


def angular_update(weight: Array, update: Array) -> Array:
    """The angle between a weight and the weight after the update, in radians.

    From the update's two components, so that an angle of 1e-6 keeps its digits, which the arc
    cosine of float32 does not.

    >>> f"{angular_update(jnp.array([2.0, 0.0]), jnp.array([0.0, 2e-6])):.2e}"
    '1.00e-06'
    """
    direction = ratio(weight.astype(jnp.float32), norm(weight))
    ahead = norm(weight) + dot(direction, update)
    return jnp.arctan2(norm(across(weight, update)), ahead)


def effective_learning_rate(weight: Array, gradient: Array, update: Array) -> Array:
    """The rate at which a scale-invariant weight's direction moves: `|u| / (|g| |w|^2)`.

    `u` is the update's part at right angles to the weight `w`, which alone turns it. For SGD, with
    weight decay or without, that is `rate / |w|^2` (van Laarhoven 2017, Hoffer et al. 2018); for
    any other optimiser `|u| / |g|` stands in the place of the rate. A weight's direction `w/|w|`
    takes the steps that it would take, were it of norm one, at this rate.

    It means something only where a normaliser behind the layer takes the weight's scale away;
    there the gradient is at right angles to the weight.

    >>> w, g = jnp.array([2.0, 0.0]), jnp.array([0.0, 5.0])
    >>> f"{effective_learning_rate(w, g, -0.1 * g - 0.01 * w):.4f}"
    '0.0250'
    """
    return ratio(norm(across(weight, update)), norm(gradient) * norm(weight) ** 2)


@probe(paper="arXiv:1706.05350; arXiv:1803.01814; angular update: arXiv:2006.08419")
@dataclass(frozen=True)
class Updates:
    """What the next step would do to each layer's kernel.

    ratio: the update's norm over the weight's. angle: by how much the weight would turn, in
    radians. effective_learning_rate: see the function of that name; it means something where
    gradient_cosine, of the gradient and the weight, is zero but for rounding (1e-6): those weights
    are scale-invariant. weight_norm: the kernel's. spread: by how many powers of ten ratio differs
    between layers (`formulas.spread`): whether some layers learn faster than others, as a number.
    angle_spread: the same of angle.

    >>> Updates()
    Updates()
    """

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Each quantity for each layer, and two numbers of the whole network."""
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
