"""Any normaliser in other people's Flax models.

`linen` and `nnx` hold a drop-in layer, `Norm`, and `swap`, which puts it in the place of the layers
of a model that exists; `like_flax` reads the arguments of Flax's own layers.
"""

from normlab.adapters.flax_layers import like_flax as like_flax
