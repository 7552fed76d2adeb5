"""Layer normalisation, in the two senses that the field gives the name.

`layer_norm` normalises the channels of one position (a pixel, a token): what flax, keras and
ConvNeXt mean. `layer_norm_image` normalises all of an example at once: what Ba et al. describe for
convolutional layers and what Wu & He compare with, GroupNorm with one group. On `(N, C)` input
they are the same.
"""

from dataclasses import dataclass

from normlab.core import Array, normaliser
from normlab.norms.rms import RMSNorm
from normlab.ops.affine import PerExample, require_eps
from normlab.ops.moments import Sharing
from normlab.ops.normalise import normalise
from normlab.sharding import on_any_mesh


@on_any_mesh
def layer_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Give the channels of each position mean 0 and variance 1 (Ba et al. 2016).

    Args:
        x: `(..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        ShapeError: there is one channel only, or an argument's shape does not fit.

    >>> import jax.numpy as jnp
    >>> layer_norm(jnp.array([[1.0, 3.0], [10.0, 30.0]])).round(3).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    require_eps(eps)
    return normalise(x, Sharing(axes=(x.ndim - 1,)), scale, bias, eps=eps, mask=mask)[0]


@on_any_mesh
def layer_norm_image(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Give all positions and channels of each example mean 0 and variance 1.

    Args:
        x: `(N, ..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        ShapeError: an example is a single value, or an argument's shape does not fit.

    >>> import jax.numpy as jnp
    >>> layer_norm_image(jnp.array([[[1.0], [3.0]]])).round(3).tolist()
    [[[-1.0], [1.0]]]
    """
    require_eps(eps)
    sharing = Sharing(axes=tuple(range(1, x.ndim)))
    return normalise(x, sharing, scale, bias, eps=eps, mask=mask)[0]


@normaliser(
    paper="arXiv:1607.06450",
    invariant_to=("position scale", "position shift"),
    group="example",
    after=("batch_norm",),
    aka=("LN", "LayerNorm"),
    held_to="library",
)
@dataclass(frozen=True)
class LayerNorm(PerExample):
    """Layer normalisation over the channels of each position.

    The sense of flax, keras, transformers and ConvNeXt; see `LayerNormImage` for Wu & He's.

    >>> import jax.numpy as jnp
    >>> norm = LayerNorm()
    >>> params, state = norm.init(features=2)
    >>> y, state = norm.apply(params, state, jnp.array([[1.0, 3.0]]), train=True)
    >>> y.round(3).tolist()
    [[-1.0, 1.0]]
    """

    def without_mean(self) -> RMSNorm:
        """Return what is the same for channels of mean zero, which `fold(..., to="rms")` asks."""
        return RMSNorm(
            eps=self.eps,
            use_scale=self.use_scale,
            use_bias=self.use_bias,
            zero_centred=self.zero_centred,
        )

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return layer_norm(x, scale, bias, eps=self.eps, mask=mask)


@normaliser(
    paper="arXiv:1607.06450; so compared in arXiv:1803.08494",
    invariant_to=("example scale", "example shift"),
    group="example",
    after=("batch_norm",),
    aka=("LN over C, H, W", "GroupNorm with one group"),
    held_to="library",
)
@dataclass(frozen=True)
class LayerNormImage(PerExample):
    """Layer normalisation over all positions and channels of each example.

    The sense of Ba et al. for convolutional layers and of Wu & He's comparison; scale and bias are
    one a channel, as in GroupNorm with one group.

    >>> import jax.numpy as jnp
    >>> norm = LayerNormImage()
    >>> params, state = norm.init(features=1)
    >>> y, state = norm.apply(params, state, jnp.array([[[1.0], [3.0]]]), train=True)
    >>> y.round(3).tolist()
    [[[-1.0], [1.0]]]
    """

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return layer_norm_image(x, scale, bias, eps=self.eps, mask=mask)
