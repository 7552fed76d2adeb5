"""A network of a user's own, for the tests: named in configs as `my_model:Dropping`."""

import flax.linen as nn

from normlab.core import Normaliser
from normlab.models.slots import classify, model


@model(paper="none")
class Dropping(nn.Module):
    """A linear network with flax's dropout, at a rate of its own where none is given."""

    norm: Normaliser
    classes: int
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x, *, train):
        x = x.reshape(x.shape[0], -1)
        return classify(nn.Dropout(self.dropout, deterministic=not train)(x), self.classes)
