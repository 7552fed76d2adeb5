"""Settings of every test: eight virtual devices, promotion that must be spelled out, and little
time for compiling.

All processes take their compiled programs from one folder in the user's cache. Each program is
compiled once, and a later session finds it there. Set JAX_COMPILATION_CACHE_DIR to an empty folder
to compile everything anew. XLA leaves out most optimisations of its machine code, on which few
claims hang. Tests of numbers to their last digits ask for all of them: see `as_users_compile`. The
examples in docstrings have them.

Tests marked `thorough` run with `pytest --thorough` only. They repeat on every
normaliser, page or config what the quick tests show on a few, or need many processes.
"""

import gc
import itertools
import os
import time
from ctypes import CDLL
from pathlib import Path

from normlab.engine.process import programs_folder, prune

# The tests' own code runs as that of a job does; those of trust itself take this away.
os.environ["NORMLAB_TRUST"] = "1"

# Read when jax is first imported: several devices, so that sharding is tested on any machine.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not IS_WORKER:  # those of xdist inherit these, and so does every process that a test begins
    PROGRAMS = programs_folder("compiled-by-tests")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(PROGRAMS))
    os.environ |= {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    prune(PROGRAMS.parent, 1 << 30)

import jax  # noqa: E402 (which reads these variables when it is imported)
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# A busy machine makes any example slow, which is no fault of the code.
settings.register_profile("normlab", deadline=None)
settings.load_profile("normlab")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


# Tracing makes many objects and few circles of them, for which Python otherwise looks all the time.
gc.set_threshold(100_000, 20, 50)


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="also run the tests that take long")


def pytest_configure(config):
    config.addinivalue_line("markers", "thorough: takes long, and runs only with --thorough")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--thorough"):
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="takes long: give --thorough"))


MAPPINGS, MOST_MAPPINGS = Path("/proc/self/maps"), 25_000
"""A process on Linux may map 65,530 pieces of memory. A compiled program takes several, and XLA
crashes where there are no more."""

STATUS, MOST_MEMORY = Path("/proc/self/status"), 1 << 20
"""KiB. Programs in memory are cleared beyond it, so that two workers fit a laptop of 8 GB."""

TESTS_SO_FAR = itertools.count(1)


def memory():
    """KiB that this process holds."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def pytest_runtest_teardown():
    if next(TESTS_SO_FAR) % 10 or not MAPPINGS.exists():
        return
    if memory() > MOST_MEMORY or MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()
        if hasattr(libc := CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # glibc otherwise keeps what was freed


@pytest.fixture(scope="module", autouse=True)
def subnormal_numbers_stay():
    """No module leaves its thread flushing subnormal numbers to zero.

    A library compiled with GCC's -ffast-math does it as it is loaded, and every later result of
    numpy in that thread has it.
    """
    yield
    smallest = np.full(1, np.finfo(np.float64).smallest_subnormal)
    assert (smallest * 1.0)[0] > 0, (
        "a library that was loaded here flushes subnormal numbers to zero"
    )


@pytest.fixture
def pass_time(monkeypatch):
    """A function by which seconds go by at once, as `time.perf_counter` tells them."""
    clock, ahead = time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + sum(ahead))
    return ahead.append


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Compile without most of XLA's optimisations, here and in processes that a test begins."""
    yield from optimised(False)


@pytest.fixture(scope="module")
def as_users_compile(quick_compilation):
    """Compile with all of them."""
    yield from optimised(True)


IN_MEMORY = {"optimised": None}
"""How programs in memory were compiled. JAX takes one from there whatever the setting is now, so
a module would have those of another, and others in their last digits once memory is cleared."""


def optimised(wanted):
    name = "jax_disable_most_optimizations"
    if IN_MEMORY["optimised"] != wanted:
        IN_MEMORY["optimised"] = wanted
        jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name.upper(), str(not wanted))
        jax.config.update(name, not wanted)
        yield
        jax.config.update(name, wanted)
