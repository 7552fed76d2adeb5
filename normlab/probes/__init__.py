"""Probes: pure functions that measure a network's inner quantities at one moment of training.

Every file answers one question. Its functions take arrays, or a loss as a function of parameters,
for use in a notebook. A frozen dataclass marked `@probe(...)` answers the question for a network in
training (see `normlab.probes.contract`); the catalogue finds a new file with one. `look` applies
probes to any linen network.
"""

from typing import TYPE_CHECKING

from normlab.catalogue import PROBES, lazily

if TYPE_CHECKING:
    from normlab.probes.activations import Activations as Activations
    from normlab.probes.covariate_shift import CovariateShift as CovariateShift
    from normlab.probes.generalisation import Generalisation as Generalisation
    from normlab.probes.gradients import Gradients as Gradients
    from normlab.probes.hessian import Hessian as Hessian
    from normlab.probes.landscape import Landscape as Landscape
    from normlab.probes.looking import look as look
    from normlab.probes.noise_scale import NoiseScale as NoiseScale
    from normlab.probes.propagation import Propagation as Propagation
    from normlab.probes.under_corruption import UnderCorruption as UnderCorruption
    from normlab.probes.updates import Updates as Updates

__getattr__, __dir__ = lazily(__name__, PROBES, look="normlab.probes.looking")
