"""Learnt scalars, which networks without a normaliser have in place of its bias and scale."""

import flax.linen as nn
import jax.numpy as jnp

from normlab.core import Array, KernelTransform, Normaliser
from normlab.errors import KernelError, UserError
from normlab.models.slots import NORM


class Shift(nn.Module):
    """Adds one learnt number for all channels, which starts at 0 and has the role "bias"."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Add the number to `x`, in the dtype of `x`."""
        bias = self.param("bias", nn.initializers.zeros, (), jnp.float32)
        return x + bias.astype(x.dtype)


class Multiplier(nn.Module):
    """Multiplies by one learnt number for all channels.

    The number is stored where a normaliser's parameters are and so has their role, "norm". Weight
    decay, which would close a branch, therefore leaves it alone unless that role is requested.

    Attributes:
        start: the initial value.
    """

    start: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Multiply `x` by the number, in the dtype of `x`."""
        params = self.param(NORM, lambda key: {"scale": jnp.asarray(self.start, jnp.float32)})
        return params["scale"].astype(x.dtype) * x


class MultiplierByHead(nn.Module):
    """Multiplies the output of each head `(N, T, heads, d)` by a learnt number that starts at 1.

    The numbers have the role "norm", as those of `Multiplier`.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Multiply `x` by the numbers, in the dtype of `x`."""
        params = self.param(NORM, lambda key: {"scale": jnp.ones(x.shape[-2], jnp.float32)})
        return params["scale"].astype(x.dtype)[None, None, :, None] * x


def require_no_normaliser(normaliser: Normaliser, model: str) -> None:
    """Raise `UserError` unless the normaliser is `identity`, the only one that `model` allows.

    >>> from normlab.norms import ScaleNorm
    >>> require_no_normaliser(ScaleNorm(), "fixup")
    Traceback (most recent call last):
    normlab.errors.UserError: model fixup stands in place of a normaliser: norm must be identity, \
found ScaleNorm(eps=1e-05, zero_centred=False)
    """
    if not normaliser.facts.identity:
        raise UserError(
            f"model {model} stands in place of a normaliser: norm must be identity, "
            f"found {normaliser!r}"
        )


def require_no_transform(transform: KernelTransform | None, model: str) -> None:
    """Raise `KernelError` if there is a kernel transform, which `model` does not allow."""
    if transform is not None:
        raise KernelError(
            f"model {model} sets the scale of its kernels itself: kernel must be null, "
            f"found {transform!r}"
        )
