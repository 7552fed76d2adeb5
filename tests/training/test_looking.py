"""`Lookable` events come at the right steps and do not change the training."""

import jax
import numpy as np
import optax
import pytest

from normlab.engine.probe_rows import Watch
from normlab.models.plain import MLP
from normlab.norms import BatchNorm
from normlab.probes import Gradients
from normlab.training.events import Lookable, Row, Saveable
from normlab.training.fit import Loop, fit
from normlab.training.recipe import Recipe
from normlab.training.state import Clock

SEED = 6


@pytest.fixture(scope="module")
def made(compiled):
    return compiled(epochs=2, eval_every=3)  # eight steps: rows after 3, 6 and 8


def events_of(made, **loop):
    events = []

    def emit(event):
        if isinstance(event, Lookable):
            events.append(("look", int(event.state.step), jax.device_get(event.state.params)))
        elif isinstance(event, Row):
            events.append(("row", event.metrics["step"]))
        elif isinstance(event, Saveable):
            events.append(("save", int(event.state.step)))

    fitted = Loop(made, SEED, emit, **loop).run(made.init(SEED), Clock())
    return events, fitted


def test_it_is_looked_before_a_step_after_the_row_of_the_steps_before_it(made):
    events, _ = events_of(made, look_at={0, 3, 5, 8})
    assert [event[:2] for event in events] == [
        ("look", 0), ("row", 3), ("look", 3), ("look", 5), ("row", 6), ("row", 8), ("look", 8),
        ("save", 8),
    ]  # fmt: skip


def test_the_states_are_those_of_the_training_which_ends_as_without(made):
    events, looked = events_of(made, look_at=range(9))
    nothing, plain = events_of(made)
    assert not [event for event in nothing if event[0] == "look"]
    jax.tree.map(np.testing.assert_array_equal, looked.state, plain.state)
    state = made.init(SEED)
    for step, params in [event[1:] for event in events if event[0] == "look"]:
        jax.tree.map(np.testing.assert_array_equal, params, state.params)
        if step < 8:
            state, _ = made.step(state, made.order(SEED, step // 4), SEED)


def test_what_is_done_with_them_takes_no_training_time(made, pass_time):
    def emit(event):
        if isinstance(event, Lookable):
            pass_time(1000)

    fitted = Loop(made, SEED, emit, look_at=range(9)).run(made.init(SEED), Clock())
    assert fitted.clock.train + fitted.clock.evaluate < 1000


def test_a_stopped_run_is_looked_at_when_it_goes_on(made):
    asked = iter([False] * 5 + [True])
    events, fitted = events_of(made, look_at={5}, should_stop=lambda: next(asked))
    assert [event[:2] for event in events] == [("row", 3), ("save", 5)]
    assert fitted.status == "interrupted"


def test_nothing_is_looked_at_once_the_run_has_diverged(compiled):
    made = compiled(optimizer=optax.sgd(1e38), epochs=2)
    events, fitted = events_of(made, look_at=range(9))
    assert fitted.status == "diverged"
    looked = [event[1] for event in events if event[0] == "look"]
    assert looked == list(range(int(fitted.state.step) + 1))


def test_a_watch_keeps_what_probes_see_in_fit(data):
    watch = Watch([Gradients()], examples=64)
    model = MLP(norm=BatchNorm(), classes=3, widths=(8,))
    fit(model, data, optax.sgd(0.1), Recipe(epochs=1, batch_size=16), look_at=[0, 4], emit=watch)
    rows = {(row["step"], row["quantity"]): row for row in watch.rows}
    assert rows[4, "norm"]["layers"] == ["Dense_0", "Dense_1"]
    first = rows[0, "norm"]["values"]
    assert all(value > 0 for value in first) and first != rows[4, "norm"]["values"]
    assert watch.seconds > 0


def test_the_loss_of_a_program_is_that_of_its_step(program, device_data):
    one = program(label_smoothing=0.1)
    state = one.init(SEED, device_data.train.images.shape[1:])
    images = device_data.standardised(device_data.train.images[:16])
    labels = device_data.train.labels[:16]
    loss, norm_state = one.loss(state.params, state.norm_state, images, labels)
    variables = {"params": state.params, "norm_state": state.norm_state}
    logits, _ = one.model.apply(variables, images, train=True, mutable=True)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 3), 0.1)
    want = optax.softmax_cross_entropy(logits, targets).mean()
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    before, after = jax.tree.leaves(state.norm_state), jax.tree.leaves(norm_state)
    assert len(before) == len(after) > 0
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
