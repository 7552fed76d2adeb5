"""Collects what a report of a problem needs: versions, machine, settings, folders."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from normlab.data.dataset import data_root
from normlab.data.listing import status
from normlab.engine.process import programs_folder, set_by_normlab
from normlab.engine.provenance import PACKAGES, machine

OPTIONAL = ("torch", "safetensors", "pandas", "tensorboard", "wandb", "mlflow")


def diagnosis() -> dict[str, str]:
    """Describe one machine by headings; nothing names the person or the computer.

    Raises nothing: what cannot be found out is said so.
    """
    import jax

    config: Any = jax.config  # its attributes are made as JAX is imported
    found = machine((*PACKAGES, "scipy", "pydantic", "pyarrow"))
    here = [package for package in OPTIONAL if importlib.util.find_spec(package)]
    home = str(Path.home())  # an issue that quotes this names nobody
    flags = [f"{k}={str(v).replace(home, '~')}" for k, v in found["environment"].items()]
    tuned = [f"{name}: {value}" for name, value in set_by_normlab().items()]
    cores = f"{found['cores']} of {found['cpus']} cores"
    return {
        "versions": ", ".join(f"{name} {v or '(absent)'}" for name, v in found["versions"].items()),
        "optional packages": ", ".join(here) or "none",
        "system": found["platform"],
        "processor": f"{found['processor'] or 'unknown'}, {cores}",
        "devices": ", ".join(found["devices"]),
        "matrix products": str(config.jax_default_matmul_precision or "default precision"),
        "64-bit numbers": "on" if config.jax_enable_x64 else "off",
        "environment": ", ".join(flags) or "nothing set",
        "normalisers": _normalisers(),
        "set by normlab": "; ".join(tuned) or "nothing",
        "compiled programs": _folder(config.jax_compilation_cache_dir or programs_folder()),
        "data": _folder(data_root()) + (" ($NORMLAB_DATA)" if "NORMLAB_DATA" in os.environ else ""),
        "datasets here": ", ".join(entry.name for entry in status() if entry.present),
    }


def _normalisers() -> str:
    """Say what normalises large arrays, and how to have them compiled where they are not."""
    from normlab.ops import native

    if native.chosen():
        return f"compiled for this processor by {native.chosen()}"
    if importlib.util.find_spec("numba") is None:
        return "JAX (pip install 'normlab[native]' has them compiled for one CPU)"
    return "JAX (the compiled ones are for one CPU, after normlab.prepare(), unless tuning is off)"


def _folder(path: Path | str) -> str:
    """Describe a folder by its place below the home, its size and the room that is left."""
    path = Path(path)
    shown = f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)
    if not path.exists():
        return f"{shown} (not there yet)"
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return f"{shown}, {size / 1e6:,.0f} MB, {shutil.disk_usage(path).free / 1e9:,.0f} GB free"
