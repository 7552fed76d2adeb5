"""Waits for a condition, for as long as a busy machine may take to meet it."""

import time

GENEROUS = 600.0
"""Seconds. A test that passes never waits so long, and one that fails does no harm by it."""


def wait_until(condition, process=None):
    """Returns what `condition()` gives once that is true; a `process` must not end before."""
    end = time.monotonic() + GENEROUS
    while not (found := condition()):
        if process is not None and process.poll() is not None:
            raise AssertionError(f"it ended too early: {process.communicate()[0]}")
        if time.monotonic() > end:
            if process is not None:
                process.kill()
            raise AssertionError(f"it was not so within {GENEROUS:.0f} s")
        time.sleep(0.02)
    return found
