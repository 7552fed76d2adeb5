"""Networks with kernel transforms train, in a loop and from YAML, and go on where they stopped."""

import signal

import jax
import numpy as np
import optax
import pytest

from normlab.configs.experiment import load_experiment
from normlab.data import Shapes
from normlab.engine.checkpoint import Checkpoints
from normlab.engine.engine import Engine
from normlab.models.plain import MLP, Convnet
from normlab.models.resnet import Resnet
from normlab.models.slots import TRANSFORM
from normlab.norms import GroupNorm, LayerNorm
from normlab.training.compiled import Compiled
from normlab.training.events import Row, Saveable
from normlab.training.fit import Loop, fit
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import Clock, DeviceData
from normlab.weights import SpectralNorm
from tests.shared.thorough import mostly_thorough

from .conftest import NAMES, make

DATA = Shapes(train_examples=64, test_examples=20, size=8).load()
RECIPE = {"epochs": 2, "batch_size": 16, "eval_batch_size": 20}
YAML = """
data: {name: shapes, train_examples: 64, test_examples: 20, size: 8}
model: {name: mlp, widths: [8, 8], activation: relu}
norm: layer_norm
optimizer: {name: sgd, learning_rate: 0.1}
train: {epochs: 2, batch_size: 16, accumulate: 2}
"""


@pytest.fixture(autouse=True)
def promotion_as_users_have_it():
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def own(tree):
    """Select what belongs to transforms."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [leaf for path, leaf in leaves if any(getattr(k, "key", "") == TRANSFORM for k in path)]


def network(transform):
    """A ResNet-8 around the one that has a state; around the others what compiles sooner."""
    slots = {"norm": GroupNorm(groups=2), "classes": len(DATA.classes), "kernel": transform}
    if isinstance(transform, SpectralNorm):
        return Resnet(**slots, depth=8, width=4)
    return Convnet(**slots, widths=(4, 4), layers=1)


@pytest.mark.parametrize("name", mostly_thorough(NAMES, ["weight_norm", "spectral_norm"]))
def test_a_network_trains_with_each_and_resumed_from_disk_it_is_bitwise_the_unbroken_run(
    name, tmp_path
):
    model = network(make(name))
    program = Program(model, optax.sgd(0.05, momentum=0.9), Recipe(accumulate=2, **RECIPE))
    compiled = Compiled(program, DeviceData.put(DATA))
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def emit(event):
        if isinstance(event, Saveable) and int(event.state.step) == 3:
            checkpoints.save(event.state, event.clock)

    first = compiled.init(0)
    start = jax.device_get(first)
    unbroken = Loop(compiled, 0, emit, should_save=lambda: True).run(first, Clock())
    state, clock = checkpoints.restore(start)
    checkpoints.close()
    assert int(state.step) == 3
    resumed = Loop(compiled, 0).run(state, clock)

    assert unbroken.status == "done" and int(unbroken.state.step) == 8
    jax.tree.map(np.testing.assert_array_equal, resumed.state, unbroken.state)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start, unbroken.state)
    layers = sum("Conv" in layer for layer in start.params)
    params, state = make(name).init(jax.random.key(0), np.ones((3, 3, 4, 4), np.float32))
    assert len(own(moved.params)) == layers * len(params) and all(own(moved.params))
    assert len(own(moved.norm_state)) == layers * len(state) and all(own(moved.norm_state))
    before, after = (row["train_loss"] for row in unbroken.history)
    assert np.isfinite(after) and after < before


def test_microbatches_change_nothing_and_power_iteration_is_made_once_a_step():
    model = MLP(norm=LayerNorm(), classes=len(DATA.classes), kernel=SpectralNorm(), widths=(8,))
    ends = [
        fit(model, DATA, optax.sgd(0.1), Recipe(accumulate=parts, **RECIPE)).state
        for parts in (1, 2)
    ]
    for one, other in zip(*(jax.tree.leaves((s.params, s.norm_state)) for s in ends), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    kernel = np.asarray(ends[0].params["Dense_0"]["kernel"], np.float64)
    slot = ends[0].norm_state["Dense_0"]["Kernel_0"][TRANSFORM]
    sigma = np.asarray(slot["v"]) @ kernel @ np.asarray(slot["u"])
    np.testing.assert_allclose(sigma, np.linalg.svd(kernel, compute_uv=False)[0], rtol=1e-2)


def runs(file, out, tell=lambda event: None):
    return Engine(load_experiment(file), out, tell).run_all()


def test_a_config_sweeps_over_transforms_and_none(tmp_path):
    file = tmp_path / "kernels.yaml"
    file.write_text(YAML + "sweep: {kernel: [null, weight_norm, {name: spectral_norm}]}\n")
    outcome = runs(file, tmp_path / "runs")
    assert outcome.states == ["done"] * 3
    assert [run.arm for run in outcome.runs.runs] == [
        "kernel=null", "weight_norm", "spectral_norm",
    ]  # fmt: skip
    losses = [run.metrics[-1]["train_loss"] for run in outcome.runs.runs]
    assert np.isfinite(losses).all() and len(set(losses)) == 3


def test_a_run_from_yaml_interrupted_goes_on_to_the_same_end(tmp_path):
    file = tmp_path / "spectral.yaml"
    mlp = "{name: mlp, widths: [8, 8], activation: relu}"
    convnet = YAML.replace(mlp, "{name: convnet, widths: [4], layers: 1}")
    file.write_text(convnet + "kernel: {name: spectral_norm, iterations: 2}\n")

    def interrupt(event):
        if isinstance(event, Row) and event.metrics["step"] == 4:
            signal.raise_signal(signal.SIGINT)

    (unbroken,) = runs(file, tmp_path / "unbroken").runs.runs
    assert runs(file, tmp_path / "broken", interrupt).states == ["interrupted"]
    (resumed,) = runs(file, tmp_path / "broken").runs.runs
    assert resumed.state == unbroken.state == "done"
    jax.tree.map(np.testing.assert_array_equal, resumed.params(), unbroken.params())
    assert resumed.config["kernel"] == {"name": "spectral_norm", "iterations": 2}
