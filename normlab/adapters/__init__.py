"""Puts normalisers into other people's Flax models, and carries weights between libraries.

`linen` and `nnx` hold a drop-in layer, `Norm`, and `swap`, which replaces layers of an existing
model; `like_flax` reads the arguments of Flax's own layers. `carry` moves weights between networks
that are built alike, whatever library wrote them. `recalibrate`, `adapt`, `fold` and `freeze`
change how a trained model evaluates.
"""

from normlab.adapters.flax_layers import like_flax as like_flax
from normlab.adapters.folding import fold as fold
from normlab.adapters.freezing import freeze as freeze
from normlab.adapters.interchange import carry as carry
from normlab.adapters.linen_weights import LinenWeights as LinenWeights
from normlab.adapters.nnx_weights import NnxWeights as NnxWeights
from normlab.adapters.statistics import adapt as adapt
from normlab.adapters.statistics import recalibrate as recalibrate
from normlab.adapters.statistics import recalibrate_layer_by_layer as recalibrate_layer_by_layer
from normlab.adapters.torch_weights import TorchWeights as TorchWeights
from normlab.adapters.torch_weights import load_state_dict as load_state_dict
from normlab.adapters.torch_weights import save_state_dict as save_state_dict
