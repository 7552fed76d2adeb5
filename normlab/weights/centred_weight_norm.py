"""Centred weight normalisation: units without mean, and with a length that is learnt apart."""

from dataclasses import dataclass

from normlab.core import Array, Params, State, kernel_transform
from normlab.sharding import on_any_mesh
from normlab.weights.units import centre, per_unit, unit_length, widened
from normlab.weights.weight_norm import LearntLength


@on_any_mesh
def centred_weight_norm(kernel: Array, gain: Array | None = None) -> Array:
    """Compute `gain * (v - mean(v)) / ||v - mean(v)||` for each unit `v` of the kernel.

    Huang et al. 2017, "Centered Weight Normalization in Accelerating Training of Deep Neural
    Networks".

    Args:
        kernel: `(..., in, out)`, any floating dtype; so is the result.
        gain: `(out,)`, the length of each unit, or None for one.

    Raises:
        KernelError: a shape does not fit, or a unit has one number only.

    >>> import jax.numpy as jnp
    >>> [f"{value:.2f}" for value in centred_weight_norm(jnp.array([[1.0], [3.0]]))[:, 0]]
    ['-0.71', '0.71']
    """
    v = widened(kernel)
    w = unit_length(centre(v))
    return (w if gain is None else w * per_unit(gain, v)).astype(kernel.dtype)


@kernel_transform(paper="Huang et al. 2017, ICCV", invariant_to=("unit scale", "unit shift"))
@dataclass(frozen=True)
class CentredWeightNorm(LearntLength):
    """Weight normalisation of units whose mean is taken away first.

    By default the length is learnt and starts as that of the centred unit, which for He-normal
    kernels is about 1.4. The authors' code fixes it there unless told otherwise (`start: 1.414`,
    `use_gain: false`), and adds 1e-5 to the length that it divides by, where nothing is added here.
    A constant unit has no direction and becomes zero.

    >>> import jax, jax.numpy as jnp
    >>> transform, kernel = CentredWeightNorm(), jnp.array([[1.0], [5.0], [6.0]])
    >>> params, state = transform.init(jax.random.key(0), kernel)
    >>> [f"{w:.1f}" for w in transform.apply(params, state, kernel, train=True)[0][:, 0]]
    ['-3.0', '1.0', '2.0']
    """

    def _direction(self, kernel: Array) -> Array:
        return centre(kernel)

    def apply(
        self, params: Params, state: State, kernel: Array, *, train: bool
    ) -> tuple[Array, State]:
        """Apply `centred_weight_norm` with the gain."""
        return centred_weight_norm(kernel, self._gain(params, kernel)), state
