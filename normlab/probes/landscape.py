"""Measures the loss along the gradient, and how fast the gradient changes there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.errors import require_field
from normlab.probes.contract import Moment, Readings, Subject, probe
from normlab.probes.formulas import norm, ratio, scan
from normlab.probes.layers import gradient_at


class Slice(NamedTuple):
    """The loss along the gradient.

    Attributes:
        loss: `(S,)`, the loss after each step.
        gradient_change: `(S,)`, the norm of the change of the gradient.
        smoothness: `(S,)`, that change divided by the distance moved.
        start: `()`, the loss before the steps.
        gradient_norm: `()`, the gradient's norm before the steps.
    """

    loss: Array
    gradient_change: Array
    smoothness: Array
    start: Array
    gradient_norm: Array


def along_gradient(
    loss_and_gradient: Callable[[Any], tuple[Array, Any]], params: Any, steps: Array
) -> Slice:
    """Measure the loss at `params - step * gradient` for each step (Santurkar et al. 2018).

    Args:
        loss_and_gradient: a function of the parameters, such as
            `jax.jit(jax.value_and_grad(loss))`.
        params: a tree of arrays.
        steps: `(S,)`, the multiples of the gradient.

    >>> def quadratic(w):
    ...     return jnp.sum(jnp.array([1.0, 3.0]) * w**2) / 2
    >>> both = jax.value_and_grad(quadratic)
    >>> found = along_gradient(both, jnp.array([0.0, 1.0]), jnp.array([0.1, 0.2]))
    >>> [[f"{value:.2f}" for value in row] for row in (found.gradient_change, found.smoothness)]
    [['0.90', '1.80'], ['3.00', '3.00']]
    """
    start, gradient = loss_and_gradient(params)
    size = norm(gradient)

    def at(carry: tuple[()], step: Array) -> tuple[tuple[()], tuple[Array, Array]]:
        moved = jax.tree.map(lambda w, g: w - step.astype(w.dtype) * g, params, gradient)
        value, there = loss_and_gradient(moved)
        return carry, (value, norm(jax.tree.map(jnp.subtract, there, gradient)))

    _, (losses, changes) = scan(at, (), steps)
    return Slice(losses, changes, ratio(changes, steps * size), start, size)


@probe(
    paper="arXiv:1805.11604, section 3.2 and figure 4", leading=("loss", "gradient_change", "beta")
)
@dataclass(frozen=True, kw_only=True)
class Landscape:
    """Measures the loss and the change of the gradient along it (Santurkar et al. 2018).

    - step: the multiples of the gradient that are subtracted from the parameters.
    - loss: the loss after each step; lowest, highest: its extremes.
    - start, gradient_norm: the loss and the gradient's norm before the steps.
    - gradient_change: the norm of the change of the gradient. The smaller it is, the more
      predictive is the gradient.
    - smoothness: that change divided by the distance moved.
    - beta: the largest smoothness, the paper's effective beta-smoothness.

    The normalisers' state does not change, and the batch is the same at every step.

    Attributes:
        steps: the multiples of the gradient. Choose a range around the learning rates of interest.

    >>> Landscape(steps=(0.1, 0.2)).steps
    (0.1, 0.2)
    """

    steps: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4)

    def __post_init__(self) -> None:
        valid = len(self.steps) > 0 and all(step > 0 for step in self.steps)
        require_field(valid, "steps", self.steps, "a list of positive numbers")

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure vectors with one number for each step, and their extremes."""
        steps = jnp.asarray(self.steps, jnp.float32)
        found = along_gradient(gradient_at(subject, moment), moment.params, steps)
        return {
            "step": steps,
            "loss": found.loss,
            "gradient_change": found.gradient_change,
            "smoothness": found.smoothness,
            "start": found.start,
            "lowest": found.loss.min(),
            "highest": found.loss.max(),
            "beta": found.smoothness.max(),
            "gradient_norm": found.gradient_norm,
        }
