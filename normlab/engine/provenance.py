"""Records what a run was made with: versions, devices, flags, code, data and command."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jax

from normlab.data.dataset import Dataset
from normlab.engine.process import about_processor, kind_of_machine, set_by_normlab, usable_cores
from normlab.engine.settings import in_force
from normlab.store.git import git_state
from normlab.store.names import as_text

PACKAGES = ("normlab", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
FLAG_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "CUDA_VISIBLE_DEVICES")


def collect(
    data: Dataset,
    claims: Sequence[str] = (),
    at_once: int = 1,
    own_code: Mapping[str, str] | None = None,
    devices: int = 1,
    made_by: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Collect one record, as JSON can hold it.

    Args:
        data: what the run is trained on.
        claims: the hashes of the claims that stand now, before the next step.
        at_once: how many runs share the machine.
        own_code: the modules of the person's own, with the hashes of their source.
        devices: how many devices share each batch, which changes rounding.
        made_by: the engine, the shard and the worker that make the run.
    """
    spread = {"devices": devices, "processes": jax.process_count()}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "made_by": {"pid": str(os.getpid()), **(made_by or {}), **_job()},
        **machine(PACKAGES),
        "machine_kind": kind_of_machine(),
        "flags": in_force(),
        "set_by_normlab": set_by_normlab(),
        "claims": list(claims),
        # Seconds depend on it, and nothing else.
        "at_once": at_once,
        **({"spread_over": spread} if devices > 1 else {}),
        "git": git_state(Path(__file__).parents[1]),
        **({"own_code": dict(own_code)} if own_code else {}),
        "data": {
            "name": data.name,
            "source": data.source,
            "fingerprint": data.fingerprint,
            "classes": len(data.classes),
            "train_examples": len(data.train.labels),
            "test_examples": len(data.test.labels),
        },
    }


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Return the command, versions, processor, devices and flags; nothing names the computer.

    Args:
        packages: the distributions whose versions matter; None stands for one not installed.
    """
    environment = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in FLAG_VARIABLES or name.startswith(("JAX_", "MALLOC_"))
    }
    return {
        "command": list(map(as_text, sys.argv)),
        "versions": {name: _version(name) for name in packages}
        | {"python": sys.version.split()[0]},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "cores": usable_cores(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "environment": environment,
    }


def _job() -> dict[str, str]:
    """Return the number of the scheduler's job that this process is in."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    return {"job": job} if job else {}


def _processor() -> str:
    """Return the processor's name, as well as the system tells it."""
    names = (line.partition(":")[2].strip() for line in about_processor("model name"))
    return next(names, platform.processor())


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
