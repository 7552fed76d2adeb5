"""Residual networks for small images, post-activation and pre-activation (He et al.)."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from normlab.catalogue import later
from normlab.core import Array, KernelTransform, Normaliser
from normlab.errors import UserError, require_channels_last, require_field
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
from normlab.placements.contract import ImagePlacement
from normlab.placements.residual import V1, V2

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


class _PlacedNetwork(_ResidualNetwork):
    """A residual network whose placement says what its blocks and its two ends are."""

    placement: ImagePlacement = V1()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`."""
        slots = _Slots(self, train)
        x = self.placement.start(self._stem(x, train), slots)
        return self._head(self.placement.end(self._stages(x, train), slots), train)

    def _block(self, x: Array, features: int, stride: int, train: bool) -> Array:
        changes = stride > 1 or features != x.shape[-1]
        return self.placement.block(x, _Block(self, train, features, stride, changes))

    def _scaled(self, branch: Array) -> Array:
        """Scale the last convolution of a branch; `Skipinit` does so."""
        return branch

    def _shortcut(self, x: Array, at: "_Block", normed: bool) -> Array:
        raise NotImplementedError(f"{type(self).__name__} does not say what its shortcuts are")


@model(paper="arXiv:1512.03385, section 4.2")
class Resnet(_PlacedNetwork):
    """The CIFAR ResNet: three stages of blocks conv-norm-act-conv-norm, added, then act.

    Shortcuts have no parameters (the paper's option A). Where the shape changes, they take every
    second pixel and fill the new channels with zeros. `placement` puts the normalisers elsewhere.

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
        placement: where the normalisers stand (`normlab.placements`).
    """

    def _shortcut(self, x: Array, at: "_Block", normed: bool) -> Array:
        new_channels = at.features - x.shape[-1]
        x = x[:, :: at.stride, :: at.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, new_channels)))


@model(paper="arXiv:1603.05027")
class ResnetV2(_PlacedNetwork):
    """The pre-activation ResNet: blocks norm-act-conv-norm-act-conv, then a last norm-act.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input. The fields
    are those of `Resnet`.
    """

    placement: ImagePlacement = V2()

    def _shortcut(self, x: Array, at: "_Block", normed: bool) -> Array:
        if not at.changes:
            return x
        x = self._conv(at.features, 1, at.stride, at.train, bias=False)(x)
        return at.norm(x) if normed else x


@dataclass(frozen=True)
class _Slots:
    """The slots of a residual network as its placement sees them: a `Slots`."""

    network: _PlacedNetwork
    train: bool

    def norm(self, x: Array) -> Array:
        return Norm(self.network.norm)(x, train=self.train)

    def act(self, x: Array) -> Array:
        return ACTIVATIONS[self.network.activation](x)

    def norm_act(self, x: Array) -> Array:
        return NormAct(self.network.norm, self.network.activation)(x, train=self.train)

    def act_norm(self, x: Array) -> Array:
        if self.network.norm.facts.fuses_activation:
            raise UserError(
                f"{self.network.norm!r} contains its activation, so it cannot stand after one; "
                "choose a placement with the normaliser before the activation"
            )
        return self.norm(self.act(x))


@dataclass(frozen=True)
class _Block(_Slots):
    """A block of a residual network as its placement sees it: an `ImageBlock`."""

    features: int
    stride: int
    changes: bool

    def first(self, x: Array) -> Array:
        return self.network._conv(self.features, 3, self.stride, self.train)(x)

    def second(self, x: Array) -> Array:
        x = drop(self.network, x, "blocks", self.train)
        return self.network._scaled(self.network._conv(self.features, 3, 1, self.train)(x))

    def shortcut(self, x: Array, *, normed: bool) -> Array:
        return self.network._shortcut(x, self, normed)
