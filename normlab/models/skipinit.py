"""SkipInit: a learnt number that starts at zero closes every branch of a residual network."""

from normlab.core import Array
from normlab.models.resnet import ResnetV2
from normlab.models.scalars import Multiplier
from normlab.models.slots import model
from normlab.placements.residual import V2


@model(paper="arXiv:2002.10444")
class Skipinit(ResnetV2):
    """The pre-activation ResNet with SkipInit: `x + alpha * branch(x)`, alpha learnt from 0.

    At the start of training, a normaliser makes the branches of a deep residual network small
    relative to the shortcuts. One learnt number per branch does the same (De & Smith 2020). The
    paper uses no normaliser beside it (`identity`; convolutions then have biases, as there), but
    the slots accept any. Slots and fields are those of `ResnetV2`.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input. Apart from
    these convolutions, the network starts as the identity function of its stem.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from normlab.norms import Identity
    >>> network = Skipinit(norm=Identity(), classes=2, depth=8)
    >>> start = network.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
    >>> start["params"]["Multiplier_0"]
    {'norm': {'scale': Array(0., dtype=float32)}}
    """

    placement: V2 = V2()

    def _scaled(self, branch: Array) -> Array:
        return Multiplier(start=0.0)(branch)
