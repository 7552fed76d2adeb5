"""Scaled weight standardisation: units of mean zero and a length that is learnt, at first gamma."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, kernel_transform
from normlab.errors import require_field
from normlab.sharding import on_any_mesh
from normlab.weights.units import centre, fan_in, mean_square, per_unit, widened


@on_any_mesh
def scaled_weight_standardisation(
    kernel: Array,
    gain: Array | None = None,
    *,
    gamma: float = 1.0,
    floor: float = 1e-4,
    eps: float = 0.0,
) -> Array:
    """`gain * gamma * (w - mean) / sqrt(max((variance + eps) * fan_in, floor))` for each unit `w`.

    Brock et al. 2021 (arXiv:2101.08692, arXiv:2102.06171): a layer of such units
    keeps the variance of inputs that have mean zero.

    Args:
        kernel: `(..., in, out)`, any floating dtype; so is the result.
        gain: `(out,)` or None for one.
        gamma, floor, eps: see `ScaledWeightStandardisation`.

    Raises:
        KernelError: a shape does not fit, or a unit has one number only.

    >>> import jax.numpy as jnp
    >>> [f"{v:.2f}" for v in scaled_weight_standardisation(jnp.array([[1.0], [3.0]]))[:, 0]]
    ['-0.71', '0.71']
    """
    _require(gamma, floor, eps)
    w = widened(kernel)
    centred = centre(w)
    square = (mean_square(centred) + eps) * fan_in(kernel)
    scaled = centred * (gamma * lax.rsqrt(jnp.maximum(square, floor)))
    return (scaled if gain is None else scaled * per_unit(gain, w)).astype(kernel.dtype)


def _require(gamma: float, floor: float, eps: float) -> None:
    require_field(0 < gamma < 1e30, "gamma", gamma, "a positive number")
    require_field(eps >= 0, "eps", eps, "at least 0")
    safe = floor >= 0 and floor + eps > 0
    require_field(safe, "floor", floor, "at least 0, and above it where eps is 0")


@kernel_transform(
    paper="arXiv:2101.08692, arXiv:2102.06171",
    invariant_to=("unit scale", "unit shift"),
    held_to="library",
)
@dataclass(frozen=True)
class ScaledWeightStandardisation:
    """Weight standardisation over the root of the fan-in, with a learnt gain for each unit.

    What networks without a normaliser are built with. The default is the authors' code (NFNets).
    timm's `ScaledStdConv2d` has no floor (`floor: 0`), and `eps: 1e-6` in the variance.

    Attributes:
        gamma: a constant factor for the activation that comes before, which makes up for the
            variance that it takes: for ReLU sqrt(2 / (1 - 1/pi)), about 1.713. The authors' code
            puts it into the activation instead, so it is 1 here.
        floor: the least that the sum of a unit's squared deviations counts as.
        eps: added to the variance.
        use_gain: learn a gain for each unit, one at first; False fixes it at one.

    >>> import jax, jax.numpy as jnp
    >>> transform, kernel = ScaledWeightStandardisation(), jnp.array([[1.0], [3.0]])
    >>> params, state = transform.init(jax.random.key(0), kernel)
    >>> params["gain"].tolist()
    [1.0]
    >>> [f"{w:.2f}" for w in transform.apply(params, state, kernel, train=True)[0][:, 0]]
    ['-0.71', '0.71']
    """

    gamma: float = 1.0
    floor: float = 1e-4
    eps: float = 0.0
    use_gain: bool = True

    def __post_init__(self) -> None:
        _require(self.gamma, self.floor, self.eps)

    def init(self, key: Array, kernel: Array) -> tuple[Params, State]:
        """Make a gain of one for each output, and no state."""
        ones = jnp.ones(kernel.shape[-1:], widened(kernel).dtype)
        return ({"gain": ones} if self.use_gain else {}), {}

    def apply(
        self, params: Params, state: State, kernel: Array, *, train: bool
    ) -> tuple[Array, State]:
        """Apply `scaled_weight_standardisation` with these fields and the gain."""
        scaled = scaled_weight_standardisation(
            kernel, params.get("gain"), gamma=self.gamma, floor=self.floor, eps=self.eps
        )
        return scaled, state
