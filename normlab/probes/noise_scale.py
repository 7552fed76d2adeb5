"""How much of a gradient is noise: the batch size at which noise and signal are equal."""

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
    """What two batch sizes tell of the gradient and of its noise.

    Attributes:
        trace: of the covariance of one example's gradient.
        square: the squared norm of the gradient without noise.
    """

    trace: Array
    square: Array

    @property
    def scale(self) -> Array:
        """`trace / square`, in examples."""
        return self.trace / self.square


def noise_scale(gradient: Callable[[Any], Any], batch: Any, parts: int) -> Noise:
    """Both, each without bias, from a batch as a whole and in equal parts (McCandlish et al. 2018).

    The expected squared norm of the mean gradient of B examples is `square + trace / B`; two batch
    sizes make two equations. Their ratio has a bias nevertheless: over several batches, average
    each of the two, and divide at the end.

    Args:
        gradient: of the mean loss of a batch.
        batch: a tree of arrays `(N, ...)`.
        parts: into how many equal parts it is taken; divides N, at least 2.

    Raises:
        UserError: the batch cannot be taken in so many equal parts.

    >>> batch = jnp.array([1.0, 3.0, 1.0, 3.0])  # gradients of single examples: mean 2, variance 1
    >>> found = noise_scale(lambda examples: examples.mean(), batch, parts=4)
    >>> [f"{value:.3f}" for value in found]  # unbiased: 4/3, and 4 less a third
    ['1.333', '3.667']
    """
    size = len(jax.tree.leaves(batch)[0])
    if parts < 2 or size % parts:
        raise UserError(
            f"a batch of {size} examples cannot be taken in {parts} equal parts; set parts to a "
            f"divisor of it that is at least 2, or look at a batch that it divides"
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
    """The gradient noise scale: the batch size at which noise and gradient are of one size.

    noise_scale: trace over square, in examples (the paper's simple noise scale). trace: of the
    covariance of an example's gradient. square: the squared norm of the gradient without noise.
    Both are without bias and noisy themselves; average each over several moments before dividing.
    A square that is negative, and the scale with it, says that this batch is too small to tell.

    Where a normaliser uses the batch, an example has no gradient of its own. Then each part is
    normalised by its own statistics, as a microbatch is, and the noise is that of training with
    such a norm batch: it contains that of the statistics, and what depends on the part's size is
    taken for noise or gradient. Keep the parts as large as the norm batch.

    Attributes:
        parts: into how many equal parts the batch is taken. It must divide the batch; many tell
            more of the noise, few are nearer to the norm batch.

    >>> NoiseScale()
    NoiseScale(parts=8)
    """

    parts: int = 8

    def __post_init__(self) -> None:
        require_field(self.parts >= 2, "parts", self.parts, "a whole number of at least 2")

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Three numbers of the whole network."""

        def gradient(batch: tuple[Array, Array]) -> Any:
            part = moment._replace(images=batch[0], labels=batch[1])
            return loss_and_gradient(subject, part)[1]

        found = noise_scale(gradient, (moment.images, moment.labels), self.parts)
        return {"noise_scale": found.scale, "trace": found.trace, "square": found.square}
