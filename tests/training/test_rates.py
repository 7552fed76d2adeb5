"""Learning rates are data of a run, and one program serves all of them."""

import jax
import numpy as np
import optax
import pytest

from normlab.configs.experiment import load_experiment
from normlab.configs.optax_names import OPTIMIZERS
from normlab.engine.engine import Engine
from normlab.training.rates import rated


@pytest.fixture(autouse=True)
def promotion_as_users_have_it():
    """Optax's schedules and Adam mix dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


PARAMS = {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}
GRADS = {"kernel": np.linspace(2, -1, 6, dtype=np.float32).reshape(2, 3)}


def four_steps(optimizer):
    state, params = optimizer.init(PARAMS), PARAMS
    update = jax.jit(optimizer.update)
    for _ in range(4):
        updates, state = update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("rate", [0.1, optax.cosine_decay_schedule(0.1, 4)], ids=["one", "many"])
@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "rmsprop"])
def test_an_optimiser_takes_the_steps_that_it_takes_with_its_rates_built_in(name, rate):
    make = OPTIMIZERS.load(name)
    found = four_steps(rated(make, rate, steps=4))
    wanted = four_steps(make(learning_rate=rate))
    np.testing.assert_allclose(found["kernel"], wanted["kernel"], rtol=1e-6)


CONFIG = """
data: {name: shapes, train_examples: 40, test_examples: 20, size: 8}
model: {name: mlp, widths: [4]}
norm: batch_norm
optimizer: {name: sgd, momentum: 0.5}
train: {epochs: 2, batch_size: 20}
sweep: {learning_rate: [0.01, 0.3], seed: 0..1}
"""


@pytest.mark.parametrize("schedule", ["", "schedule: cosine_decay_schedule\n"])
def test_runs_that_differ_in_their_rate_share_a_program_and_are_those_made_alone(
    tmp_path, schedule
):
    file = tmp_path / "rates.yaml"
    file.write_text(CONFIG + schedule)
    together = Engine(load_experiment(file), tmp_path / "together").run_all().runs.runs
    assert len({run.status["compile_seconds"] for run in together}) == 1
    alone = [
        Engine(load_experiment(file, (f"learning_rate={rate}",)), tmp_path / str(rate)).run_all()
        for rate in (0.01, 0.3)
    ]
    apart = [run for outcome in alone for run in outcome.runs.runs]
    for one, other in zip(together, apart, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.params(), other.params())
    first, *_, last = (run.params()["Dense_0"]["kernel"] for run in together)
    assert np.abs(first - last).max() > 1e-3
