"""Holds the kernel transforms, which stand between a learnt kernel and the one that a layer uses.

Every file has two faces, as in `normlab.norms`: a function, the mathematics; and a frozen
dataclass, its description, with `init` and `apply` (see `normlab.core.KernelTransform`), for a
model's `kernel` slot and a config's section of that name. A new file with a class marked
`@kernel_transform(...)` is found by itself.
"""

from typing import TYPE_CHECKING

from normlab.catalogue import KERNELS, lazily

if TYPE_CHECKING:
    from normlab.weights.centred_weight_norm import CentredWeightNorm as CentredWeightNorm
    from normlab.weights.scaled_weight_standardisation import (
        ScaledWeightStandardisation as ScaledWeightStandardisation,
    )
    from normlab.weights.spectral_norm import SpectralNorm as SpectralNorm
    from normlab.weights.weight_norm import WeightNorm as WeightNorm
    from normlab.weights.weight_standardisation import (
        WeightStandardisation as WeightStandardisation,
    )

__getattr__, __dir__ = lazily(__name__, KERNELS)
