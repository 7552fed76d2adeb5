"""Tells whether the process that makes a run is still there."""

import os
import platform


def is_left(process: tuple[str | None, int] | None) -> bool:
    """Whether nobody makes a run any more, because its process of this host has ended.

    Args:
        process: host and pid, as the run's status says them. A process of another host is taken to
            be there, since that cannot be known from here.
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
