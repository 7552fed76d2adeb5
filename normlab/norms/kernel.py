"""Kernel normalisation: one mean and variance for each window of each example."""

import math
from dataclasses import dataclass
from itertools import chain

import jax.numpy as jnp
from jax import lax

from normlab.core import Array, normaliser
from normlab.errors import ShapeError, require_field
from normlab.ops.affine import PerExample, require_eps, scale_and_shift
from normlab.ops.masks import fit_mask
from normlab.ops.moments import Sharing, statistics_dtype
from normlab.ops.normalise import normalise
from normlab.sharding import on_any_mesh


@on_any_mesh
def kernel_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    window: int = 3,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Give the positions and channels of each window mean 0 and variance 1 (Nasirigerdeh et al.).

    The windows lie side by side from the first corner. Those at the far edges hold what is left
    there, which the authors' code leaves out of its result. With a window as large as the image it
    is `layer_norm_image`.

    Args:
        x: `(N, ..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        window: how many positions a window has along each axis.
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        FieldError: the window is not a positive whole number.
        ShapeError: a window holds a single value, or an argument's shape does not fit.

    >>> import jax.numpy as jnp
    >>> kernel_norm(jnp.array([[[1.0], [3.0], [10.0], [30.0]]]), window=2).round(3).tolist()
    [[[-1.0], [1.0], [-1.0], [1.0]]]
    """
    require_eps(eps)
    require_window(window)
    sides = [min(window, side) or 1 for side in x.shape[1:-1]]
    tiles = [-(-side // own) for side, own in zip(x.shape[1:-1], sides, strict=True)]
    _require_several(x.shape, sides)
    more = [t * own - side for t, own, side in zip(tiles, sides, x.shape[1:-1], strict=True)]
    if any(more):
        mask = jnp.ones(x.shape, bool) if mask is None else mask
    padding = [(0, 0), *((0, extra) for extra in more), (0, 0)]

    def tiled(values: Array) -> Array:
        values = jnp.pad(values, padding)
        return values.reshape(x.shape[0], *chain(*zip(tiles, sides, strict=True)), x.shape[-1])

    keep = None if mask is None else tiled(fit_mask(mask, x))
    over = tuple(range(2, 2 + 2 * len(sides), 2))
    sharing = Sharing((*over, 1 + 2 * len(sides)))
    y, _ = normalise(tiled(x), sharing, scale, bias, eps=eps, mask=keep)
    y = y.reshape(x.shape[0], *(t * own for t, own in zip(tiles, sides, strict=True)), x.shape[-1])
    return y[tuple(slice(0, size) for size in x.shape)]


def _require_several(shape: tuple[int, ...], sides: list[int]) -> None:
    """Raise `ShapeError` if a window, perhaps that of the far corner, holds one value."""
    least = [side % own or own for side, own in zip(shape[1:-1], sides, strict=True)]
    if math.prod((*least, shape[-1])) == 1 and math.prod(shape):
        raise ShapeError(
            f"an input of shape {shape} leaves one value to take a mean and variance of in a "
            "window; use another window, or more channels"
        )


def require_window(window: int) -> None:
    """Raise `FieldError` unless it can be the side of a window."""
    require_field(window >= 1, "window", window, "a positive whole number")


@on_any_mesh
def kernel_norm_convolution(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    eps: float = 1e-5,
) -> Array:
    """Convolve windows that are each normalised first (KNConv; Nasirigerdeh et al. 2022).

    The windows are those of the convolution and overlap as they do, with the zeros of the padding
    counted. The normalised windows are never formed: a window's mean leaves the result as the
    mean times the sum of the kernel, and its deviation divides the result.

    Args:
        x: `(N, H, W, C)`, any floating dtype; so is the result.
        kernel: `(h, w, C, D)`.
        bias: `(D,)` or None for zero.
        stride: of the windows, along both axes.
        padding: zeros at each side of the image.
        eps: added to the variance.

    Returns:
        `(N, H', W', D)`.

    >>> import jax.numpy as jnp
    >>> x, kernel = jnp.array([[[[1.0], [3.0], [7.0]]]]), jnp.array([[[[1.0]], [[3.0]]]])
    >>> kernel_norm_convolution(x, kernel).round(3).ravel().tolist()
    [2.0, 2.0]
    """
    require_eps(eps)
    z = x.astype(statistics_dtype(x))
    z = jnp.pad(z, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    # Any shift leaves the result alone, and one to the middle keeps its digits.
    z = z - lax.stop_gradient(z.mean(axis=(1, 2, 3), keepdims=True))
    kernel = kernel.astype(z.dtype)
    size = math.prod(kernel.shape[:-1])
    convolved = _convolved(z, kernel, stride)
    ones = jnp.ones((*kernel.shape[:-1], 1), z.dtype)
    mean = _convolved(z, ones, stride) / size
    variance = jnp.maximum(_convolved(z**2, ones, stride) / size - mean**2, 0)
    weight = kernel.sum(axis=(0, 1, 2)).reshape(1, 1, 1, -1)
    y = (convolved - mean * weight) * lax.rsqrt(variance + eps)
    return scale_and_shift(y, x, None, bias, None)


def _convolved(z: Array, kernel: Array, stride: int) -> Array:
    return lax.conv_general_dilated(
        z, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@normaliser(
    paper="arXiv:2205.10089",
    invariant_to=("example scale", "example shift"),
    group="example",
    after=("layer_norm",),
    aka=("KernelNorm", "KN", "KNConv"),
    held_to="code",
)
@dataclass(frozen=True)
class KernelNorm(PerExample):
    """Kernel normalisation (KernelNorm), in windows that lie side by side.

    Statistics are of a window's positions and all of its channels. The paper's networks
    (KNConvNets) let windows overlap as those of the next convolution do, which makes normaliser
    and convolution one: that is `kernel_norm_convolution`. The dropout of the paper, of what
    statistics are taken of, is not here.

    Attributes:
        window: how many positions a window has along each axis.

    >>> import jax.numpy as jnp
    >>> norm = KernelNorm(window=2)
    >>> params, state = norm.init(features=1)
    >>> x = jnp.array([[[1.0], [3.0], [10.0], [30.0]]])
    >>> y, state = norm.apply(params, state, x, train=True)
    >>> y.round(3).tolist()
    [[[-1.0], [1.0], [-1.0], [1.0]]]
    """

    window: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_window(self.window)

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return kernel_norm(x, scale, bias, window=self.window, eps=self.eps, mask=mask)
