"""`normlab doctor`: what a report of a problem needs, and nothing that names the person."""

import platform
import re
from pathlib import Path

import jax
import numpy as np

from tests.shared.command_line import normlab


def test_doctor_says_what_normlab_runs_on(tmp_path):
    done = normlab("doctor", cwd=tmp_path, NORMLAB_DATA=str(tmp_path), JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert f"jax {jax.__version__}," in said["versions"]
    assert f"numpy {np.__version__}," in said["versions"]
    assert said["devices"].startswith("cpu")
    assert said["64-bit numbers"] == "on" and "JAX_ENABLE_X64=1" in said["environment"]
    assert said["data"].endswith("($NORMLAB_DATA)") and said["datasets here"] == "shapes"


def test_doctor_names_neither_the_person_nor_the_computer(tmp_path):
    done = normlab("doctor", cwd=tmp_path, NORMLAB_DATA="")
    assert str(Path.home()) not in done.stdout
    assert platform.node() not in re.findall(r"[\w.-]+", done.stdout)
