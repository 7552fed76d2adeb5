"""Measures how the signal changes forward through the network, and the gradient backward."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.probes.contract import Moment, PerLayer, Readings, Subject, probe
from normlab.probes.formulas import norm, ratio
from normlab.probes.layers import inputs_and_gradients


def similarity(values: Array) -> Array:
    """Compute the mean cosine between the vectors of two different examples, `(N, ..., C)`.

    It is 1 if all examples are alike, so that no later layer can distinguish them.

    >>> similarity(jnp.array([[1.0, 0.0], [0.0, 2.0]])).item()
    0.0
    """
    rows = values.reshape(values.shape[0], -1)
    rows = rows / jnp.abs(rows).max(initial=1e-30)
    unit = ratio(rows, jnp.broadcast_to(jnp.linalg.norm(rows, axis=1, keepdims=True), rows.shape))
    pairs = max(len(rows) * (len(rows) - 1), 1)
    return (jnp.sum(unit.sum(axis=0) ** 2) - jnp.sum(unit**2)) / pairs


def growth(squares: Array) -> Array:
    """Compute the factor by which a positive quantity grows from each layer to the previous one.

    It is the geometric mean over the layers, `(first / last) ** (1 / (L - 1))`.

    >>> f"{growth(jnp.array([8.0, 4.0, 2.0])):.3f}"
    '2.000'
    """
    steps = max(len(squares) - 1, 1)
    tiny = jnp.finfo(squares.dtype).tiny
    first, last = (jnp.log(jnp.maximum(value, tiny)) for value in (squares[0], squares[-1]))
    return jnp.exp((first - last) / steps)


@probe(
    paper="arXiv:1611.01232; gradients through batch normalisation: arXiv:1902.08129",
    leading=("square", "gradient", "similarity"),
)
@dataclass(frozen=True)
class Propagation:
    """Measures signal propagation by depth; at initialisation it predicts whether nets can train.

    For the input of each layer but the first:

    - square: the mean square.
    - similarity: the mean cosine between two examples, 1 if all are alike.
    - gradient: the squared gradient of the loss with respect to the input, summed over the batch.

    For the whole network:

    - growth: the factor by which `gradient` grows per layer on the way back, the geometric mean
      over the depth. At 1 gradients neither vanish nor explode. Batch normalisation alone gives
      `(B - 2)/(B - 3)` in a wide and deep linear network and about `pi/(pi - 1)` with ReLUs (Yang
      et al. 2019). The layer next to the head contributes less, because batch normalisation removes
      the batch mean of the loss's gradient there. In a network of 20 layers this lowers growth by
      1 to 2 %.
    - signal_growth: the factor by which `square` grows per layer forward.

    >>> Propagation()
    Propagation()
    """

    @partial(jax.jit, static_argnums=(0, 1))
    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure each quantity for each layer, and two numbers for the whole network."""
        found = inputs_and_gradients(subject, moment)

        def each(values: list[Array]) -> PerLayer:
            return PerLayer(jnp.stack(values), tuple(found))

        square = each([jnp.mean(x**2) for x, _ in found.values()])
        gradient = each([norm(g) ** 2 for _, g in found.values()])
        return {
            "square": square,
            "similarity": each([similarity(x) for x, _ in found.values()]),
            "gradient": gradient,
            "growth": growth(gradient.values),
            "signal_growth": growth(square.values[::-1]),
        }
