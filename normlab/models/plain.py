"""Networks without shortcuts: a multilayer perceptron and a plain convolutional network."""

import flax.linen as nn

from normlab.catalogue import later
from normlab.core import Array, KernelTransform, Normaliser
from normlab.errors import require_channels_last, require_field
from normlab.models.dropout import DropoutPlace, drop, require_dropout
from normlab.models.slots import (
    ActivationName,
    Dtype,
    NormAct,
    classify,
    conv,
    dense,
    halve,
    model,
)


@model(paper="Rumelhart et al. 1986; three layers of 100 sigmoids in arXiv:1502.03167, section 4.1")
class MLP(nn.Module):
    """A multilayer perceptron: dense-norm-act for each width, then the linear head.

    Attributes:
        norm: the normaliser of every slot.
        classes: number of logits.
        kernel: the transform of every kernel but the head's, or None.
        widths: units of each hidden layer.
        activation: the activation function.
        dtype: the dtype of activations.
        dropout: the share of units that is dropped in training, 0 for none.
        dropout_at: where units are dropped: `head`, before the linear head; `blocks`, before each
            hidden layer but the first.
    """

    norm: Normaliser
    classes: int
    kernel: KernelTransform | None = None
    widths: tuple[int, ...] = (100, 100, 100)
    activation: ActivationName = "sigmoid"
    dtype: Dtype = "float32"
    dropout: float = later(0.0)
    dropout_at: DropoutPlace = later("head")

    def __post_init__(self):
        _require_widths(self.widths)
        require_dropout(self, blocks=len(self.widths) > 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images or vectors `(N, ...)`, which are flattened."""
        require_channels_last("images", x.shape)
        x = x.reshape(x.shape[0], -1).astype(self.dtype)
        for number, width in enumerate(self.widths):
            x = drop(self, x, "blocks", train) if number > 0 else x
            layer = dense(self.norm, width, self.dtype, transform=self.kernel, train=train)
            x = NormAct(self.norm, self.activation)(layer(x), train=train)
        return classify(drop(self, x, "head", train), self.classes)


@model(paper="arXiv:1409.1556, in small")
class Convnet(nn.Module):
    """A plain convolutional network: stages of conv-norm-act, a 2x2 max pool between them.

    Attributes:
        norm: the normaliser of every slot.
        classes: number of logits.
        kernel: the transform of every kernel but the head's, or None.
        widths: channels of each stage.
        layers: convolutions in each stage.
        activation: the activation function.
        dtype: the dtype of activations.
        dropout: the share of units that is dropped in training, 0 for none.
        dropout_at: where units are dropped: `head`, before the linear head; `blocks`, before each
            convolution but the first.
    """

    norm: Normaliser
    classes: int
    kernel: KernelTransform | None = None
    widths: tuple[int, ...] = (32, 64, 128)
    layers: int = 2
    activation: ActivationName = "relu"
    dtype: Dtype = "float32"
    dropout: float = later(0.0)
    dropout_at: DropoutPlace = later("head")

    def __post_init__(self):
        _require_widths(self.widths)
        require_field(self.layers >= 1, "layers", self.layers, "a positive whole number")
        require_dropout(self, blocks=len(self.widths) * self.layers > 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`."""
        require_channels_last("images", x.shape)
        x = x.astype(self.dtype)
        for stage, width in enumerate(self.widths):
            if stage > 0:
                room = min(x.shape[1:3]) >= 2
                allowed = f"at most {stage} for so small an image, which is halved between them"
                require_field(room, "widths", self.widths, allowed)
                x = halve(x)
            for number in range(self.layers):
                x = drop(self, x, "blocks", train) if stage + number > 0 else x
                layer = conv(self.norm, width, 3, 1, self.dtype, transform=self.kernel, train=train)
                x = NormAct(self.norm, self.activation)(layer(x), train=train)
        return classify(drop(self, x.mean(axis=(1, 2)), "head", train), self.classes)


def _require_widths(widths: tuple[int, ...]) -> None:
    positive = len(widths) > 0 and all(width >= 1 for width in widths)
    require_field(positive, "widths", widths, "a list of positive whole numbers")
