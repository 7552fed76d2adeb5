"""Fixup: a residual network that trains at any depth by its initialisation alone."""

import flax.linen as nn
import jax.numpy as jnp

from normlab.core import Array
from normlab.errors import require_channels_last
from normlab.models.convolution import convolve
from normlab.models.dropout import drop
from normlab.models.resnet import BLOCK_LAYERS, _ResidualNetwork
from normlab.models.scalars import (
    Multiplier,
    Shift,
    require_no_normaliser,
    require_no_transform,
)
from normlab.models.slots import ACTIVATIONS, he_normal, model

zeros = nn.initializers.zeros


@model(paper="arXiv:1901.09321")
class Fixup(_ResidualNetwork):
    """The CIFAR ResNet with Fixup initialisation: no normaliser, and equal steps at any depth.

    The source is Zhang, Dauphin & Ma 2019, section 3. There are L branches of `m = 2` convolutions.
    The He weights of a branch's first convolution are scaled by `L^(-1/(2m-2)) = L^(-1/2)`; those
    of the last convolution are zero, and so is the head. A learnt number that starts at 0 is added
    before every convolution, every activation and the head. A learnt number that starts at 1
    multiplies each branch. The network therefore starts as its shortcuts alone, and the change of
    its output by a step of gradient descent does not depend on the depth.

    As in the authors' code there are no bias vectors, the shortcut subsamples the input after the
    branch's first number is added, and the He variance of a branch counts the outputs of a kernel
    (fan-out). The stem's variance counts the inputs, while theirs has their library's default. They
    train the single numbers at a tenth of the learning rate: `train: {scalar_rate: 0.1}`.

    A zero kernel has no scale, so a normaliser or kernel transform has nothing to do. `norm` must
    be `identity` and `kernel` null. The other fields are those of `Resnet`.

    >>> import jax
    >>> from normlab.norms import Identity
    >>> network, x = Fixup(norm=Identity(), classes=2, depth=8), jnp.ones((1, 8, 8, 3))
    >>> network.apply(network.init(jax.random.key(0), x, train=False), x, train=False).tolist()
    [[0.0, 0.0]]
    """

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`.

        Raises:
            UserError: `norm` is not `Identity()`, or there is a kernel transform.
        """
        require_no_normaliser(self.norm, "fixup")
        require_no_transform(self.kernel, "fixup")
        require_channels_last("images", x.shape)
        x = self._plain_conv(self.width, 1, he_normal)(x.astype(self.dtype))
        x = self._stages(ACTIVATIONS[self.activation](Shift()(x)), train)
        x = Shift()(x.mean(axis=(1, 2)).astype(jnp.float32))
        x = drop(self, x, "head", train)
        return nn.Dense(self.classes, kernel_init=zeros, dtype=jnp.float32)(x)

    def _block(self, x: Array, features: int, stride: int, train: bool) -> Array:
        act = ACTIVATIONS[self.activation]
        branches = (self.depth - 2) // BLOCK_LAYERS
        scaled = nn.initializers.variance_scaling(2.0 / branches, "fan_out", "normal")
        moved = Shift()(x)
        y = self._plain_conv(features, stride, scaled)(moved)
        y = act(Shift()(y))
        y = Shift()(y)
        y = self._plain_conv(features, 1, zeros)(drop(self, y, "blocks", train))
        y = Multiplier(start=1.0)(y)
        y = Shift()(y)
        shortcut = x
        if stride > 1:
            new_channels = features - x.shape[-1]
            shortcut = moved[:, ::stride, ::stride]
            shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, new_channels)))
        return act(shortcut + y)

    def _plain_conv(
        self, features: int, stride: int, start: nn.initializers.Initializer
    ) -> nn.Conv:
        return nn.Conv(
            features,
            kernel_size=(3, 3),
            strides=(stride, stride),
            padding=1,
            use_bias=False,
            kernel_init=start,
            dtype=jnp.dtype(self.dtype),
            conv_general_dilated=convolve,
        )
