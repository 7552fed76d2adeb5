"""`normlab doctor`: what a report of a problem needs, and nothing that names the person."""

import importlib.util
import platform
import re
from pathlib import Path

import jax
import numpy as np

from normlab.interface import doctor
from normlab.ops import native
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


def test_doctor_says_what_normalises_and_how_to_change_that(monkeypatch):
    monkeypatch.setattr(native, "chosen", lambda: "numba 1.2")
    assert doctor.diagnosis()["normalisers"] == "compiled for this processor by numba 1.2"
    monkeypatch.setattr(native, "chosen", lambda: "")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "numba" else found(name)
    )
    assert "pip install 'normlab[native]'" in doctor.diagnosis()["normalisers"]
