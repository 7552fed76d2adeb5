"""Looks up the memory that a computation may take: the device's, or the computer's."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import jax

MEMORY = Path("/proc/meminfo")
"""The file in which Linux says how much memory there is."""

LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Files in which Linux says how much memory a container may have."""


@dataclass(frozen=True)
class Room:
    """The memory of the device, in bytes.

    Attributes:
        total: all of it, swap included; more can never be had.
        free: what other processes leave now.
    """

    total: int
    free: int

    def of(self, devices: int) -> "Room":
        """Return the memory of several devices together; those of a processor share one."""
        times = 1 if jax.local_devices()[0].platform == "cpu" else devices
        return Room(times * self.total, times * self.free)


def room() -> Room | None:
    """Look up the memory of the device that JAX computes on; None where nothing tells."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        known = device.memory_stats() or {}
        total = known.get("bytes_limit")
        return None if total is None else Room(total, total - known.get("bytes_in_use", 0))
    found = _of_computer()
    if found is None:
        return None
    free = found.get("MemAvailable", found["MemTotal"])
    return Room(_within(found["MemTotal"] + found.get("SwapTotal", 0)), _within(free))


def memory() -> int | None:
    """Look up the bytes of the device's memory, without swap; None where nothing tells."""
    if jax.local_devices()[0].platform == "cpu":
        found = _of_computer()
        return None if found is None else _within(found["MemTotal"])
    found = room()
    return None if found is None else found.total


def _of_computer() -> dict[str, int] | None:
    try:
        lines = MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return {
        name: 1024 * int(rest.split()[0]) for name, _, rest in (s.partition(":") for s in lines)
    }


def _within(size: int) -> int:
    """Cut a size to what a container may have."""
    for file in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            size = min(size, int(file.read_text(encoding="ascii")))
    return size
