"""Adaptive layer normalisation: scale and bias are a linear map of a condition."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from normlab.core import Array, Facts, Params, State, normaliser
from normlab.errors import ShapeError
from normlab.norms.layer import layer_norm
from normlab.ops.affine import affine_params, require_eps
from normlab.ops.masks import zero_masked
from normlab.ops.moments import statistics_dtype
from normlab.ops.per_example import per_example, require_count


@normaliser(
    paper="arXiv:2212.09748, section 3.2; arXiv:1709.07871",
    invariant_to=("position scale", "position shift"),
    group="example",
    after=("layer_norm", "conditional_batch_norm"),
    aka=("AdaLN",),
)
@dataclass(frozen=True, kw_only=True)
class AdaptiveLayerNorm:
    """AdaLN: `layer_norm(x) * (1 + c @ to_scale) + c @ to_bias`, for a condition c of each example.

    The layer normalisation has no scale and bias of its own, as in Peebles & Xie 2023 (DiT). A
    condition is a vector, such as the embedding of a class and a time after its activation; or a
    whole number, for which a row of `to_scale` and of `to_bias` is looked up. Both begin at zero.
    A bias of the linear map is a condition that is one everywhere.

    Attributes:
        conditions: the length of a condition's vector, or how many whole numbers there are.
        eps: added to the variance.
        use_scale: learn `to_scale`; without it the scale is one.
        use_bias: learn `to_bias`; without it the bias is zero.

    >>> import jax.numpy as jnp
    >>> norm = AdaptiveLayerNorm(conditions=2)
    >>> params, state = norm.init(features=2)
    >>> params["to_bias"] = jnp.array([[0.0, 0.0], [10.0, 10.0]])
    >>> x = jnp.array([[1.0, 3.0], [1.0, 3.0]])
    >>> y, _ = norm.apply(params, state, x, train=True, condition=jnp.array([0, 1]))
    >>> [f"{value:.1f}" for value in y.ravel()]
    ['-1.0', '1.0', '9.0', '11.0']
    """

    facts: ClassVar[Facts]

    conditions: int = 2
    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True

    def __post_init__(self) -> None:
        require_eps(self.eps)
        require_count("conditions", self.conditions)

    def init(self, features: int) -> tuple[Params, State]:
        given = affine_params(features, self.use_scale, self.use_bias)
        return {f"to_{name}": self._from_zero(features) for name in given}, {}

    def apply(
        self,
        params: Params,
        state: State,
        x: Array,
        *,
        train: bool,
        mask: Array | None = None,
        condition: Array | None = None,
    ) -> tuple[Array, State]:
        """Apply it as every normaliser.

        Args:
            params, state, x, train, mask: as every normaliser takes them.
            condition: `(N,)` whole numbers or `(N, conditions)`; the first for all if absent.

        Raises:
            ShapeError: the condition has another shape.
        """
        z = layer_norm(x.astype(statistics_dtype(x)), eps=self.eps, mask=mask)
        mapped = {name: self._mapped(leaf, condition, z) for name, leaf in params.items()}
        if "to_scale" in mapped:
            z = z * (1 + mapped["to_scale"])
        if "to_bias" in mapped:
            z = z + mapped["to_bias"]
        return zero_masked(z.astype(x.dtype), mask), state

    def _from_zero(self, features: int) -> Array:
        return jnp.zeros((self.conditions, features), jnp.float32)

    def _mapped(self, leaf: Array, condition: Array | None, z: Array) -> Array:
        """Map the conditions by a leaf, `(N, C)` ready to broadcast to `z`."""
        if condition is None:
            condition = jnp.zeros(z.shape[0], jnp.int32)
        whole = jnp.issubdtype(condition.dtype, jnp.integer)
        shape = z.shape[:1] if whole else (z.shape[0], self.conditions)
        if condition.shape != shape:
            raise ShapeError(
                f"the condition has shape {condition.shape} and dtype {condition.dtype}; give "
                f"{z.shape[0]} whole numbers, or floats of shape {(z.shape[0], self.conditions)}"
            )
        if whole:
            condition = jax.nn.one_hot(condition, self.conditions, dtype=z.dtype)
        return per_example(condition.astype(z.dtype) @ leaf.astype(z.dtype), z)


@normaliser(
    paper="arXiv:2212.09748, section 3.2",
    invariant_to=("position scale", "position shift"),
    group="example",
    after=("adaptive_layer_norm",),
    aka=("AdaLN-Zero",),
)
@dataclass(frozen=True, kw_only=True)
class AdaptiveLayerNormZero(AdaptiveLayerNorm):
    """AdaLN-Zero: adaptive layer normalisation, and a gate for the branch that it stands before.

    `apply` is that of `AdaptiveLayerNorm`. The branch that takes its output is to be multiplied by
    `gate`, `c @ to_gate`, which begins at zero, so that every residual block begins as the
    identity (Peebles & Xie 2023).

    >>> import jax.numpy as jnp
    >>> norm, x = AdaptiveLayerNormZero(conditions=2), jnp.array([[1.0, 3.0]])
    >>> params, state = norm.init(features=2)
    >>> y, _ = norm.apply(params, state, x, train=True, condition=jnp.array([1]))
    >>> (x + norm.gate(params, y, condition=jnp.array([1])) * jnp.tanh(y)).tolist()
    [[1.0, 3.0]]
    """

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return {**params, "to_gate": self._from_zero(features)}, state

    def gate(self, params: Params, y: Array, condition: Array | None = None) -> Array:
        """Return the factor of the branch, which broadcasts to its output `y`, in y's dtype."""
        wide = y.astype(statistics_dtype(y))
        return self._mapped(params["to_gate"], condition, wide).astype(y.dtype)
