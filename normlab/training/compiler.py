"""Chooses options of XLA's compiler that are known to make runs faster.

The options are passed with each program and change nothing else in the process. They work in a
notebook that is already running, and other programs in it are compiled as before.

JAX is imported inside the functions, because `tuned` is called before JAX is imported.
"""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from normlab.errors import in_one_line

OFF = "NORMLAB_TUNING"
"""Environment variable; "off" leaves compiler, allocator and caches unchanged, and "pallas" asks
for kernels that nobody has measured (`normlab/ops/pallas/`)."""

YNN_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"


@dataclass(frozen=True)
class Known:
    """Options that were measured to make runs faster on some versions of jaxlib.

    Attributes:
        backend: jax's name of the kind of device.
        since: the first version of jaxlib that they hold for.
        before: the first later version that they do not hold for.
        options: values by the compiler's names.
    """

    backend: str
    since: str
    before: str
    options: Mapping[str, str | bool]


KNOWN: list[Known] = [
    # The defaults without convolutions, for which YNNPACK is much slower than XLA's own kernels
    # from 64 channels on. The reductions must stay: batch norm is four times slower without them.
    Known(
        "cpu", "0.10.2", "0.11",
        {YNN_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"},
    ),
    # oneDNN would be faster still, but a program with its convolutions cannot be kept for the next
    # process.
    Known(
        "cpu", "0.12", "0.13",
        {YNN_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"},
    ),
]  # fmt: skip
"""Measured by `experiments/speed/compiler.py`. XLA changes its options between versions, so a
version outside these ranges gets none."""


def tuned() -> bool:
    """Return whether normlab may change settings that make runs faster."""
    return os.environ.get(OFF, "").lower() not in ("off", "0", "false", "no")


def compiler_options() -> dict[str, str | bool]:
    """Return the compiler options of a run, without those that the user set in `XLA_FLAGS`.

    An option that this compiler does not take is left out; `dropped_options` names it.
    """
    return {name: value for name, value in _wanted().items() if not refusal(name, value)}


def dropped_options() -> dict[str, str]:
    """Return the options that this compiler refused, each with the reason that it gave."""
    refusals = {name: refusal(name, value) for name, value in _wanted().items()}
    return {name: reason for name, reason in refusals.items() if reason}


def _wanted() -> dict[str, str | bool]:
    """Find the options that are known for this backend and version and that are not set already."""
    import jax
    import jaxlib

    if not tuned():
        return {}
    backend, version = jax.default_backend(), _numbers(jaxlib.__version__)  # pyright: ignore[reportPrivateImportUsage]
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        name: value
        for known in KNOWN
        if known.backend == backend and _numbers(known.since) <= version < _numbers(known.before)
        for name, value in known.options.items()
        if name not in flags
    }


def _numbers(version: str) -> tuple[int, ...]:
    """Read the leading numbers of a version.

    >>> _numbers("0.12.0.1"), _numbers("0.13.0.dev20261101")
    ((0, 12, 0, 1), (0, 13, 0))
    """
    parts = itertools.takewhile(str.isdecimal, version.split("."))
    return tuple(int(part) for part in parts)


@cache
def refusal(name: str, value: str | bool) -> str:
    """Compile the smallest program with an option; return the compiler's complaint, or nothing.

    The compiler may have lost the option since it was measured, and would then refuse every run.
    """
    import jax
    import jax.numpy as jnp

    options: Any = {name: value}
    try:
        jax.jit(lambda x: x + 1).lower(jnp.zeros(())).compile(compiler_options=options)
    except (jax.errors.JaxRuntimeError, TypeError, ValueError) as error:
        return in_one_line(error)
    return ""


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
