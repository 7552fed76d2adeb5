"""The devices of a run are part of what it is only where they change its numbers."""

import pytest

from normlab.configs import build
from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine
from normlab.engine.preflight import check
from normlab.errors import UserError
from normlab.store.loading import load


def resolved(file, *overrides):
    return load_experiment(file, overrides).runs[0]


def test_on_other_devices_a_run_is_the_same_run_of_the_same_experiment(tiny):
    file = tiny("sweep: {seed: 0..1}\n")
    plain, spread = load_experiment(file), load_experiment(file, ("mesh.data=4",))
    assert spread.name == plain.name == "tiny"
    assert [run.id for run in spread.runs] == [run.id for run in plain.runs]
    assert spread.runs[0].sections["mesh"] == {"data": 4, "parameters": None}
    assert spread.runs[0].program_hash != plain.runs[0].program_hash  # it is compiled anew


def test_local_statistics_are_of_so_many_devices(tiny):
    runs = [
        resolved(tiny(), *words)
        for words in (
            [],
            ["statistics=local", "mesh.data=2"],
            ["statistics=local", "mesh.data=5"],
            ["statistics=local", "mesh={data: 5, parameters: sharded}"],
        )
    ]
    assert len({run.hash for run in runs}) == 3
    assert runs[2].hash == runs[3].hash


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mesh.data=3"], r"mesh: data must be a divisor of the 20 .* got 3"),
        (["mesh.data=4", "accumulate=10", "statistics=local"], r"divisor of the 2 .* got 4"),
        (["mesh.data=10", "statistics=local", "accumulate=2"], "one value"),
        (["mesh.data=0"], "data must be a positive whole number, got 0"),
        (["mesh.parameters=halved"], "replicated, sharded|replicated or sharded"),
        (["mesh.statistics=local"], "did you mean 'statistics' in 'train'"),
        (["statistics=each"], "whole, local|whole or local"),
    ],
)
def test_mistakes_are_told_when_the_config_is_read(tiny, overrides, message):
    with pytest.raises(UserError, match=message):
        resolved(tiny(), *overrides)


def test_a_run_begun_on_four_devices_goes_on_on_one_and_says_so(tiny, tmp_path):
    """It stops at its first evaluation; the reference is a run on one device."""
    file, out = tiny("", "many.yaml"), tmp_path / "runs"
    engine = Engine(load_experiment(file, ("mesh.data=4",)), out)
    engine.tell = lambda event: engine._stopped.set() if hasattr(event, "metrics") else None
    assert engine.run_all().states == ["interrupted"]
    assert Engine(load_experiment(file), out).run_all().states == ["done"]
    assert Engine(load_experiment(file), tmp_path / "alone").run_all().states == ["done"]
    (run,), (alone,) = (load(folder / "many").runs for folder in (out, tmp_path / "alone"))
    assert [record.get("spread_over") for record in run.provenance] == [
        {"devices": 4, "processes": 1},
        None,
    ]
    for found, wanted in zip(run.metrics, alone.metrics, strict=True):
        assert found["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-5)
        assert found["test_loss"] == pytest.approx(wanted["test_loss"], rel=1e-5)


def test_fewer_devices_than_asked_for_are_told(tiny):
    experiment = load_experiment(tiny(), ("mesh.data=20",))
    (warning,) = check(experiment.runs, 1, lambda config: build.dataset(config.sections))
    assert warning.startswith(
        "mesh.data is 20, and of the 8 devices here (cpu) a run takes 5, with"
    )
