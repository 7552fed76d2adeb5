"""Names the shelves of the catalogue as a config and `normlab list` do."""

from normlab.catalogue import (
    AUGMENTATIONS,
    DATA,
    ENGINES,
    KERNELS,
    MODELS,
    NORMS,
    PLACEMENTS,
    POLICIES,
    PROBES,
    SHARDINGS,
)
from normlab.configs.optax_names import OPTIMIZERS, SCHEDULES

SHELVES = {
    "norm": NORMS,
    "kernel": KERNELS,
    "placement": PLACEMENTS,
    "model": MODELS,
    "data": DATA,
    "augmentation": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "probe": PROBES,
    "policy": POLICIES,
    "sharding": SHARDINGS,
    "engine": ENGINES,
}
"""By the name of a config's section, or of a thing within one."""

PLURALS = {"data": "data", "policy": "policies"}

KINDS = {PLURALS.get(name, f"{name}s"): shelf for name, shelf in SHELVES.items()}
"""By the word that `normlab list` takes."""
