"""One learnt number: what recipes without a normaliser put where its bias and scale would be."""

import flax.linen as nn
import jax.numpy as jnp

from normlab.core import Array, KernelTransform, Normaliser
from normlab.errors import KernelError, UserError
from normlab.models.slots import NORM
from normlab.norms.controls import Identity


class Shift(nn.Module):
    """`x + bias` with one number for all channels, which starts at 0; its role is "bias"."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`x` moved, in its own dtype."""
        bias = self.param("bias", nn.initializers.zeros, (), jnp.float32)
        return x + bias.astype(x.dtype)


class Multiplier(nn.Module):
    """`scale * x` with one number for all channels.

    It lies where a normaliser's own parameters do and so has their role, "norm": weight decay,
    which would pull a branch shut, leaves it alone unless asked for that role.

    Attributes:
        start: the number at first.
    """

    start: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`x` multiplied, in its own dtype."""
        params = self.param(NORM, lambda key: {"scale": jnp.asarray(self.start, jnp.float32)})
        return params["scale"].astype(x.dtype) * x


def require_no_normaliser(normaliser: Normaliser, model: str) -> None:
    """Raise unless the normaliser is `identity`, in a model that has no place for any other.

    >>> from normlab.norms import ScaleNorm
    >>> require_no_normaliser(ScaleNorm(), "fixup")
    Traceback (most recent call last):
    normlab.errors.UserError: model fixup stands in place of a normaliser: norm must be identity, \
found ScaleNorm(eps=1e-05)
    """
    if not isinstance(normaliser, Identity):
        raise UserError(
            f"model {model} stands in place of a normaliser: norm must be identity, "
            f"found {normaliser!r}"
        )


def require_no_transform(transform: KernelTransform | None, model: str) -> None:
    """Raise unless the kernel slot is empty, in a model whose kernels must be what they are."""
    if transform is not None:
        raise KernelError(
            f"model {model} sets the scale of its kernels itself: kernel must be null, "
            f"found {transform!r}"
        )
