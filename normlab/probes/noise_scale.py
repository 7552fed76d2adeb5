"""Measures the gradient noise scale: the batch size at which noise and signal are equal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from normlab.core import Array
from normlab.errors import UserError, require_field
from normlab.probes.contract import Moment, Readings, Subject, probe
from normlab.probes.formulas import norm, scan
from normlab.probes.layers import loss_and_gradient


class Noise(NamedTuple):
    """Estimates of the gradient and of its noise, from two batch sizes.

    Attributes:
        trace: the trace of the covariance of one example's gradient.
        square: the squared norm of the gradient without noise.
    """

    trace: Array
    square: Array

    @property
    def scale(self) -> Array:
        """`trace / square`, in examples."""
        return self.trace / self.square


def noise_scale(gradient: Callable[[Any], Any], batch: Any, parts: int) -> Noise:
    """Estimate gradient and noise from a whole batch and its equal parts (McCandlish et al. 2018).

    The expected squared norm of the mean gradient of B examples is `square + trace / B`, so two
    batch sizes give two equations. Both estimates are unbiased, but their ratio is not: average
    each over several batches before dividing.

    Args:
        gradient: the gradient of the mean loss of a batch.
        batch: a tree of arrays `(N, ...)`.
        parts: number of equal parts, at least 2 and a divisor of N.

    Raises:
        UserError: the batch cannot be divided into that many equal parts.

    >>> batch = jnp.array([1.0, 3.0, 1.0, 3.0])  # gradients of single examples: mean 2, variance 1
    >>> found = noise_scale(lambda examples: examples.mean(), batch, parts=4)
    >>> [f"{value:.3f}" for value in found]  # unbiased: 4/3, and 4 less a third
    ['1.333', '3.667']
    """
    size = len(jax.tree.leaves(batch)[0])
    if parts < 2 or size % parts:
        raise UserError(
            f"a batch of {size} examples cannot be divided into {parts} equal parts; set parts to "
            "a divisor of at least 2, or change the number of examples"
        )
    split = jax.tree.map(lambda leaf: leaf.reshape(parts, size // parts, *leaf.shape[1:]), batch)

    def one(total: Any, part: Any) -> tuple[Any, Array]:
        found = gradient(part)
        return jax.tree.map(jnp.add, total, found), norm(found) ** 2

    shape = jax.eval_shape(gradient, jax.tree.map(lambda leaf: leaf[0], split))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    total, squares = scan(one, nothing, split)
    small, large = squares.mean(), norm(jax.tree.map(lambda leaf: leaf / parts, total)) ** 2
    per_part = size // parts
    square = (size * large - per_part * small) / (size - per_part)
    return Noise((small - large) / (1 / per_part - 1 / size), square)


@probe(paper="arXiv:1812.06162, appendix A.1")
@dataclass(frozen=True, kw_only=True)
class NoiseScale:
    """Measures the gradient noise scale: the batch size at which noise and gradient are equal.

    - noise_scale: trace divided by square, in examples (the paper's simple noise scale).
    - trace: the trace of the covariance of an example's gradient.
    - square: the squared norm of the gradient without noise.

    Trace and square are unbiased but noisy; average each over several moments before dividing. If
    square is negative, the batch is too small for an estimate.

    If a normaliser uses the batch, an example has no gradient of its own. Each part is then
    normalised by its own statistics, like a microbatch, and the noise includes that of the
    statistics. Effects of the part's size are counted as noise or gradient, so keep the parts as
    large as the norm batch.

    Attributes:
        parts: number of equal parts, a divisor of the number of examples. Many parts estimate the
            noise better; few parts are closer to the norm batch.

    >>> NoiseScale()
    NoiseScale(parts=8)
    """

    parts: int = 8

    def __post_init__(self) -> None:
        require_field(self.parts >= 2, "parts", self.parts, "a whole number of at least 2")

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure three numbers for the whole network."""

        def gradient(batch: tuple[Array, Array]) -> Any:
            part = moment._replace(images=batch[0], labels=batch[1])
            return loss_and_gradient(subject, part)[1]

        found = noise_scale(gradient, (moment.images, moment.labels), self.parts)
        return {"noise_scale": found.scale, "trace": found.trace, "square": found.square}
