"""Between evaluations the host only dispatches steps and reads losses of finished ones."""

import jax
import numpy as np
import pytest

from normlab.training import fit as loop_file
from normlab.training.fit import Loop
from normlab.training.state import Clock

SEED = 3
READING = ("__array__", "__float__", "__int__", "__bool__", "item", "tolist", "block_until_ready")
"""Ways in which the host waits for an array; `jax.device_get` and the like go through them."""


class Watched:
    """A `Compiled` that records which steps were dispatched, and which arrays the host read."""

    def __init__(self, compiled, monkeypatch):
        self._compiled, self.events, self.losses = compiled, [], []
        array = type(jax.numpy.zeros(()))
        for name in READING:
            monkeypatch.setattr(array, name, self._noting(getattr(array, name)))
        monkeypatch.setattr(array, "_value", property(self._noting(array._value.fget)))
        wait = jax.block_until_ready
        monkeypatch.setattr(
            jax, "block_until_ready", lambda x: self.events.append("all") or wait(x)
        )
        # numpy reads an array's memory without asking any of these.
        monkeypatch.setattr(loop_file, "np", self)

    def asarray(self, loss):
        self.events.append(self._which(loss))
        return np.asarray(loss)

    def _which(self, array):
        return next((n for n, loss in enumerate(self.losses) if loss is array), "other")

    def _noting(self, method):
        def noting(array, *arguments, **keywords):
            self.events.append(self._which(array))
            return method(array, *arguments, **keywords)

        return noting

    def step(self, *arguments):
        state, loss = self._compiled.step(*arguments)
        self.losses.append(loss)
        self.events.append("step")
        return state, loss

    def __getattr__(self, name):
        return getattr(self._compiled, name)


def within(events):
    """List what happened between the first and the last step of a stretch."""
    first, last = events.index("step"), len(events) - events[::-1].index("step")
    return events[first:last]


@pytest.fixture(scope="module")
def made(compiled):
    return compiled(epochs=3, eval_every=12)  # three epochs of four steps, evaluated at the end


def test_only_losses_of_steps_long_done_are_read(made, monkeypatch):
    watched = Watched(made, monkeypatch)
    Loop(watched, SEED).run(made.init(SEED), Clock())
    handed_over, read = 0, []
    for event in within(watched.events):
        if event == "step":
            handed_over += 1
        else:
            read.append((event, handed_over))
    assert handed_over == 12
    assert read == [
        (n, n + 1 + loop_file.STEPS_AHEAD) for n in range(12 - 1 - loop_file.STEPS_AHEAD)
    ]


@pytest.mark.parametrize("how", [float, bool, jax.device_get, jax.block_until_ready])
def test_reading_anything_else_would_be_seen(made, monkeypatch, how):
    watched = Watched(made, monkeypatch)

    def should_save():
        how(watched.losses[-1] if watched.losses else 0.0)
        return False

    Loop(watched, SEED, should_save=should_save).run(made.init(SEED), Clock())
    assert len([event for event in within(watched.events) if event != "step"]) > 12


def test_a_step_writes_its_state_where_the_old_one_lay(made):
    """XLA uses the donated buffers for the state, except for scalars that it may put elsewhere."""
    state = made.init(SEED)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert made._step.memory_analysis().alias_size_in_bytes == size


def test_images_stay_as_bytes_on_the_device(device_data):
    for split in (device_data.train, device_data.test):
        assert split.images.dtype == np.uint8 and isinstance(split.images, jax.Array)
