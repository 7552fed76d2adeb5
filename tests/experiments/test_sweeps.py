import contextlib
import functools
import io
import json

import jax
import pytest

from experiments.speed import harness, scaling, sweeps


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """The programs' child processes are calls in this one, and results lie in `tmp_path`."""

    def called(module):
        def call(command, environment):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                module.main(command[3:])  # after: python -m module
            return printed.getvalue()

        return call

    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    for module in (scaling, sweeps):
        monkeypatch.setattr(module, "fresh_process", called(module))
    jax.config.update("jax_numpy_dtype_promotion", "standard")  # as users have it
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def test_seeds_made_as_one_have_the_losses_of_those_made_one_after_the_other(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sweeps, "NORMS", ("batch_norm",))
    monkeypatch.setattr(sweeps, "MODELS", {"mlp": "{name: mlp, widths: [8]}"})
    ways = [sweeps.PLAIN, sweeps.VMAPPED]
    sweeps.main(["--models", "mlp", "--seeds", "2", "--steps", "4", "--ways", ",".join(ways)])
    (table,) = json.loads((tmp_path / "sweeps.json").read_text())["results"]["models"].values()
    assert [row["way"] for row in table["rows"]] == ways
    for row in table["rows"]:
        assert row["s, whole sweep"] > 0 and row["ms a step"] > 0
        assert row["losses: furthest from one process"] < 1e-5
    assert len(table["made"][sweeps.VMAPPED]["losses"]) == 2 * len(sweeps.NORMS)
    assert f"| {sweeps.VMAPPED} |" in capsys.readouterr().out


@pytest.mark.thorough
def test_every_axis_has_a_table_with_slopes_and_a_panel(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        scaling,
        "STEP",
        scaling.STEP.replace(
            "{{name: resnet, depth: {depth}, width: {channels}}}",
            "{{name: mlp, widths: [{channels}]}}",  # is compiled sooner
        ),
    )
    monkeypatch.setattr(scaling, "NETWORK_AXES", {"batch": (32, 64)})
    monkeypatch.setattr(scaling, "SWEEP_AXES", {"finished runs": (4, 8)})
    compiled = functools.cache(lambda key, folder: original(json.loads(key), folder))
    original = scaling.compiled_step
    monkeypatch.setattr(
        scaling, "compiled_step", lambda sizes, _: compiled(json.dumps(sizes), tmp_path)
    )
    scaling.main(["--rounds", "2", "--axes", "batch,finished runs"])
    results = json.loads((tmp_path / "scaling.json").read_text())["results"]
    assert list(results) == ["batch", "finished runs"]
    # But for the update of the parameters, a step's arithmetic is linear in the batch.
    assert 0.7 < results["batch"]["slopes"]["GFLOP"] < 1.0
    printed = capsys.readouterr().out
    assert printed.count("| slope |") == 2
    drawn = (tmp_path / "scaling.svg").read_text()
    assert all(f">{axis}</text>" in drawn for axis in results)


def test_a_surprise_is_what_grows_faster_than_the_arithmetic():
    found = {"GFLOP": 2.0, "step ms": 2.05, "step MB": 2.2, "compile s": 0.3}
    (words,) = scaling.surprises("channels", found)
    assert words.startswith("step MB grows by channels to the power of 2.20")
    assert scaling.surprises("finished runs", {"report, s": 1.05}) == []
