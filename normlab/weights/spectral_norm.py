"""Spectral normalisation: the kernel over its largest singular value, followed step by step."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, kernel_transform
from normlab.errors import KernelError, require_field
from normlab.sharding import on_any_mesh
from normlab.weights.units import fan_in, unit_length, widened

FIRST_ITERATIONS = 15
"""Of the power method in `init`, as in torch: from a random vector one alone falls far short."""


@on_any_mesh
def spectral_norm(kernel: Array, u: Array, v: Array) -> Array:
    """Compute `W / (v^T W u)` (Miyato et al. 2018); the derivative takes u and v as constants.

    Args:
        kernel: `(..., in, out)`, any floating dtype; so is the result. W is the kernel as a matrix
            `(fan_in, out)`.
        u: `(out,)`, of length one: W's first right singular vector, or near to it.
        v: `(fan_in,)`, of length one: the left one.

    Raises:
        KernelError: the kernel has no two axes, or a vector has another size.

    >>> import jax.numpy as jnp
    >>> kernel = jnp.array([[4.0, 0.0], [0.0, 2.0]])
    >>> spectral_norm(kernel, jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0])).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """
    w = widened(kernel)
    for name, vector, size in (("u", u, w.shape[-1]), ("v", v, fan_in(w))):
        if jnp.shape(vector) != (size,):
            raise KernelError(
                f"{name} has shape {jnp.shape(vector)}; a kernel of shape {w.shape} needs ({size},)"
            )
    u, v = lax.stop_gradient((u.astype(w.dtype), v.astype(w.dtype)))
    sigma = v @ _as_matrix(w) @ u
    sigma = jnp.where(jnp.isinf(sigma), jnp.nan, sigma)  # by which all would become zero
    return (w / jnp.where(sigma != 0, sigma, 1)).astype(kernel.dtype)


def power_iteration(kernel: Array, u: Array, v: Array, iterations: int) -> tuple[Array, Array]:
    """Move u and v nearer to the singular vectors: `v = W u / ||W u||`, `u = W^T v / ||W^T v||`.

    As in the paper's algorithm 1, each iteration begins with u, and the old v only stays where W
    takes u to zero, or to what is not finite, so that one such kernel does not lose them.

    >>> import jax.numpy as jnp
    >>> kernel, even = jnp.array([[4.0, 0.0], [0.0, 2.0]]), jnp.array([0.6, 0.8])
    >>> u, v = power_iteration(kernel, even, even, iterations=20)
    >>> u.round(3).tolist()
    [1.0, 0.0]
    """
    w = lax.stop_gradient(_as_matrix(widened(kernel)))

    def once(_: int, vectors: tuple[Array, Array]) -> tuple[Array, Array]:
        u, v = vectors
        v = _direction(w @ u, v)
        return _direction(v @ w, u), v

    return lax.fori_loop(0, iterations, once, (u.astype(w.dtype), v.astype(w.dtype)))


@kernel_transform(paper="arXiv:1802.05957", invariant_to=("kernel scale",), held_to="library")
@dataclass(frozen=True)
class SpectralNorm:
    """The kernel over its largest singular value, so that the layer stretches no input.

    The kernel is taken as a matrix `(height * width * in, out)`, as in the paper; the bound is that
    matrix's and not quite the convolution's. The state is its singular vectors `u` and `v`. In
    training a power iteration moves them before they are used, once a step however many
    microbatches a step has. In evaluation they are used as they are: Flax's iterates then too,
    without keeping it. torch begins an iteration with v, half of one behind.

    Attributes:
        iterations: of the power method in a training step.

    >>> import jax, jax.numpy as jnp
    >>> transform, kernel = SpectralNorm(), jnp.array([[4.0, 0.0], [0.0, 2.0]])
    >>> params, state = transform.init(jax.random.key(0), kernel)
    >>> transform.apply(params, state, kernel, train=True)[0].round(3).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """

    iterations: int = 1

    def __post_init__(self) -> None:
        valid = 1 <= self.iterations <= 100
        require_field(valid, "iterations", self.iterations, "between 1 and 100")

    def init(self, key: Array, kernel: Array) -> tuple[Params, State]:
        """Make no parameters; `u` and `v` begin at random, moved by some iterations."""
        w = widened(kernel)
        starts = [
            unit_length(jax.random.normal(one, (size, 1), w.dtype))[:, 0]
            for one, size in zip(jax.random.split(key), (w.shape[-1], fan_in(w)), strict=True)
        ]
        u, v = power_iteration(w, *starts, iterations=FIRST_ITERATIONS)
        return {}, {"u": u, "v": v}

    def apply(
        self, params: Params, state: State, kernel: Array, *, train: bool
    ) -> tuple[Array, State]:
        """Apply `spectral_norm` with the state, which an iteration moves first in training."""
        u, v = state["u"], state["v"]
        if train:
            u, v = power_iteration(kernel, u, v, self.iterations)
        return spectral_norm(kernel, u, v), {"u": u, "v": v}


def _as_matrix(kernel: Array) -> Array:
    return kernel.reshape(fan_in(kernel), kernel.shape[-1])


def _direction(vector: Array, old: Array) -> Array:
    """Divide a vector by its length; keep the old one where it is zero or not finite."""
    found = unit_length(vector[:, None])[:, 0]
    return jnp.where(jnp.any(found != 0) & jnp.all(jnp.isfinite(found)), found, old)
