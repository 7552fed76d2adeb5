"""Tells whether the process that makes a run is still there."""

import os
import platform


def is_left(process: tuple[str | None, int] | None) -> bool:
    """Return whether the process that made a run on this host has ended.

    Args:
        process: host and pid, as in the run's status. A process of another host counts as running,
            because that cannot be checked from here.
    """
    # On Windows `os.kill` would end it.
    if process is None or process[0] != platform.node() or os.name != "posix":
        return False
    try:
        os.kill(process[1], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
