"""Reads the settings that change a run's numbers, as they are in force in this process."""

import os
from typing import Any

import jax

from normlab.store.flags import JAX_SETTINGS, OPTIONS, TUNING, UNSET, VARIABLES, options
from normlab.training.compiler import compiler_options, tuned


def in_force() -> dict[str, str]:
    """Return the value of each setting as it is now, however it was set.

    >>> in_force()["jax_enable_x64"]
    'False'
    """
    config: Any = jax.config
    settings = {
        name: getattr(config, name, config.values.get(name, UNSET)) for name in JAX_SETTINGS
    }
    return {
        TUNING: "on" if tuned() else "off",
        OPTIONS: " ".join(f"{k}={v}" for k, v in sorted(compiler_options().items())) or UNSET,
        **{name: options(os.environ.get(name, "")) for name in VARIABLES},
        **{name: str(value) for name, value in settings.items() if value != UNSET},
    }
