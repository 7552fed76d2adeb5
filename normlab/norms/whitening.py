"""The whitening family: channels of a batch decorrelated together, exactly or by iteration."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.errors import FieldError, require_field
from normlab.ops.affine import scale_and_shift
from normlab.ops.linear import linear
from normlab.ops.masks import fit_mask
from normlab.ops.normalise import centre
from normlab.ops.overflow import unless_overflowed
from normlab.ops.running import Running, less_running, move, over_batch


def inverse_root_by_newton(covariance: Array, iterations: int) -> Array:
    """Approximate `covariance^(-1/2)` of `(..., D, D)` by Newton's iteration.

    The covariance is divided by its trace, so that the iteration `P <- (3 P - P^3 S) / 2` from the
    identity converges; few steps leave the directions of least variance partly unwhitened.

    >>> root = inverse_root_by_newton(jnp.diag(jnp.array([1.0, 4.0])), 20)
    >>> [f"{value:.2f}" for value in jnp.diag(root)]
    ['1.00', '0.50']
    """
    trace = jnp.trace(covariance, axis1=-2, axis2=-1)[..., None, None]
    normal = covariance / unless_overflowed(trace)
    root = jnp.broadcast_to(jnp.eye(covariance.shape[-1], dtype=covariance.dtype), normal.shape)
    for _ in range(iterations):
        root = (3 * root - root @ root @ root @ normal) / 2
    return root / jnp.sqrt(trace)


@jax.custom_jvp
def inverse_root(covariance: Array) -> Array:
    """Compute `covariance^(-1/2)` of symmetric positive `(..., D, D)` by its eigenvectors.

    Its derivatives, of every order, are those of the root and not of the eigenvectors, which have
    none where two eigenvalues are equal.

    >>> [f"{value:.2f}" for value in jnp.diag(inverse_root(jnp.diag(jnp.array([1.0, 4.0]))))]
    ['1.00', '0.50']
    """
    values, vectors = jnp.linalg.eigh(covariance)
    return (vectors * (1 / jnp.sqrt(values))[..., None, :]) @ jnp.swapaxes(vectors, -1, -2)


@inverse_root.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (covariance,), (change,) = primals, tangents
    root = inverse_root(covariance)
    return root, -root @ _half_lyapunov(covariance, change) @ root


@jax.custom_jvp
def _half_lyapunov(covariance: Array, right: Array) -> Array:
    """Solve `R X + X R = right`, R the root of the covariance: X is how R moves with its square."""
    values, vectors = jnp.linalg.eigh(covariance)
    deviations = jnp.sqrt(values)
    transposed = jnp.swapaxes(vectors, -1, -2)
    sums = deviations[..., :, None] + deviations[..., None, :]
    return vectors @ ((transposed @ right @ vectors) / sums) @ transposed


@_half_lyapunov.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (covariance, right), (change, right_change) = primals, tangents
    x = _half_lyapunov(covariance, right)
    root_change = _half_lyapunov(covariance, change)
    return x, _half_lyapunov(covariance, right_change - root_change @ x - x @ root_change)


def by_channel(values: Array, groups: int) -> Array:
    """Lay out `(..., C)` as `(groups, C / groups, N)`, where each channel's values are adjacent.

    Products of small matrices with so many values are several times as fast then. The barriers
    keep XLA for CPUs from joining the transposition with what is around it, which undoes that.
    """
    size, channels = math.prod(values.shape[:-1]), values.shape[-1]
    columns = lax.optimization_barrier(values).reshape(size, channels).T
    return lax.optimization_barrier(columns.reshape(groups, channels // groups, size))


def by_position(values: Array, shape: tuple[int, ...]) -> Array:
    """Undo `by_channel` for values of that shape.

    >>> x = jnp.arange(12.0).reshape(3, 4)
    >>> bool((by_position(by_channel(x, groups=2), x.shape) == x).all())
    True
    """
    columns = lax.optimization_barrier(values).reshape(shape[-1], values.shape[-1])
    return lax.optimization_barrier(columns.T.reshape(shape))


@jax.custom_jvp
def products(values: Array) -> Array:
    """Multiply all pairs of channels of `(G, D, N)`, summed over N: `(G, D, D)`.

    JAX would derive two products each way, and one is enough because the result is symmetric.
    """
    return jnp.einsum("gdn,gen->gde", values, values)


@products.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    def tangent(values: Array, change: Array) -> Array:
        return _and_transposed(jnp.einsum("gdn,gen->gde", change, values))

    def cotangent(values: Array, change: Array) -> Array:
        return jnp.einsum("gde,gen->gdn", _and_transposed(change), values)

    return products(*primals), linear(tangent, cotangent, *primals, *tangents)


def _and_transposed(matrices: Array) -> Array:
    return matrices + jnp.swapaxes(matrices, -1, -2)


@dataclass(frozen=True, kw_only=True)
class _Whitening(Running, ABC):
    group_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.group_size
        require_field(size >= 1, "group_size", size, "a positive whole number")

    @abstractmethod
    def whiten(self, covariance: Array) -> Array:
        """Return the matrix that makes values of this covariance, `(G, D, D)`, uncorrelated."""

    def init(self, features: int) -> tuple[Params, State]:
        size = min(self.group_size, features)
        if features % size:
            raise FieldError(
                "group_size",
                f"group_size={size} does not divide the {features} channels of this layer",
            )
        params, state = super().init(features)
        identity = jnp.tile(jnp.eye(size, dtype=jnp.float32), (features // size, 1, 1))
        return params, {"mean": state["mean"], "whitening": identity}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        groups = x.shape[-1] // (size := min(self.group_size, x.shape[-1]))
        over = over_batch(x)
        if train:
            found, moments = centre(x, over, mask=mask, axis_name=self.axis_name)
            centred = by_channel(found.values, groups)
            covariance = self._covariance(centred, x, mask)
            least = self.eps * jnp.eye(size, dtype=covariance.dtype)
            whitening = self.whiten(covariance + least[None])
            state = self._moved(state, moments.mean, whitening, moments.count)
        else:
            centred = by_channel(less_running(x, state["mean"], mask), groups)
            whitening = state["whitening"].astype(centred.dtype)
        z = by_position(jnp.einsum("gde,gdn->gen", whitening, centred), x.shape)
        return scale_and_shift(z, x, params.get("scale"), params.get("bias"), mask), state

    def pool(self, states: State) -> State:
        """Average over microbatches, each whitened by its own matrix."""
        return {name: leaf.mean(axis=0) for name, leaf in states.items()}

    def _covariance(self, centred: Array, x: Array, mask: Array | None) -> Array:
        """Compute `(G, D, D)`: products over the root of both counts, so never indefinite."""
        counts = jnp.full(centred.shape[:2], centred.shape[2], centred.dtype)
        if mask is not None:
            kept = fit_mask(mask, x).astype(centred.dtype)
            counts = kept.sum(axis=tuple(range(x.ndim - 1))).reshape(counts.shape)
        sums = products(centred)
        if self.axis_name is not None:
            sums, counts = lax.psum((sums, counts), self.axis_name)
        roots = jnp.sqrt(jnp.maximum(counts, 1))
        return unless_overflowed(sums) / (roots[:, :, None] * roots[:, None, :])

    def _moved(self, state: State, mean: Array, whitening: Array, count: Array) -> State:
        shape = state["whitening"].shape
        # What is not finite in one channel has spoilt the matrix of its group.
        sound = jnp.isfinite(whitening).all(axis=(1, 2))
        count = jnp.where(jnp.repeat(sound, shape[1]), count.reshape(-1), 0)
        of_rows = jnp.broadcast_to(count.reshape(shape[0], shape[1], 1), shape)
        flat = move(
            {"whitening": state["whitening"].reshape(-1)},
            {"whitening": whitening},
            of_rows,
            self.momentum,
        )
        moved = move(state, {"mean": mean}, count, self.momentum)
        return {**moved, "whitening": flat["whitening"].reshape(shape)}


@normaliser(
    paper="arXiv:1804.08450",
    uses_batch=True,
    invariant_to=("channel shift",),
    group="batch",
    after=("batch_norm",),
    aka=("DBN",),
)
@dataclass(frozen=True, kw_only=True)
class DecorrelatedBatchNorm(_Whitening):
    """Batch normalisation that also takes the correlations between channels away (ZCA).

    Within each group of channels `z = (x - mean) (covariance + eps I)^(-1/2)` (Huang et al. 2018).
    The state is the running mean and the running whitening matrix of each group. A batch with
    fewer values than a group has channels leaves directions that are `eps` alone: keep groups
    small. With a mask that differs between channels, a masked element counts as the mean.

    It costs far more than batch normalisation, because it multiplies every group's values by
    small matrices five times, forward and backward, and lays the values out anew for that.

    Attributes:
        group_size: channels that are whitened together; a layer with fewer is one group.

    >>> import jax.numpy as jnp
    >>> norm = DecorrelatedBatchNorm()
    >>> x = jnp.array([[1.0, 1.0], [3.0, 5.0], [5.0, 3.0], [7.0, 7.0]])
    >>> y, _ = norm.apply(*norm.init(features=2), x, train=True)
    >>> [f"{value:.2f}" for value in (y.T @ y / 4).ravel()]
    ['1.00', '0.00', '0.00', '1.00']
    """

    def whiten(self, covariance: Array) -> Array:
        return inverse_root(covariance)


@normaliser(
    paper="arXiv:1904.03441",
    uses_batch=True,
    invariant_to=("channel shift",),
    group="batch",
    after=("decorrelated_batch_norm",),
    aka=("IterNorm",),
)
@dataclass(frozen=True, kw_only=True)
class IterativeNorm(_Whitening):
    """IterNorm: whitening by a few of Newton's steps, which stops short of weak directions.

    Within each group of channels `z = (x - mean) W`, W near `(covariance + eps I)^(-1/2)` (Huang
    et al. 2019). State, groups and masks are those of `DecorrelatedBatchNorm`.

    It costs as much as `DecorrelatedBatchNorm`: the products with the data are dear, and the
    iteration is not.

    Attributes:
        group_size: channels that are whitened together; a layer with fewer is one group. The
            authors' code whitens all channels of a layer together unless told otherwise.
        iterations: Newton's steps; the paper takes 5.

    >>> import jax.numpy as jnp
    >>> norm = IterativeNorm()
    >>> x = jnp.array([[1.0, 1.0], [3.0, 5.0], [5.0, 3.0], [7.0, 7.0]])
    >>> y, _ = norm.apply(*norm.init(features=2), x, train=True)
    >>> [f"{value:.1f}" for value in (y.T @ y / 4).ravel()]
    ['1.0', '0.0', '0.0', '1.0']
    """

    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.iterations >= 1, "iterations", self.iterations, "at least 1")

    def whiten(self, covariance: Array) -> Array:
        return inverse_root_by_newton(covariance, self.iterations)
