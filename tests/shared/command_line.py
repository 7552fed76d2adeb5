"""The `normlab` command, in a process of its own, and a small sweep for it."""

import os
import subprocess
import sys

from tests.shared.waiting import GENEROUS

TINY = """
data: {name: shapes, train_examples: 60, test_examples: 20, size: 8}
model: {name: mlp, widths: [8]}
optimizer: {name: sgd, learning_rate: 0.1}
train: {epochs: 2, batch_size: 20}
sweep: {norm: [identity, batch_norm]}
"""


def normlab(*words, cwd, **environment):
    """Run a command, and return what it prints and how it ends."""
    command = [sys.executable, "-m", "normlab.cli", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment,
        capture_output=True, text=True, timeout=GENEROUS,
    )  # fmt: skip
