"""Weight standardisation: units of mean zero and deviation one."""

from dataclasses import dataclass

from jax import lax

from normlab.core import Array, Params, State, kernel_transform
from normlab.errors import require_field
from normlab.sharding import on_any_mesh
from normlab.weights.units import centre, fan_in, mean_square, positive_root, widened


@on_any_mesh
def weight_standardisation(
    kernel: Array, *, eps: float = 1e-5, unbiased: bool = True, eps_in_variance: bool = False
) -> Array:
    """Compute `(w - mean(w)) / deviation(w)` for each unit `w` of the kernel (Qiao et al. 2019).

    Args:
        kernel: `(..., in, out)`, any floating dtype; so is the result.
        eps, unbiased, eps_in_variance: how the deviation is taken; see `WeightStandardisation`.

    Raises:
        KernelError: a unit has one number only.

    >>> import jax.numpy as jnp
    >>> kernel = jnp.array([[1.0], [2.0], [3.0]])
    >>> [f"{value:.2f}" for value in weight_standardisation(kernel)[:, 0]]
    ['-1.00', '0.00', '1.00']
    >>> [f"{value:.2f}" for value in weight_standardisation(kernel, unbiased=False)[:, 0]]
    ['-1.22', '0.00', '1.22']
    """
    _require_eps(eps)
    centred = centre(widened(kernel))
    size = fan_in(kernel)
    variance = mean_square(centred) * (size / (size - 1) if unbiased else 1)
    if eps_in_variance:
        standardised = centred * lax.rsqrt(variance + eps)
    else:
        standardised = centred / (positive_root(variance) + eps)
    return standardised.astype(kernel.dtype)


def _require_eps(eps: float) -> None:
    require_field(0 < eps < 1e30, "eps", eps, "a positive number")


@kernel_transform(
    paper="arXiv:1903.10520", invariant_to=("unit scale", "unit shift"), held_to="library"
)
@dataclass(frozen=True)
class WeightStandardisation:
    """Each unit less its mean, over its deviation; nothing is learnt beside the kernel.

    The field has several formulas under this name, 6% apart at 9 inputs a unit, and further where
    weights are small. The default is the authors' code. Their paper's equation is `unbiased: false`
    with `eps_in_variance: true` (it gives no eps), timm's `StdConv2d` that with `eps: 1e-6`.
    DeepMind's is another transform, `scaled_weight_standardisation`.

    Attributes:
        eps: what is added to the deviation, so that a constant unit becomes zero.
        unbiased: divide the sum of squares by the number of inputs less one.
        eps_in_variance: add eps to the variance, inside the root, instead of to the deviation.
            There the same number weighs far more: at a deviation of 1e-3, 1e-6 takes 30% away.

    >>> import jax, jax.numpy as jnp
    >>> transform, kernel = WeightStandardisation(), jnp.array([[1.0], [2.0], [3.0]])
    >>> params, state = transform.init(jax.random.key(0), kernel)
    >>> [f"{w:.2f}" for w in transform.apply(params, state, kernel, train=True)[0][:, 0]]
    ['-1.00', '0.00', '1.00']
    """

    eps: float = 1e-5
    unbiased: bool = True
    eps_in_variance: bool = False

    def __post_init__(self) -> None:
        _require_eps(self.eps)

    def init(self, key: Array, kernel: Array) -> tuple[Params, State]:
        """Make nothing: there are no parameters and no state."""
        return {}, {}

    def apply(
        self, params: Params, state: State, kernel: Array, *, train: bool
    ) -> tuple[Array, State]:
        """Apply `weight_standardisation` with these fields."""
        standardised = weight_standardisation(
            kernel, eps=self.eps, unbiased=self.unbiased, eps_in_variance=self.eps_in_variance
        )
        return standardised, state
