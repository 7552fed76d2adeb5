"""The controls family: no normaliser at all, and a scale and bias without any normalising.

A gain over `identity` that `affine` shows too is not a gain from normalising.
"""

from dataclasses import dataclass
from typing import ClassVar

from normlab.catalogue import later
from normlab.core import Array, Facts, Params, State, normaliser
from normlab.ops.affine import affine_params, scale_and_shift
from normlab.ops.masks import zero_masked
from normlab.ops.moments import statistics_dtype
from normlab.sharding import on_any_mesh


@on_any_mesh
def affine(
    x: Array, scale: Array | None = None, bias: Array | None = None, *, mask: Array | None = None
) -> Array:
    """Compute `x * scale + bias`, channel by channel.

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        mask: True where an element counts; the others come out as zero.

    >>> import jax.numpy as jnp
    >>> affine(jnp.array([[1.0, 2.0]]), jnp.array([2.0, 3.0]), jnp.array([0.5, 0.0])).tolist()
    [[2.5, 6.0]]
    """
    z = zero_masked(x.astype(statistics_dtype(x)), mask)
    return scale_and_shift(z, x, scale, bias, mask)


@normaliser(
    paper="control: no normalisation",
    identity=True,
    group="element-wise",
    aka=("none", "no normalisation"),
)
@dataclass(frozen=True)
class Identity:
    """No normalisation: the input comes back as it is.

    >>> import jax.numpy as jnp
    >>> Identity().apply({}, {}, jnp.array([[3.0]]), train=True)[0].tolist()
    [[3.0]]
    """

    facts: ClassVar[Facts]

    def init(self, features: int) -> tuple[Params, State]:
        return {}, {}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        statistics_dtype(x)  # which refuses whole numbers, as every other entry does
        return zero_masked(x, mask), state


@normaliser(
    paper="control: scale and bias alone (compare Frankle et al. 2020, arXiv:2003.00152)",
    affine_in_evaluation=True,
    group="element-wise",
    after=("identity",),
    aka=("scale and shift",),
)
@dataclass(frozen=True)
class Affine:
    """A learnt scale and bias for each channel, without any normalising.

    Attributes:
        use_scale: learn a scale for each channel; False fixes it at 1.
        use_bias: learn a bias for each channel; False fixes it at 0.
        zero_centred: keep the scale as its distance from one, `1 + scale`, so that it begins at
            zero and weight decay pulls it to one (as in Gemma and Transformer Engine).

    >>> import jax.numpy as jnp
    >>> norm = Affine()
    >>> params, state = norm.init(features=1)
    >>> norm.apply(params, state, jnp.array([[3.0]]), train=True)[0].tolist()
    [[3.0]]
    """

    facts: ClassVar[Facts]

    use_scale: bool = True
    use_bias: bool = True
    zero_centred: bool = later(False)

    def init(self, features: int) -> tuple[Params, State]:
        return affine_params(features, self.use_scale, self.use_bias), {}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        return affine(x, params.get("scale"), params.get("bias"), mask=mask), state
