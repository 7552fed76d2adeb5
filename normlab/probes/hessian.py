"""Measures the sharpest directions of the loss: extreme eigenvalues of its Hessian, by Lanczos."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from normlab.core import Array
from normlab.errors import UserError, require_field
from normlab.probes.contract import Moment, Readings, Subject, probe
from normlab.probes.formulas import SMALLEST, scan
from normlab.probes.layers import loss_of, require_true_gradient


class Spectrum(NamedTuple):
    """Ritz values in descending order; the largest and the smallest are the most accurate.

    Attributes:
        values: `(k,)`, each within `error` of an eigenvalue.
        error: `(k,)`, the norm of each residual.
    """

    values: Array
    error: Array


def hessian_vector_product(loss: Callable[[Any], Array], params: Any) -> Callable[[Any], Any]:
    """Return the function `v -> H v` of the loss's Hessian at `params`, forward over reverse.

    >>> product = hessian_vector_product(lambda w: jnp.sum(w**4), jnp.array([1.0, 2.0]))
    >>> product(jnp.array([1.0, 0.0])).tolist()
    [12.0, 0.0]
    """
    return lambda v: jax.jvp(jax.grad(loss), (params,), (v,))[1]


def lanczos(product: Callable[[Array], Array], start: Array, iterations: int) -> Spectrum:
    """Compute eigenvalues of a symmetric map by Lanczos' method with full reorthogonalisation.

    Without reorthogonalisation, rounding makes copies of the eigenvalues found first. The method
    stores `iterations` vectors and computes as many products. A multiple eigenvalue is found at
    least once and at most as often as its multiplicity, because a Krylov space holds one direction
    of each eigenspace until rounding adds the next.

    Args:
        product: the map `v -> A v` of vectors `(n,)`.
        start: a start vector `(n,)` that is not orthogonal to the eigenvectors, usually random.
        iterations: the size of the Krylov space. A size beyond `n`, or beyond the number of
            distinct eigenvalues, adds nothing.

    Returns:
        `iterations` Ritz values. If the space is exhausted earlier, the last values repeat the
        smallest.

    >>> diagonal = jnp.array([4.0, 1.0, -2.0])
    >>> found = lanczos(lambda v: diagonal * v, jnp.ones(3), iterations=3)
    >>> [f"{value:.2f}" for value in found.values]
    ['4.00', '1.00', '-2.00']
    """

    def one(carry: tuple[Array, Array, Array], number: Array) -> tuple[Any, tuple[Array, ...]]:
        basis, v, alive = carry
        basis = basis.at[number].set(v)
        w = product(v)
        alpha = jnp.vdot(v, w)
        size = jnp.linalg.norm(w)
        for _ in range(2):  # one pass leaves rounding errors, and two are enough (Parlett)
            w = w - basis.T @ (basis @ w)
        beta = jnp.linalg.norm(w)
        goes_on = alive & (beta > 10 * jnp.finfo(w.dtype).eps * jnp.maximum(size, SMALLEST))
        v = jnp.where(goes_on, w / jnp.where(goes_on, beta, 1), jnp.zeros_like(w))
        return (basis, v, goes_on), (alpha, jnp.where(goes_on, beta, 0), alive)

    v = start / jnp.linalg.norm(start)
    basis = jnp.zeros((iterations, start.size), start.dtype)
    begin = (basis, v, jnp.ones((), bool))
    _, (alpha, beta, alive) = scan(one, begin, jnp.arange(iterations))
    # Entries beyond an exhausted space become eigenvalues below all others.
    bound = jnp.abs(alpha).max() + 2 * beta.max() + 1
    diagonal = jnp.where(alive, alpha, -4 * bound)
    matrix = jnp.diag(diagonal) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    values, vectors = jnp.linalg.eigh(matrix)
    error = jnp.abs(beta[-1] * vectors[-1])
    values, error = values[::-1], error[::-1]
    last = alive.sum() - 1
    found = jnp.arange(iterations) <= last
    return Spectrum(jnp.where(found, values, values[last]), jnp.where(found, error, error[last]))


@partial(jax.jit, static_argnums=0)
def _product(subject: Subject, moment: Moment, flat: Array) -> Array:
    point, unravel = ravel_pytree(moment.params)
    loss = loss_of(subject, moment)
    return hessian_vector_product(lambda flat: loss(unravel(flat)), point)(flat)


@probe(paper="Lanczos 1950; arXiv:1901.10159", leading=("largest", "smallest"))
@dataclass(frozen=True, kw_only=True)
class Hessian:
    """Measures the extreme eigenvalues of the Hessian of the training loss by Lanczos' method.

    The loss is the training loss of this batch, with batch statistics if the normaliser uses them.

    - largest: the largest eigenvalues. A multiple eigenvalue appears at least once, and with enough
      iterations as often as its multiplicity.
    - smallest: the most negative eigenvalue.
    - error: each of `largest` lies within this distance of an eigenvalue.

    The probe measures the edges of the spectrum and not its bulk, so it does not give the trace. It
    costs about two training steps per iteration and stores as many copies of the parameters. It
    raises `UserError` for a normaliser whose backward pass has a memory, because then there is no
    Hessian.

    Attributes:
        count: number of largest eigenvalues.
        iterations: the size of the Krylov space; a larger one makes the error smaller.
        seed: the seed of the start vector.

    >>> Hessian(count=1, iterations=10)
    Hessian(count=1, iterations=10, seed=0)
    """

    count: int = 3
    iterations: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        require_field(self.count >= 1, "count", self.count, "a positive whole number")
        enough = self.iterations >= self.count
        require_field(enough, "iterations", self.iterations, f"at least count={self.count}")

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure a vector of `count` eigenvalues, a vector of errors, and the smallest."""
        require_true_gradient(subject, moment, "the Hessian")
        flat, _ = ravel_pytree(moment.params)
        if flat.dtype != jnp.float32:
            raise UserError(f"the Hessian needs float32 parameters, got {flat.dtype}")
        product = partial(_product, subject, moment)
        start = jax.random.normal(jax.random.key(self.seed), flat.shape)
        found = lanczos(product, start, min(self.iterations, flat.size))
        count = min(self.count, flat.size)
        return {
            "largest": found.values[:count],
            "smallest": found.values[-1],
            "error": found.error[:count],
        }
