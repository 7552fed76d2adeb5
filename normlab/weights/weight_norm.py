"""Weight normalisation: the length of a unit and its direction are learnt apart."""

from dataclasses import dataclass

import jax.numpy as jnp

from normlab.core import Array, Params, State, kernel_transform
from normlab.errors import require_field
from normlab.sharding import on_any_mesh
from normlab.weights.units import norm, per_unit, unit_length, widened


@on_any_mesh
def weight_norm(kernel: Array, gain: Array | None = None) -> Array:
    """Compute `gain * v / ||v||` for each unit `v` (Salimans & Kingma 2016, equation 2).

    Args:
        kernel: `(..., in, out)`, any floating dtype; so is the result.
        gain: `(out,)`, the length of each unit, or None for one.

    Raises:
        KernelError: a shape does not fit.

    >>> import jax.numpy as jnp
    >>> [f"{value:.1f}" for value in weight_norm(jnp.array([[3.0], [4.0]]), jnp.array([2.0]))[:, 0]]
    ['1.2', '1.6']
    """
    v = widened(kernel)
    w = unit_length(v)
    return (w if gain is None else w * per_unit(gain, v)).astype(kernel.dtype)


@dataclass(frozen=True)
class LearntLength:
    """The fields and the `init` of a transform whose units have a length of their own.

    Attributes:
        start: the length that every unit has at first. None is the length that it has as it is
            initialised, so that the layer starts as it would without this.
        use_gain: learn the lengths; False fixes them at `start`, which is then a number.
    """

    start: float | None = None
    use_gain: bool = True

    def __post_init__(self) -> None:
        positive = self.start is None or self.start > 0
        require_field(positive, "start", self.start, "a positive number or null")
        given = self.use_gain or self.start is not None
        require_field(given, "start", self.start, "a number where use_gain is false")

    def init(self, key: Array, kernel: Array) -> tuple[Params, State]:
        """Make a gain for each output, and no state."""
        if not self.use_gain:
            return {}, {}
        return {"gain": self._first_gain(self._direction(widened(kernel)))}, {}

    def _direction(self, kernel: Array) -> Array:
        """Return the units that are scaled to the learnt length."""
        return kernel

    def _first_gain(self, kernel: Array) -> Array:
        lengths = norm(kernel).reshape(-1)
        return lengths if self.start is None else jnp.full_like(lengths, self.start)

    def _gain(self, params: Params, kernel: Array) -> Array:
        if self.use_gain:
            return params["gain"]
        return jnp.full(kernel.shape[-1:], self.start or 1.0, widened(kernel).dtype)


@kernel_transform(paper="arXiv:1602.07868", invariant_to=("unit scale",), held_to="library")
@dataclass(frozen=True)
class WeightNorm(LearntLength):
    """A unit's length is learnt by itself, its kernel gives the direction alone.

    The layer starts as it was initialised, as with torch's `weight_norm`; Flax's starts with units
    of length one (`start: 1`), and another layer. The paper sets gain and bias from a first batch,
    which is not done here: no state or parameter depends on data before the first step.

    A unit of zeros has no direction and stays zero.

    Weight decay touches the kernel, not the gain, which has the role "norm" (`decay.roles`). Then
    it changes no output, only how far a step turns the direction. torch's decays both.

    >>> import jax, jax.numpy as jnp
    >>> transform, kernel = WeightNorm(), jnp.array([[3.0], [4.0]])
    >>> params, state = transform.init(jax.random.key(0), kernel)
    >>> params["gain"].tolist()
    [5.0]
    >>> [f"{w:.1f}" for w in transform.apply(params, state, kernel * 9, train=True)[0][:, 0]]
    ['3.0', '4.0']
    """

    def apply(
        self, params: Params, state: State, kernel: Array, *, train: bool
    ) -> tuple[Array, State]:
        """Apply `weight_norm` with the gain."""
        return weight_norm(kernel, self._gain(params, kernel)), state
