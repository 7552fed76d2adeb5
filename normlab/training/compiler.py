"""Options of XLA's compiler that are worth having, where they are known to be.

They are handed over with each program, so nothing of the process is changed by them: they work in a
notebook that has long begun, and other people's programs in it are compiled as they were.

JAX is imported inside, because `tuned` is asked before it is.
"""

import os
from functools import cache
from typing import Any

OFF = "NORMLAB_TUNING"
"""An environment variable: as "off" it leaves compiler, allocator and caches as they are."""

YNN_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"

KNOWN: dict[tuple[str, str], dict[str, str]] = {
    # All of the default's but the convolutions, which YNNPACK takes much longer for than XLA's own
    # from 64 channels on. The reductions must stay: batch norm takes four times as long without.
    ("cpu", "0.10.2"): {
        YNN_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    },
}
"""By backend and version of jaxlib, what was measured to be faster: `experiments/speed/loop.py`.
The names are XLA's own and change from version to version, so no other gets them."""


def tuned() -> bool:
    """Whether normlab may set what makes runs faster."""
    return os.environ.get(OFF, "").lower() not in ("off", "0", "false", "no")


def compiler_options() -> dict[str, str]:
    """What a program of a run is compiled with, less what the user's own `XLA_FLAGS` name."""
    import jax
    import jaxlib

    if not tuned():
        return {}
    known = KNOWN.get((jax.default_backend(), jaxlib.__version__), {})  # pyright: ignore[reportPrivateImportUsage]
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in known.items() if name not in flags}


def read_from_cache() -> int:
    """How many programs were read from a persistent cache, and so not compiled, since first asked.

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
