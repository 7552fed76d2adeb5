"""A run reports by events alone, in the right order."""

import time

import jax
import numpy as np
import optax
import pytest

from normlab.models.plain import MLP
from normlab.norms import BatchNorm
from normlab.training import fit as loop_file
from normlab.training.events import Progress, Row, Saveable
from normlab.training.fit import Loop, fit
from normlab.training.recipe import Recipe
from normlab.training.state import Clock

SEED = 6


@pytest.fixture(scope="module")
def made(compiled):
    return compiled(epochs=2, eval_every=3)  # eight steps: rows after 3, 6 and 8


def record(made, **loop):
    events = []
    fitted = Loop(made, SEED, events.append, **loop).run(made.init(SEED), Clock())
    return events, fitted


def short(event):
    match event:
        case Row():
            return f"row {event.metrics['step']}"
        case Saveable():
            return "save"
        case Progress():
            return f"progress {event.step}"


def test_rows_come_in_order_and_a_state_to_save_at_the_end(made):
    events, fitted = record(made)
    assert [short(event) for event in events if not isinstance(event, Progress)] == [
        "row 3",
        "row 6",
        "row 8",
        "save",
    ]
    assert [event.metrics for event in events if isinstance(event, Row)] == fitted.history
    assert events[-1].state is fitted.state
    assert events[-1].clock == fitted.clock
    assert list(fitted.history[0]) == [
        "step",
        "epoch",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "train_seconds",
    ]
    assert {type(value) for value in fitted.history[0].values()} == {int, float}


def test_progress_tells_finished_steps_and_their_loss(compiled, monkeypatch):
    monkeypatch.setattr(loop_file, "SECONDS_BETWEEN_PROGRESS", -1.0)  # never too early
    made = compiled(epochs=2, eval_every=100)
    events, fitted = record(made)
    state, losses = made.init(SEED), []
    for step in range(8):
        state, loss = made.step(state, made.order(SEED, step // 4), SEED)
        losses.append(float(loss))
    told = [(e.step, e.steps, e.loss) for e in events if isinstance(e, Progress)]
    ahead = loop_file.STEPS_AHEAD
    assert told[:-1] == [(step, 8, losses[step - 1]) for step in range(1, 8 - ahead + 1)]
    assert told[-1] == (8, 8, fitted.history[-1]["train_loss"])


def test_progress_is_rare(compiled, monkeypatch):
    monkeypatch.setattr(loop_file, "SECONDS_BETWEEN_PROGRESS", 1e9)
    events, _ = record(compiled(epochs=2, eval_every=100))
    assert [event.step for event in events if isinstance(event, Progress)] == [8]


@pytest.mark.parametrize("at", [0, 2, 3, 7])
def test_a_state_is_offered_just_before_the_step_at_which_it_is_asked_for(made, at):
    steps = iter(range(100))
    saved = []

    def emit(event):
        if isinstance(event, Saveable):
            saved.append((int(event.state.step), event.clock.train))

    fitted = Loop(made, SEED, emit, should_save=lambda: next(steps) == at).run(
        made.init(SEED), Clock()
    )
    assert [step for step, _ in saved] == [at, 8]
    assert saved[0][1] <= saved[1][1] == fitted.clock.train


def test_a_stop_is_answered_before_the_next_step_and_offers_the_state(made):
    asked = iter([False] * 5 + [True])
    events, fitted = record(made, should_stop=lambda: next(asked))
    assert (fitted.status, int(fitted.state.step)) == ("interrupted", 5)
    assert [short(event) for event in events if not isinstance(event, Progress)] == [
        "row 3",
        "save",
    ]
    assert events[-1].state is fitted.state


def test_a_step_uses_its_state_up(made):
    state = made.init(SEED)
    moved, _ = made.step(state, made.order(SEED, 0), SEED)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(moved))


def test_an_optimiser_may_start_from_the_parameters_themselves(compiled):
    """An average of the weights does so, and one buffer must not be donated twice."""
    decay = optax.GradientTransformation(
        init=lambda params: params,
        update=lambda grads, average, params: (
            jax.tree.map(lambda grad: -0.1 * grad, grads),
            jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, average, params),
        ),
    )
    assert record(compiled(optimizer=decay, epochs=1))[1].status == "done"


def test_fit_prints_nothing_and_writes_nothing(data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    model = MLP(norm=BatchNorm(), classes=3, widths=(8,))
    fitted = fit(model, data, optax.sgd(0.1), Recipe(epochs=1, batch_size=16))
    assert fitted.status == "done"
    assert (*capfd.readouterr(),) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_seconds_are_told_apart(data, pass_time):
    """Compilation takes far longer than training here, and counts in neither of the others."""
    model = MLP(norm=BatchNorm(), classes=3, widths=(8,))
    spent = 1000

    def emit(event):
        if isinstance(event, Row):
            pass_time(spent)  # what is done with an event is no part of any of them

    started = time.perf_counter()
    fitted = fit(model, data, optax.sgd(0.1), Recipe(epochs=1, batch_size=16), emit=emit)
    wall = time.perf_counter() - started
    assert 0 < fitted.clock.train < fitted.compile_seconds
    assert fitted.clock.evaluate > 0
    assert fitted.clock.train + fitted.clock.evaluate + fitted.compile_seconds < wall - spent
    assert fitted.history[-1]["train_seconds"] == fitted.clock.train


def test_what_was_compiled_before_costs_no_compile_seconds(made):
    _, fitted = record(made)
    assert fitted.compile_seconds == 0
    assert made.seconds > 0
    assert made.train_examples == 70


def test_saving_takes_no_training_time(made, pass_time):
    def emit(event):
        if isinstance(event, Saveable):
            pass_time(1000)

    fitted = Loop(made, SEED, emit, should_save=lambda: True).run(made.init(SEED), Clock())
    plain = Loop(made, SEED).run(made.init(SEED), Clock())
    assert fitted.clock.train < plain.clock.train + 8 * 1000
    np.testing.assert_array_equal(fitted.history[-1]["test_loss"], plain.history[-1]["test_loss"])
