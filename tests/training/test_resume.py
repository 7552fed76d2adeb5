"""A run resumed from any state is bitwise the uninterrupted run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.data.augment import Crop, Flip
from normlab.training.events import Saveable
from normlab.training.fit import Loop
from normlab.training.state import Clock

SEED = 11
AUGMENT = (Flip(), Crop(padding=1))
STEPS = 12  # three epochs of four steps; a row every three steps, so none ends with its epoch


@pytest.fixture(scope="module")
def made(compiled):
    schedule = optax.cosine_decay_schedule(0.3, STEPS)
    optimizer = optax.sgd(schedule, momentum=0.9)
    return compiled(optimizer=optimizer, augmentations=AUGMENT, epochs=3, eval_every=3)


@pytest.fixture(scope="module")
def unbroken(made):
    return Loop(made, SEED).run(made.init(SEED), Clock())


@pytest.fixture(scope="module")
def saved(made):
    """Collect every state that a run offers for saving, by step, on the host."""
    states = {}

    def emit(event):
        if isinstance(event, Saveable):
            states[int(event.state.step)] = jax.device_get(event.state)

    Loop(made, SEED, emit, should_save=lambda: True).run(made.init(SEED), Clock())
    return states


def numbers(rows):
    return [{k: v for k, v in row.items() if k != "train_seconds"} for row in rows]


def assert_same_end(fitted, unbroken):
    assert fitted.status == "done"
    jax.tree.map(np.testing.assert_array_equal, fitted.state, unbroken.state)


def test_the_unbroken_run_is_long_enough(unbroken, saved):
    assert [row["step"] for row in unbroken.history] == [3, 6, 9, 12]
    assert sorted(saved) == list(range(STEPS + 1))
    assert len({row["train_loss"] for row in unbroken.history}) == 4


@pytest.mark.parametrize("step", range(STEPS + 1))
def test_resumed_from_any_step_it_is_bitwise_the_unbroken_run(made, unbroken, saved, step):
    state = jax.tree.map(jnp.array, saved[step])
    clock = Clock(train=100.0, evaluate=50.0)
    fitted = Loop(made, SEED).run(state, clock)
    assert_same_end(fitted, unbroken)
    rest = [row for row in unbroken.history if row["step"] > step]
    assert numbers(fitted.history) == numbers(rest)
    assert all(row["train_seconds"] > 100 for row in fitted.history)
    assert fitted.clock.train >= 100 and fitted.clock.evaluate >= 50


@pytest.mark.parametrize("asked", [1, 2, 4, 6, 12])
def test_interrupted_and_resumed_it_is_bitwise_the_unbroken_run(made, unbroken, asked):
    """It is stopped again before every `asked`th step."""
    state, rows, clock, starts = made.init(SEED), [], Clock(), 0
    while True:
        starts += 1
        left = iter(range(asked))
        loop = Loop(made, SEED, should_stop=lambda left=left: next(left, None) is None)
        fitted = loop.run(state, clock)
        state, clock = fitted.state, fitted.clock
        rows += fitted.history
        if fitted.status == "done":
            break
        assert fitted.status == "interrupted"
        assert int(state.step) == asked * starts
    assert starts == STEPS / asked
    assert_same_end(fitted, unbroken)
    assert numbers(rows) == numbers(unbroken.history)
    assert [r["train_seconds"] for r in rows] == sorted(r["train_seconds"] for r in rows)


def test_asked_to_stop_at_once_it_takes_no_step(made):
    start = made.init(SEED)
    before = jax.device_get(start)
    fitted = Loop(made, SEED, should_stop=lambda: True).run(start, Clock())
    assert (fitted.status, fitted.history) == ("interrupted", [])
    jax.tree.map(np.testing.assert_array_equal, fitted.state, before)


def test_another_seed_is_another_run(made, unbroken):
    fitted = Loop(made, SEED + 1).run(made.init(SEED + 1), Clock())
    assert numbers(fitted.history) != numbers(unbroken.history)


def test_one_compilation_serves_all_seeds_as_one_of_their_own_would(compiled, made, unbroken):
    schedule = optax.cosine_decay_schedule(0.3, STEPS)
    optimizer = optax.sgd(schedule, momentum=0.9)
    settings = dict(optimizer=optimizer, augmentations=AUGMENT, epochs=3, eval_every=3)
    own = compiled(**settings, seed=SEED)
    Loop(made, 0).run(made.init(0), Clock())  # the shared one has served another seed meanwhile
    again = Loop(made, SEED).run(made.init(SEED), Clock())
    separate = Loop(own, SEED).run(own.init(SEED), Clock())
    for fitted in (again, separate):
        assert_same_end(fitted, unbroken)
        assert numbers(fitted.history) == numbers(unbroken.history)
