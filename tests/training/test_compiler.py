"""Compiler options are set only for known versions, and never override a person's own."""

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from jax import lax

from normlab.engine.process import set_by_normlab
from normlab.training import compiler
from normlab.training.compiler import YNN_FUSIONS, Known, compiler_options, dropped_options


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    jax.devices()  # XLA reads its flags once, and would end the process because of this one
    monkeypatch.setenv("XLA_FLAGS", "--xla_some_other_flag=1")
    monkeypatch.delenv("NORMLAB_TUNING", raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jaxlib, "__version__", "0.10.2")


def know(monkeypatch, **options):
    monkeypatch.setattr(compiler, "KNOWN", [Known("cpu", "0.10.2", "0.12", options)])


def test_a_known_version_gets_what_was_measured():
    assert compiler_options() == compiler.KNOWN[0].options and dropped_options() == {}


@pytest.mark.parametrize("version, expected", [("0.10.2", 1), ("0.11", 0), ("0.12.0.1", 1)])
def test_sums_stay_with_ynnpack_on_measured_versions_alone(monkeypatch, version, expected):
    monkeypatch.setattr(jaxlib, "__version__", version)
    assert len(compiler_options()) == expected
    assert all("REDUCE" in str(value) for value in compiler_options().values())


def test_a_program_with_a_convolution_can_be_kept(monkeypatch):
    """One with oneDNN's cannot, so every process would compile anew."""
    monkeypatch.undo()

    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    lowered = jax.jit(convolve).lower(jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 32)))
    program = lowered.compile(compiler_options=compiler_options() or None)
    assert len(program.runtime_executable().serialize()) > 0


@pytest.mark.parametrize("version", ["0.10.2", "0.10.20", "0.11.0.dev20261101"])
def test_options_hold_for_a_range_of_versions(monkeypatch, version):
    know(monkeypatch, xla_cpu_enable_fast_math=False)
    monkeypatch.setattr(jaxlib, "__version__", version)
    assert compiler_options() == {"xla_cpu_enable_fast_math": False}


@pytest.mark.parametrize("version", ["0.9.9", "0.10.1", "0.12", "0.12.0.1", "1.0"])
def test_a_version_out_of_the_range_gets_nothing(monkeypatch, version):
    know(monkeypatch, xla_cpu_enable_fast_math=False)
    monkeypatch.setattr(jaxlib, "__version__", version)
    assert compiler_options() == {}


def test_an_option_that_the_compiler_has_lost_is_dropped_and_recorded(monkeypatch):
    know(monkeypatch, xla_cpu_enable_fast_math=False, xla_gone="1", **{YNN_FUSIONS: "NO_SUCH"})
    assert compiler_options() == {"xla_cpu_enable_fast_math": False}
    assert set(dropped_options()) == {"xla_gone", YNN_FUSIONS}
    record = set_by_normlab()
    assert record["compiler"] == "xla_cpu_enable_fast_math=False"
    assert "No such compile option: 'xla_gone'" in record["compiler options that it refused"]
    assert "'NO_SUCH' is not a valid enum value" in record["compiler options that it refused"]


def test_another_backend_gets_nothing(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() == {}


def test_a_flag_of_the_users_own_is_not_overridden(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{YNN_FUSIONS}=+individual_dot")
    assert compiler_options() == {}


@pytest.mark.parametrize("word", ["off", "OFF", "0"])
def test_it_can_be_switched_off(monkeypatch, word):
    monkeypatch.setenv("NORMLAB_TUNING", word)
    assert compiler_options() == {}


def test_the_option_takes_convolutions_alone_from_ynnpack(monkeypatch):
    """Otherwise an option that XLA interprets differently could seem to help."""
    monkeypatch.undo()
    if jaxlib.__version__ != "0.10.2" or jax.default_backend() != "cpu":
        pytest.skip("it is for jaxlib 0.10.2 on CPUs")

    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, kernel = jnp.ones((4, 8, 8, 64)), jnp.full((3, 3, 64, 64), 0.01)
    total = jax.jit(lambda x: x.reshape(-1, 64).sum(0)).lower(x)
    convolution = jax.jit(convolve).lower(x, kernel)
    options = dict(compiler.KNOWN[0].options)
    for lowered, before, after in ((convolution, True, False), (total, True, True)):
        texts = [lowered.compile(compiler_options=o).as_text() for o in (None, options)]
        assert ["__ynn_fusion" in text for text in texts] == [before, after]
    found = [convolution.compile(compiler_options=o)(x, kernel) for o in (None, options)]
    np.testing.assert_allclose(*found, rtol=1e-5)
