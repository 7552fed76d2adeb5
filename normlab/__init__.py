"""normlab: a laboratory for normalisation.

The names below are imported when they are first used, so that `import normlab` costs nothing.

>>> import jax.numpy as jnp
>>> from normlab import batch_norm
>>> batch_norm(jnp.array([[1.0], [3.0]])).round(3).tolist()
[[-1.0], [1.0]]
"""

from typing import TYPE_CHECKING

from normlab.catalogue import lazily

if TYPE_CHECKING:
    from normlab.adapters.flax_layers import like_flax as like_flax
    from normlab.adapters.folding import fold as fold
    from normlab.adapters.freezing import freeze as freeze
    from normlab.adapters.statistics import adapt as adapt
    from normlab.adapters.statistics import recalibrate as recalibrate
    from normlab.dialects.library import dialect as dialect
    from normlab.engine.probe_rows import Watch as Watch
    from normlab.engine.process import prepare as prepare
    from normlab.errors import UserError as UserError
    from normlab.interface.describe import describe as describe
    from normlab.interface.fitting import fit as fit
    from normlab.interface.notebook import run as run
    from normlab.interface.sharing import show as show
    from normlab.interface.trained import load as load
    from normlab.norms.batch import batch_norm as batch_norm
    from normlab.norms.batch_renorm import batch_renorm as batch_renorm
    from normlab.norms.compressed_rms import compressed_rms_norm as compressed_rms_norm
    from normlab.norms.controls import affine as affine
    from normlab.norms.divisive import divisive_norm as divisive_norm
    from normlab.norms.dynamic import dynamic_erf as dynamic_erf
    from normlab.norms.dynamic import dynamic_tanh as dynamic_tanh
    from normlab.norms.dynamic_isru import dynamic_isru as dynamic_isru
    from normlab.norms.filter_response import filter_response_norm as filter_response_norm
    from normlab.norms.global_response import global_response_norm as global_response_norm
    from normlab.norms.group import group_norm as group_norm
    from normlab.norms.instance import instance_norm as instance_norm
    from normlab.norms.kernel import kernel_norm as kernel_norm
    from normlab.norms.kernel import kernel_norm_convolution as kernel_norm_convolution
    from normlab.norms.layer import layer_norm as layer_norm
    from normlab.norms.layer import layer_norm_image as layer_norm_image
    from normlab.norms.local_response import local_response_norm as local_response_norm
    from normlab.norms.partial_rms import partial_rms_norm as partial_rms_norm
    from normlab.norms.positional import positional_norm as positional_norm
    from normlab.norms.rms import rms_norm as rms_norm
    from normlab.norms.scale import scale_norm as scale_norm
    from normlab.norms.seed_norm import seed_norm as seed_norm
    from normlab.probes.looking import look as look
    from normlab.reports.shown_comparison import compare as compare
    from normlab.training.recipe import Recipe as Recipe
    from normlab.weights.centred_weight_norm import centred_weight_norm as centred_weight_norm
    from normlab.weights.scaled_weight_standardisation import (
        scaled_weight_standardisation as scaled_weight_standardisation,
    )
    from normlab.weights.spectral_norm import spectral_norm as spectral_norm
    from normlab.weights.weight_norm import weight_norm as weight_norm
    from normlab.weights.weight_standardisation import (
        weight_standardisation as weight_standardisation,
    )

__getattr__, __dir__ = lazily(
    __name__,
    Recipe="normlab.training.recipe",
    UserError="normlab.errors",
    Watch="normlab.engine.probe_rows",
    adapt="normlab.adapters.statistics",
    affine="normlab.norms.controls",
    batch_norm="normlab.norms.batch",
    batch_renorm="normlab.norms.batch_renorm",
    centred_weight_norm="normlab.weights.centred_weight_norm",
    compare="normlab.reports.shown_comparison",
    compressed_rms_norm="normlab.norms.compressed_rms",
    describe="normlab.interface.describe",
    dialect="normlab.dialects.library",
    divisive_norm="normlab.norms.divisive",
    dynamic_erf="normlab.norms.dynamic",
    dynamic_isru="normlab.norms.dynamic_isru",
    dynamic_tanh="normlab.norms.dynamic",
    filter_response_norm="normlab.norms.filter_response",
    fit="normlab.interface.fitting",
    fold="normlab.adapters.folding",
    freeze="normlab.adapters.freezing",
    global_response_norm="normlab.norms.global_response",
    group_norm="normlab.norms.group",
    instance_norm="normlab.norms.instance",
    kernel_norm="normlab.norms.kernel",
    kernel_norm_convolution="normlab.norms.kernel",
    layer_norm="normlab.norms.layer",
    layer_norm_image="normlab.norms.layer",
    like_flax="normlab.adapters.flax_layers",
    load="normlab.interface.trained",
    local_response_norm="normlab.norms.local_response",
    look="normlab.probes.looking",
    partial_rms_norm="normlab.norms.partial_rms",
    positional_norm="normlab.norms.positional",
    prepare="normlab.engine.process",
    recalibrate="normlab.adapters.statistics",
    rms_norm="normlab.norms.rms",
    run="normlab.interface.notebook",
    scale_norm="normlab.norms.scale",
    scaled_weight_standardisation="normlab.weights.scaled_weight_standardisation",
    seed_norm="normlab.norms.seed_norm",
    show="normlab.interface.sharing",
    spectral_norm="normlab.weights.spectral_norm",
    weight_norm="normlab.weights.weight_norm",
    weight_standardisation="normlab.weights.weight_standardisation",
)
