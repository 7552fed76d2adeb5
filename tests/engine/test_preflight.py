"""What would stop a run later is told before the first one, all at once."""

import re

import jax.numpy as jnp
import pytest
from jax import make_jaxpr

from normlab.configs import build
from normlab.configs.experiment import load_experiment
from normlab.engine import memory, preflight
from normlab.engine.engine import Remark
from normlab.engine.memory import needed, needed_exactly
from normlab.errors import UserError
from normlab.training.room import Room, room

PARAMETERS = 4 * (192 * 8 + 8 + 8 * 10 + 10)
DATA = 170 * (8 * 8 * 3 + 4) + 2 * 3 * 4
"""Bytes of the tiny config: images of uint8, labels of int32, mean and deviation of float32."""


@pytest.fixture
def identity(tiny):
    file = tiny("", "identity.yaml")
    file.write_text(file.read_text().replace("norm: batch_norm", "norm: identity"))
    return file


def of(file, *overrides):
    (run,) = load_experiment(file, overrides).runs
    return needed(run.sections, build.dataset(run.sections))


def test_what_is_kept_is_known_to_the_byte(identity):
    need = of(identity)
    assert (need.parameters, need.gradients, need.data) == (PARAMETERS, PARAMETERS, DATA)
    rates = 4 * 3 * 6 + 4  # of every step, and the count of steps
    assert need.optimizer == PARAMETERS + rates
    adam = of(identity, "optimizer={name: adam}")
    assert adam.optimizer == 2 * PARAMETERS + rates + 4


def test_of_a_set_that_stays_on_the_host_a_batch_counts(identity, monkeypatch):
    monkeypatch.setenv("NORMLAB_DATA_MEMORY", "1kB")
    assert of(identity).data == 20 * (8 * 8 * 3 + 4) + 2 * 3 * 4
    (run,) = load_experiment(identity).runs
    assert needed_exactly(run.sections, build.dataset(run.sections)).activations > 0


def test_the_estimate_of_a_step_is_near_what_the_compiler_needs(identity):
    file = identity
    more, less = of(file, "batch_size=100"), of(file, "batch_size=10")
    assert more.activations > 5 * less.activations
    (run,) = load_experiment(file, ("batch_size=100",)).runs
    exact = needed_exactly(run.sections, build.dataset(run.sections))
    assert exact.is_exact and exact.least == more.least
    assert exact.activations / 4 < more.activations < 4 * exact.activations


def test_the_peak_of_a_small_program_is_as_counted_by_hand():
    x = jnp.zeros(100, jnp.float32)
    two_and_their_sum = make_jaxpr(lambda x: (x * 2 + x * 3).sum())(x)
    assert memory._peak(two_and_their_sum.jaxpr) == 3 * 400
    one_after_the_other = make_jaxpr(lambda x: ((x * 2) * 3) * 4)(x)
    assert memory._peak(one_after_the_other.jaxpr) == 2 * 400


def test_this_machine_has_some_memory():
    found = room()
    assert found is None or 0 < found.free <= found.total


def checked(file, monkeypatch, *overrides, has, jobs=1):
    monkeypatch.setattr(preflight, "room", lambda: has)
    runs = load_experiment(file, overrides).runs
    return preflight.check(runs, jobs, lambda run: build.dataset(run.sections))


def test_a_model_that_cannot_fit_is_refused_with_the_estimate(tiny, monkeypatch, make, tmp_path):
    file = tiny("sweep: {norm: [identity, batch_norm], batch_size: [10, 20], seed: 0..1}\n")
    monkeypatch.setattr(preflight, "room", lambda: Room(30_000, 30_000))
    with pytest.raises(UserError, match=r"does not fit the memory: it needs at least ") as error:
        make(file)
    assert not (tmp_path / "runs").exists()
    lines = str(error.value).splitlines()
    assert len(lines) == 2, "one line a batch size"
    assert "(batch size 10)" in lines[0] and "there are 0.0 MB; a smaller batch_size" in lines[1]
    big = tiny("", "big.yaml")
    big.write_text(big.read_text().replace("widths: [8]", "widths: [2000000, 2000000]"))
    with pytest.raises(UserError, match=r"parameters 16,0\d\d\.\d GB"):
        checked(big, monkeypatch, has=Room(10**11, 10**11))


def test_what_may_fit_is_warned_of_and_not_refused(identity, monkeypatch):
    least = of(identity).least
    asked = []
    monkeypatch.setattr(
        preflight, "needed_exactly", lambda *of_what: asked.append(1) or needed_exactly(*of_what)
    )
    assert checked(identity, monkeypatch, has=None) == []
    assert checked(identity, monkeypatch, has=Room(10**9, 10**9)) == [] and not asked
    (warning,) = checked(identity, monkeypatch, has=Room(10**9, least // 2))
    assert "may not fit the memory" in warning and "--jobs" not in warning
    (warning,) = checked(
        identity, monkeypatch, "sweep.seed=0..3", has=Room(10**9, 2 * least), jobs=4
    )
    assert "4 runs at once of" in warning and "--jobs 1 makes one at a time" in warning
    with pytest.raises(UserError, match=r"it needs 0\.1 MB .* a step's activations and gradients"):
        checked(identity, monkeypatch, has=Room(least + 100, least + 100))
    assert asked == [1], "the compiler is asked before anything is refused for its activations"


def test_an_estimate_that_fails_stops_nothing(identity, monkeypatch):
    monkeypatch.setattr(preflight, "needed", lambda *of_what: 1 / 0)
    assert checked(identity, monkeypatch, has=Room(1, 1)) == []


def test_missing_data_of_a_sweep_are_told_before_its_first_run(
    tiny, make, by_hand, monkeypatch, tmp_path
):
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path / "nowhere"))
    here = "{name: shapes, train_examples: 120, test_examples: 50, size: 8}"
    file = tiny(f"sweep: {{data: [{here}, cifar10, {{name: cifar100}}], seed: 0..1}}\n")
    base = re.sub("^data: .*$", f"data: {here}", file.read_text(), flags=re.MULTILINE)
    file.write_text(base)
    with pytest.raises(UserError) as error:
        make(file)
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and not by_hand and not (tmp_path / "runs").exists()
    assert "cifar10 is not on this machine" in lines[0] and "cifar100" in lines[1]


def test_a_missing_package_is_told_before_the_first_run(tiny, make, by_hand, monkeypatch, tmp_path):
    def load(sections):
        import a_package_that_nobody_has  # noqa: F401 # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(build, "dataset", load)
    with pytest.raises(UserError, match=r"'shapes' need a package.*pip install a_package_that"):
        make(tiny("sweep: {seed: 0..3}\n"))
    assert not by_hand


def test_finished_runs_need_no_data_and_warnings_are_told(tiny, make, by_hand, monkeypatch):
    told = []
    monkeypatch.setattr(preflight, "room", lambda: Room(10**12, 1))
    make(tiny(), tell=told.append)
    (remark,) = [event for event in told if isinstance(event, Remark)]
    assert "may not fit the memory" in remark.text
    monkeypatch.setattr(build, "dataset", lambda sections: 1 / 0)
    assert make(tiny()).states == ["skipped"]
