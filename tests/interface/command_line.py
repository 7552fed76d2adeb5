"""The `normlab` command, in a process of its own."""

import os
import subprocess
import sys


def normlab(*words, cwd, **environment):
    """What it prints and how it ends."""
    command = [sys.executable, "-m", "normlab.cli", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
