"""Tells the processes of `normlab launch` of each other, by their environment; without jax."""

import os
from typing import Any

COORDINATOR, NUMBER, COUNT = "NORMLAB_COORDINATOR", "NORMLAB_PROCESS", "NORMLAB_PROCESSES"


def environment(address: str, number: int, count: int) -> dict[str, str]:
    """Return the environment variables of one process.

    Args:
        address: where the first process waits for the others, as host:port.
        number: the number of the process, from 0.
        count: how many there are.
    """
    return {COORDINATOR: address, NUMBER: str(number), COUNT: str(count)}


def told() -> dict[str, Any] | None:
    """Return what `jax.distributed.initialize` needs to know; None in any other process."""
    address = os.environ.get(COORDINATOR)
    if not address:
        return None
    return {
        "coordinator_address": address,
        "num_processes": int(os.environ[COUNT]),
        "process_id": int(os.environ[NUMBER]),
        "coordinator_bind_address": address,  # JAX would listen to other machines too
    }
