"""The network of the CIFAR-10 speed runs, and its initial patch whitening."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from normlab.core import Array, KernelTransform, Normaliser
from normlab.errors import require_channels_last, require_field
from normlab.models.slots import (
    ACTIVATIONS,
    ActivationName,
    Dtype,
    NormAct,
    conv,
    halve,
    model,
    no_normaliser,
)

WHITENING = "Conv_0"
"""The first layer's name among the params."""

torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Torch's default initialisation, uniform up to `1 / sqrt(fan_in)`, which the authors kept."""


def both_signs(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Make an orthonormal basis of all patches and its negative: it whitens already white patches.

    Args:
        key: a JAX key.
        shape: `(p, p, C, 2 * p * p * C)`.
        dtype: the dtype of the kernel.
    """
    half = nn.initializers.orthogonal()(key, (*shape[:-1], shape[-1] // 2), dtype)
    return jnp.concatenate([half, -half], axis=-1)


def partial_identity(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Make a kernel whose first outputs equal its inputs; further outputs start as in torch.

    >>> import jax
    >>> kernel = partial_identity(jax.random.key(0), (3, 3, 2, 4))
    >>> x = jnp.arange(18.0).reshape(1, 3, 3, 2)
    >>> y = jax.lax.conv_general_dilated(
    ...     x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    >>> bool((y[..., :2] == x).all())
    True
    """
    height, width, inputs, outputs = shape
    kept = jnp.arange(min(inputs, outputs))
    copies = jnp.zeros((*shape[:-1], len(kept)), dtype)
    copies = copies.at[height // 2, width // 2, kept, kept].set(1)
    return torch_uniform(key, shape, dtype).at[..., : len(kept)].set(copies)


def whitening_kernel(images: Array, patch: int = 2, eps: float = 5e-4) -> Array:
    """Compute the filters that whiten patches of these images, and their negatives.

    Filter i is the i-th principal axis of all `patch x patch x C` patches, the largest first,
    divided by the square root of its eigenvalue. The outputs therefore have second moment 1 and are
    uncorrelated. As in Jordan's code, the moments are about zero, for images that are standardised.

    Args:
        images: `(N, H, W, C)`, as the network will see them. Some thousands are enough.
        patch: the side of a patch.
        eps: a number added to each eigenvalue, so that directions without variance stay small.

    Returns:
        `(patch, patch, C, 2 * patch * patch * C)` float32.

    >>> import jax
    >>> images = jax.random.normal(jax.random.key(0), (8, 9, 9, 1)) * 3
    >>> whitening_kernel(images).shape
    (2, 2, 1, 8)
    """
    height, width, channels = images.shape[1:]
    rows, columns = height - patch + 1, width - patch + 1
    views = [images[:, i : i + rows, j : j + columns] for i in range(patch) for j in range(patch)]
    patches = jnp.concatenate(views, axis=-1).reshape(-1, patch * patch * channels)
    patches = patches.astype(jnp.float32)
    moments = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
    eigenvalues, axes = jnp.linalg.eigh(moments)  # the smallest first, axes in columns
    filters = (axes / jnp.sqrt(jnp.maximum(eigenvalues, 0) + eps)[None])[:, ::-1]
    filters = filters.reshape(patch, patch, channels, -1)
    return jnp.concatenate([filters, -filters], axis=-1)


@model(paper="arXiv:2404.00498, after hlb-CIFAR10 (T. Balsam 2023) and D. Page 2018")
class Speednet(nn.Module):
    """The eight-layer network that learns CIFAR-10 to 94% in seconds (Jordan 2024, airbench94).

    It consists of a convolution of 2x2 patches and the activation, three stages of
    conv-pool-norm-act and conv-norm-act with 64, 256 and 256 channels, the maximum of each channel,
    and a linear head without bias, whose logits are divided by nine. Convolutions in the stages
    start as the identity where they can (`partial_identity`), so that shortcuts are not needed.

    The first layer is meant to be frozen at `whitening_kernel(images)`, in place of
    `params["Conv_0"]["kernel"]`; `experiments/speed/cifar10_94.py` does so. A model is initialised
    without data, so that kernel starts as an orthonormal basis and its negative. A model freezes
    nothing, so training changes the kernel unless the recipe prevents it.

    `gelu` is the approximation by tanh, as in the other models; the authors use the exact function.

    Attributes:
        norm: the normaliser of every slot.
        classes: number of logits.
        kernel: the transform of every kernel but the head's, or None.
        widths: channels of each stage.
        patch: the side of the first layer's patches.
        logit_scale: the factor of the head's output.
        activation: the activation function.
        dtype: the dtype of activations.
    """

    norm: Normaliser
    classes: int
    kernel: KernelTransform | None = None
    widths: tuple[int, ...] = (64, 256, 256)
    patch: int = 2
    logit_scale: float = 1 / 9
    activation: ActivationName = "gelu"
    dtype: Dtype = "float32"

    def __post_init__(self):
        positive = len(self.widths) > 0 and all(width >= 1 for width in self.widths)
        require_field(positive, "widths", self.widths, "a list of positive whole numbers")
        require_field(self.patch >= 1, "patch", self.patch, "a positive whole number")
        require_field(self.logit_scale > 0, "logit_scale", self.logit_scale, "a positive number")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`.

        Raises:
            FieldError: the image is too small for the patches, or for a halving in each stage.
        """
        require_channels_last("images", x.shape)
        side, filters = min(x.shape[1:3]), 2 * self.patch**2 * x.shape[-1]
        least = self.patch - 1 + 2 ** len(self.widths)
        allowed = f"such that images have {least} pixels a side (2^stages + patch - 1), not {side}"
        require_field(side >= least, "widths", self.widths, allowed)
        first = conv(
            no_normaliser(), filters, self.patch, 1, self.dtype,
            transform=self.kernel, train=train, padding=0, start=both_signs,
        )  # fmt: skip
        x = ACTIVATIONS[self.activation](first(x.astype(self.dtype)))
        for width in self.widths:
            x = halve(self._conv(width, train)(x))
            x = NormAct(self.norm, self.activation)(x, train=train)
            x = self._conv(width, train)(x)
            x = NormAct(self.norm, self.activation)(x, train=train)
        x = x.max(axis=(1, 2)).astype(jnp.float32)
        head = nn.Dense(self.classes, use_bias=False, kernel_init=torch_uniform, dtype=jnp.float32)
        return self.logit_scale * head(x)

    def _conv(self, width: int, train: bool) -> nn.Conv:
        return conv(
            self.norm, width, 3, 1, self.dtype,
            transform=self.kernel, train=train, start=partial_identity,
        )  # fmt: skip
