"""Dropout in training has the right keys and is reproducible."""

from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from normlab.core import Normaliser
from normlab.norms import Identity
from normlab.training.compiled import Compiled
from normlab.training.fit import Loop, fit
from normlab.training.recipe import Recipe
from normlab.training.state import Clock
from normlab.training.streams import STREAMS

SEED, STEPS = 5, 8


class Own(nn.Module):
    """A person's own network with flax's dropout, which reports the keys that it gets."""

    norm: Normaliser
    tell: object = None

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Dense(8)(x.reshape(len(x), -1)))
        if train and self.tell is not None:
            jax.debug.callback(self.tell, jax.random.key_data(self.make_rng("dropout")))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class Told:
    """A hashable callback, because fields of modules must be hashable."""

    def __init__(self):
        self.keys = []

    def __call__(self, key):
        self.keys.append(tuple(np.asarray(key).tolist()))


@pytest.fixture(scope="module")
def made(program, device_data):
    plain = program(epochs=2)
    return Compiled(replace(plain, model=plain.model.clone(dropout=0.5)), device_data)


@pytest.fixture(scope="module")
def unbroken(made):
    return Loop(made, SEED).run(made.init(SEED), Clock())


@pytest.mark.parametrize("asked", [1, 3])
def test_interrupted_and_resumed_it_is_bitwise_the_unbroken_run(made, unbroken, asked):
    state, clock, rows = made.init(SEED), Clock(), []
    for _ in range(STEPS):
        left = iter(range(asked))
        loop = Loop(made, SEED, should_stop=lambda left=left: next(left, None) is None)
        fitted = loop.run(jax.tree.map(jax.numpy.array, jax.device_get(state)), clock)
        state, clock = fitted.state, fitted.clock
        rows += fitted.history
        if fitted.status == "done":
            break
    jax.tree.map(np.testing.assert_array_equal, state, unbroken.state)
    assert [row["train_loss"] for row in rows] == [r["train_loss"] for r in unbroken.history]


def test_it_changes_the_training_and_not_its_start(made, unbroken, compiled):
    plain = compiled(epochs=2)
    jax.tree.map(np.testing.assert_array_equal, made.init(SEED).params, plain.init(SEED).params)
    fitted = Loop(plain, SEED).run(plain.init(SEED), Clock())
    assert fitted.history[0]["train_loss"] != unbroken.history[0]["train_loss"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_step_microbatch_and_seed_has_a_key_of_its_own(program, device_data, accumulate):
    def keys(seed, told):
        plain = program(norm=Identity(), accumulate=accumulate)
        step = jax.jit(replace(plain, model=Own(Identity(), told)).step)
        state = replace(plain, model=Own(Identity())).init(seed, (4, 4, 1))
        for _ in range(2):
            state, _ = step(state, device_data, plain.order(seed, 0, 70), np.uint32(seed))
        jax.effects_barrier()
        return told.keys

    first = keys(0, Told())
    assert len(first) == 2 * accumulate
    assert len({*first, *keys(1, Told())}) == 4 * accumulate
    assert sorted(keys(0, Told())) == sorted(first)


def test_a_network_of_ones_own_with_dropout_is_trained(data):
    fitted = fit(Own(Identity()), data, optax.sgd(0.05), Recipe(epochs=10, batch_size=16))
    assert fitted.status == "done"
    assert fitted.history[-1]["test_accuracy"] > 0.5


def test_a_network_without_it_pays_nothing_for_the_key(program, device_data, made, monkeypatch):
    plain = program()
    state, order = plain.init(0, (4, 4, 1)), plain.order(0, 0, 70)

    def lowered(chosen):
        step = jax.jit(lambda *arguments: chosen.step(*arguments))
        return step.lower(state, device_data, order, np.uint32(0)).as_text()

    before = lowered(plain), lowered(made.program)
    monkeypatch.setitem(STREAMS, "dropout", 99)
    after = lowered(plain), lowered(made.program)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_what_probes_look_at_is_a_function_of_the_parameters(made, device_data):
    state = made.init(SEED)
    images, labels = made.first_examples(16)
    loss = jax.jit(made.program.loss)
    one, again = (loss(state.params, state.norm_state, images, labels)[0] for _ in range(2))
    plain = replace(made.program, model=made.program.model.clone(dropout=0.0))
    assert one == again
    assert one != jax.jit(plain.loss)(state.params, state.norm_state, images, labels)[0]
