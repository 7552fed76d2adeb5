"""NF-ResNet: a residual network whose variances are known in advance instead of measured."""

import math

import flax.linen as nn

from normlab.core import Array
from normlab.errors import require_field
from normlab.models.dropout import drop
from normlab.models.resnet import BLOCK_LAYERS, STAGES, _ResidualNetwork
from normlab.models.scalars import Multiplier, require_no_normaliser
from normlab.models.slots import ACTIVATIONS, model

GAINS = {
    "relu": math.sqrt(2 / (1 - 1 / math.pi)),
    "gelu": 1.700916561695,
    "silu": 1.787187222100,
    "tanh": 1.592537419723,
    "sigmoid": 4.801313372039,
    "identity": 1.0,
}
"""The inverse of each activation's standard deviation on standard normal input: a closed form for
ReLU (Brock et al. 2021a, section 3), numerical integrals in float64 for the others (checked by a
test)."""


@model(paper="arXiv:2101.08692, arXiv:2102.06171")
class NormaliserFree(_ResidualNetwork):
    """The NF-ResNet, with pre-activation blocks `h + alpha * branch(h / beta)` (Brock et al. 2021).

    `beta` is the standard deviation of `h` at initialisation, which is known in advance. The
    variance grows by `alpha^2` with each block. It starts again from 1 where the shape changes,
    because the shortcut is then a 1x1 convolution of the activated `h / beta`. Each activation is
    multiplied by the gain that gives it variance 1. Each convolution must keep the variance of its
    input, so the network is meant to be used with `kernel: scaled_weight_standardisation`. It runs
    with any other kernel transform or none, but then the variances differ.

    Each branch ends in SkipInit's learnt number, which starts at 0 as in the authors' code. They
    train it with adaptive gradient clipping (`train: {adaptive_clip: 0.01}`), which lets a number
    near 0 move by at most 1e-5 times the learning rate in a step. For short runs start it at 1.

    `norm` must be `identity`. Blocks have two 3x3 convolutions, as in `ResnetV2`, for small images;
    the paper has bottlenecks.

    Attributes:
        norm: must be `Identity()`.
        classes: number of logits.
        kernel: the transform of every kernel but the head's, or None.
        depth: number of layers with weights, 6n + 2.
        width: channels of the first stage; the others have two and four times as many.
        activation: the activation function.
        dtype: the dtype of activations.
        dropout: the share of units that is dropped in training, 0 for none.
        dropout_at: as in `Resnet`; the known variances are those of evaluation.
        alpha: the weight of a branch.
        skip_gain: the initial value of the learnt number at the end of each branch.
    """

    alpha: float = 0.2
    skip_gain: float = 0.0

    def __post_init__(self):
        require_field(0 < self.alpha <= 1, "alpha", self.alpha, "above 0 and at most 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Compute logits `(N, classes)` from images `(N, H, W, C)`.

        Raises:
            UserError: `norm` is not `Identity()`.
        """
        require_no_normaliser(self.norm, "normaliser_free")
        return self._head(self._act(self._stages(self._stem(x, train), train)), train)

    def _stages(self, x: Array, train: bool) -> Array:
        variance = 1.0
        for stage in range(STAGES):
            for block in range((self.depth - 2) // (STAGES * BLOCK_LAYERS)):
                changes, beta = stage > 0 and block == 0, math.sqrt(variance)
                y = self._act(x / beta)
                branch = self._branch(y, self.width * 2**stage, 2 if changes else 1, train)
                if changes:
                    x, variance = self._conv(branch.shape[-1], 1, 2, train, bias=False)(y), 1.0
                x = x + self.alpha * branch
                variance += self.alpha**2
        return x

    def _branch(self, y: Array, features: int, stride: int, train: bool) -> Array:
        y = self._act(self._conv(features, 3, stride, train)(y))
        y = drop(self, y, "blocks", train)
        return Multiplier(self.skip_gain)(self._conv(features, 3, 1, train)(y))

    def _act(self, x: Array) -> Array:
        return GAINS[self.activation] * ACTIVATIONS[self.activation](x)
