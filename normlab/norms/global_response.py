"""Global response normalisation: channels compete by how strongly they answer to an image."""

from dataclasses import dataclass

import jax.numpy as jnp

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import PerExample, per_channel, require_eps
from normlab.ops.moments import Sharing
from normlab.ops.normalise import centre
from normlab.sharding import on_any_mesh


@on_any_mesh
def global_response_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-6,
    mask: Array | None = None,
) -> Array:
    """Compute `x + scale * x * n + bias`; n is a channel's length over the mean of all lengths.

    A channel's length is the Euclidean one over the positions of an example (GRN, ConvNeXt V2;
    Woo et al. 2023). The input is added back, so with a scale and bias of zero nothing happens.

    Args:
        x: `(N, ..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        eps: added to the mean length, 1e-6 in the paper's code.
        mask: True where an element counts; the others add nothing and come out as zero.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[3.0, 0.0], [4.0, 3.0]]])
    >>> [f"{value:.2f}" for value in global_response_norm(x).ravel()]
    ['6.75', '0.00', '9.00', '5.25']
    """
    require_eps(eps)
    positions = Sharing(axes=tuple(range(1, x.ndim - 1)))
    about_zero, moments = centre(x, positions, mask=mask, about_zero=True)
    square = moments.m2
    # The root has no slope at zero; where a length is zero another number takes its place.
    length = jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
    response = length / (length.mean(axis=-1, keepdims=True) + eps)
    if scale is not None:
        response = response * per_channel("scale", scale, response)
    return about_zero.times(1 + response, bias=bias)


@normaliser(
    paper="arXiv:2301.00808",
    eps_is="added",
    group="example",
    after=("instance_norm",),
    aka=("GRN",),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class GlobalResponseNorm(PerExample):
    """Global response normalisation (GRN): as an identity at first, for scale and bias begin at 0.

    >>> import jax.numpy as jnp
    >>> norm = GlobalResponseNorm()
    >>> params, state = norm.init(features=2)
    >>> norm.apply(params, state, jnp.array([[[3.0, 1.0]]]), train=True)[0].tolist()
    [[[3.0, 1.0]]]
    """

    eps: float = 1e-6

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return {name: jnp.zeros_like(values) for name, values in params.items()}, state

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return global_response_norm(x, scale, bias, eps=self.eps, mask=mask)
