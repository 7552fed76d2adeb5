"""Probes: what a network does inside while it trains, each a pure function of one moment of it.

Every file has one question. Its functions take arrays, or a loss as a function of parameters, for
a notebook; a frozen dataclass marked `@probe(...)` asks the question of a network in training (see
`normlab.probes.contract`), and a new file with one is found by itself. `look` puts probes to any
linen network.
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
