"""Residual networks for small images, post-activation and pre-activation (He et al.)."""

import flax.linen as nn
import jax.numpy as jnp

from normlab.catalogue import later
from normlab.core import Array, KernelTransform, Normaliser
from normlab.errors import require_channels_last, require_field
from normlab.models.dropout import DropoutPlace, drop, require_dropout
from normlab.models.slots import (
    ACTIVATIONS,
    ActivationName,
    Dtype,
    Norm,
    NormAct,
    classify,
    conv,
    model,
)

STAGES = 3
BLOCK_LAYERS = 2


class _ResidualNetwork(nn.Module):
    """The shared fields, stem, stages and head. The fields are described in `Resnet`."""

    norm: Normaliser
    classes: int
    kernel: KernelTransform | None = None
    depth: int = 20
    width: int = 16
    activation: ActivationName = "relu"
    dtype: Dtype = "float32"
    dropout: float = later(0.0)
    dropout_at: DropoutPlace = later("head")

    def __post_init__(self):
        valid = self.depth >= 8 and (self.depth - 2) % (STAGES * BLOCK_LAYERS) == 0
        require_field(valid, "depth", self.depth, "6n + 2, as in 8, 14, 20, 32, 44, 56, 110")
        require_field(self.width >= 1, "width", self.width, "a positive whole number")
        require_dropout(self)
        super().__post_init__()

    def _stem(self, x: Array, train: bool) -> Array:
        require_channels_last("images", x.shape)
        return self._conv(self.width, 3, 1, train)(x.astype(self.dtype))

    def _conv(
        self, features: int, size: int, stride: int, train: bool, bias: bool = True
    ) -> nn.Conv:
        return conv(
            self.norm, features, size, stride, self.dtype,
            transform=self.kernel, train=train, bias=bias,
        )  # fmt: skip

    def _stages(self, x: Array, train: bool) -> Array:
        for stage in range(STAGES):
            for block in range((self.depth - 2) // (STAGES * BLOCK_LAYERS)):
                stride = 2 if stage > 0 and block == 0 else 1
                x = self._block(x, self.width * 2**stage, stride, train)
        return x

    def _head(self, x: Array, train: bool) -> Array:
        return classify(drop(self, x.mean(axis=(1, 2)), "head", train), self.classes)

    def _block(self, x: Array, features: int, stride: int, train: bool) -> Array:
        raise NotImplementedError(f"{type(self).__name__} does not say what its blocks are")


@model(paper="arXiv:1512.03385, section 4.2")
class Resnet(_ResidualNetwork):
    """The CIFAR ResNet: three stages of blocks conv-norm-act-conv-norm, added, then act.

    Shortcuts have no parameters (the paper's option A). Where the shape changes, they take every
    second pixel and fill the new channels with zeros.

    Attributes:
        norm: the normaliser of every slot.
        classes: number of logits.
        kernel: the transform of every kernel but the head's, or None.
        depth: number of layers with weights, 6n + 2.
        width: channels of the first stage; the others have two and four times as many.
        activation: the activation function.
        dtype: the dtype of activations.
        dropout: the share of units that is dropped in training, 0 for none.
        dropout_at: where units are dropped: `head`, before the linear head; `blocks`, before the
            last convolution of each block, as in Wide ResNets (arXiv:1605.07146).
    """

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`."""
        x = NormAct(self.norm, self.activation)(self._stem(x, train), train=train)
        return self._head(self._stages(x, train), train)

    def _block(self, x: Array, features: int, stride: int, train: bool) -> Array:
        y = self._conv(features, 3, stride, train)(x)
        y = NormAct(self.norm, self.activation)(y, train=train)
        y = self._conv(features, 3, 1, train)(drop(self, y, "blocks", train))
        y = Norm(self.norm)(y, train=train)
        shortcut = x[:, ::stride, ::stride]
        new_channels = features - x.shape[-1]
        shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, new_channels)))
        return ACTIVATIONS[self.activation](shortcut + y)


@model(paper="arXiv:1603.05027")
class ResnetV2(_ResidualNetwork):
    """The pre-activation ResNet: blocks norm-act-conv-norm-act-conv, then a last norm-act.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input. The fields
    are those of `Resnet`.
    """

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`."""
        x = self._stages(self._stem(x, train), train)
        return self._head(NormAct(self.norm, self.activation)(x, train=train), train)

    def _block(self, x: Array, features: int, stride: int, train: bool) -> Array:
        y = NormAct(self.norm, self.activation)(x, train=train)
        changes = stride > 1 or features != x.shape[-1]
        shortcut = self._conv(features, 1, stride, train, bias=False)(y) if changes else x
        y = self._conv(features, 3, stride, train)(y)
        y = NormAct(self.norm, self.activation)(y, train=train)
        y = drop(self, y, "blocks", train)
        return shortcut + self._scaled(self._conv(features, 3, 1, train)(y))

    def _scaled(self, branch: Array) -> Array:
        """Scale a branch before it is added; `Skipinit` does so."""
        return branch
