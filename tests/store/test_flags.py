"""The settings in force as a run is made, however they were set."""

import jax
import pytest

from normlab.data import Shapes
from normlab.engine import provenance
from normlab.engine.settings import in_force
from normlab.store.flags import JAX_SETTINGS, OPTIONS, TUNING, recorded, unusual


def proof():
    return provenance.collect(Shapes(train_examples=20, test_examples=20, size=8).load())


def test_what_the_configuration_was_updated_to_is_recorded():
    before = in_force()["jax_default_matmul_precision"]
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        assert recorded(proof())["jax_default_matmul_precision"] == "highest" != before
        assert unusual(proof())["jax_default_matmul_precision"] == "highest"
    finally:
        jax.config.update("jax_default_matmul_precision", None)


def test_what_stands_in_the_environment_is_recorded(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/x --xla_b --xla_a")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("NORMLAB_TUNING", "off")
    found = in_force()
    assert found["XLA_FLAGS"] == "--xla_a --xla_b" and found["NVIDIA_TF32_OVERRIDE"] == "0"
    assert found[TUNING] == "off" and found[OPTIONS] == "unset"


def test_settings_of_jax_that_are_listed_exist():
    known = set(jax.config.values)
    assert len(known & JAX_SETTINGS.keys()) >= 20
    assert known & JAX_SETTINGS.keys() <= in_force().keys()


@pytest.mark.parametrize(
    ("older", "name", "value"),
    [
        ({"environment": {"XLA_FLAGS": "--b --a"}}, "XLA_FLAGS", "--a --b"),
        ({"environment": {"JAX_ENABLE_X64": "1"}}, "jax_enable_x64", "1"),
        ({"environment": {}, "set_by_normlab": {"compiler": "x=1"}}, OPTIONS, "x=1"),
        ({"environment": {}, "set_by_normlab": {}}, OPTIONS, "unset"),
    ],
)
def test_older_records_tell_what_they_know(older, name, value):
    assert recorded(older)[name] == value
    assert "jax_default_matmul_precision" not in recorded(older)
