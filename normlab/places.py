"""Says where data lie, and where normlab keeps what it can make again."""

import os
from pathlib import Path

import platformdirs


def data_root() -> Path:
    """Return the folder of all datasets: `$NORMLAB_DATA`, or else the user's cache folder."""
    return _chosen("NORMLAB_DATA")


def cache_root() -> Path:
    """Return the folder of what can be made again: `$NORMLAB_CACHE`, or the user's cache folder.

    Decoded pictures, digests of files, compiled programs and compiled kernels lie there.
    """
    return _chosen("NORMLAB_CACHE")


def _chosen(variable: str) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("normlab")
