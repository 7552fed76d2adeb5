"""Prepares a process that makes runs: memory, compiled programs and compiled normalisers are kept.

All belong to a whole process, so importing normlab does none of it. The command line and its
workers, whose processes are normlab's own, do it before anything is computed. So does
`normlab.run`, which makes runs by the dozen. A notebook that trains by itself may call `prepare()`.

JAX is imported inside the functions, so that the allocator is told before there are threads: one
that has a heap of its own keeps it.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from normlab.engine.program_cache import check_entries, is_private
from normlab.places import cache_root
from normlab.training.compiler import tuned

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Parameters of glibc's `mallopt`, from its `malloc.h`."""

KEEPING = {
    "M_ARENA_MAX": (M_ARENA_MAX, 1),  # XLA's threads would have heaps of at most 64 MB each
    "M_MMAP_MAX": (M_MMAP_MAX, 0),  # large buffers come from the heap ...
    "M_TRIM_THRESHOLD": (M_TRIM_THRESHOLD, -1),  # ... whose end is never given back
}
OWN_ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES")
"""Environment variables by which somebody has chosen how memory is kept."""

MOST_BYTES = 2 * 10**9
"""The compiled programs that are kept. One of a ResNet-20's step has half a megabyte."""

_done: dict[str, str] = {}


def prepare() -> None:
    """Make this process fast at making runs; best before anything imports jax.

    On Linux with glibc the memory of large arrays is kept for the next one instead of being given
    back to the system and fetched anew, page by page, at every step; the process then stays as
    large as it ever was. Programs that XLA has compiled are kept in normlab's cache folder for
    later runs, unless JAX has been told of another folder or not to. Whatever of this the user has
    set, by environment variables or `jax.config`, is left as it is; `NORMLAB_TUNING=off` in the
    environment leaves everything. Calling it again does nothing more.

    >>> prepare()  # doctest: +SKIP
    """
    if tuned() and not _done:
        _done["malloc"] = keep_memory()
        _done["compilation cache"] = keep_programs()
        from normlab.ops import native

        native.use()


def set_by_normlab() -> dict[str, str]:
    """Return what normlab has set in this process and in its programs, for provenance."""
    from normlab.ops import native, pallas
    from normlab.training.compiler import compiler_options, dropped_options

    options = " ".join(f"{name}={value}" for name, value in compiler_options().items())
    dropped = "; ".join(f"{name}: {reason}" for name, reason in dropped_options().items())
    every = {
        **_done,
        "compiler": options,
        "compiler options that it refused": dropped,
        native.NAME: native.chosen(),
        pallas.NAME: pallas.chosen(),
    }
    return {name: value for name, value in every.items() if value}


def keep_memory() -> str:
    """Let glibc keep freed memory; return what was set, or nothing where others decide that.

    An array of 32 MB is otherwise 8,192 new pages, each of which the system first fills with zeros:
    `python -m experiments.speed.loop` has what that costs.
    """
    if any(name.startswith(OWN_ALLOCATOR) for name in os.environ):
        return ""
    try:
        os.confstr("CS_GNU_LIBC_VERSION")  # nobody else has it
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, ValueError):
        return ""
    held = [name for name, (which, value) in KEEPING.items() if mallopt(which, value) == 1]
    return " ".join(f"{name}={KEEPING[name][1]}" for name in held)


def programs_folder(kept: str = "compiled") -> Path:
    """Return where this kind of machine's compiled programs are kept by default."""
    return cache_root() / kept / kind_of_machine()


def keep_programs() -> str:
    """Let JAX keep compiled programs on disk; return "on", or nothing where others decide that.

    An entry that cannot be read is of no consequence: its program is compiled. Nothing is kept or
    read where the folder is somebody else's.
    """
    import jax

    asked: Any = jax.config  # its attributes are made as JAX is imported
    if asked.jax_compilation_cache_dir or not asked.jax_enable_compilation_cache:
        return ""
    folder = programs_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not is_private(folder.parent) or not is_private(folder):
            return ""  # somebody else might put programs there
        prune(folder.parent, MOST_BYTES)
    except OSError:
        return ""  # a home that cannot be written to: everything is compiled each time
    jax.config.update("jax_compilation_cache_dir", str(folder))
    check_entries(folder)
    # JAX would warn of it, but one that another process is just writing is nothing to worry about.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The initial state is made by dozens of small programs, a few hundredths of a second each.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return "on"


@cache
def usable_cores() -> int | None:
    """Return how many cores this process may use; a worker's are those before it was given a part.

    XLA has as many threads, and adds up in portions, one a thread: last digits depend on it.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def about_processor(*keys: str) -> list[str]:
    """Return the lines of `/proc/cpuinfo` with these keys, each once, or none without that file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return list(dict.fromkeys(line for line in lines if line.startswith(keys)))


def kind_of_machine() -> str:
    """Return ten hex digits that are the same where a compiled program may be used.

    JAX's own key does not tell apart processors that share a home, of which one may lack
    instructions of the other; nor how many cores there are, on which the order of sums depends.
    """
    said = sorted(about_processor("model name", "flags", "Features"))
    said = said or [platform.machine(), platform.processor()]
    return hashlib.sha256("\n".join([*said, str(usable_cores())]).encode()).hexdigest()[:10]


def prune(folder: Path, most: int) -> None:
    """Remove the files in `folder` that nobody has used for longest, if there are too many."""
    files = []
    for path in folder.rglob("*-cache"):
        with contextlib.suppress(OSError):  # another process prunes too
            found = path.stat()
            files.append((max(found.st_atime, found.st_mtime), found.st_size, path))
    size = sum(bytes_ for _, bytes_, _ in files)
    if size <= most:
        return
    for _, bytes_, path in sorted(files):
        path.unlink(missing_ok=True)
        size -= bytes_
        if size <= most / 2:
            return
