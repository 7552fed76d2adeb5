"""Chooses options of XLA's compiler that are known to make runs faster.

The options are passed with each program and change nothing else in the process. They work in a
notebook that is already running, and other programs in it are compiled as before.

JAX is imported inside the functions, because `tuned` is called before JAX is imported.
"""

import os
from functools import cache
from typing import Any

OFF = "NORMLAB_TUNING"
"""Environment variable; "off" leaves compiler, allocator and caches unchanged."""

YNN_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"

KNOWN: dict[tuple[str, str], dict[str, str]] = {
    # The defaults without convolutions, for which YNNPACK is much slower than XLA's own kernels
    # from 64 channels on. The reductions must stay: batch norm is four times slower without them.
    ("cpu", "0.10.2"): {
        YNN_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    },
}
"""Options by backend and version of jaxlib, measured to be faster by `experiments/speed/loop.py`.
XLA changes their names between versions, so other versions get none."""


def tuned() -> bool:
    """Return whether normlab may change settings that make runs faster."""
    return os.environ.get(OFF, "").lower() not in ("off", "0", "false", "no")


def compiler_options() -> dict[str, str]:
    """Return the compiler options of a run, without those that the user set in `XLA_FLAGS`."""
    import jax
    import jaxlib

    if not tuned():
        return {}
    known = KNOWN.get((jax.default_backend(), jaxlib.__version__), {})  # pyright: ignore[reportPrivateImportUsage]
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in known.items() if name not in flags}


def read_from_cache() -> int:
    """Count the programs that were read from a persistent cache since the first call.

    >>> before = read_from_cache()
    >>> read_from_cache() - before
    0
    """
    return len(_hits())


@cache
def _hits() -> list[str]:
    import jax

    hits: list[str] = []

    def listen(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    return hits
