"""Averaged weights: their values, the statistics beside them, and what an evaluation takes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.data.dataset import Dataset, Split
from normlab.models.plain import MLP
from normlab.norms import BatchNorm, LayerNorm
from normlab.training.averaging import with_average
from normlab.training.compiled import Compiled
from normlab.training.optimizer import with_recipe
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData

DECAY = 0.9


@pytest.fixture
def data():
    values = np.random.default_rng(0).integers(0, 255, (40, 2, 2, 1), dtype=np.uint8)
    split = Split(values, (values.reshape(40, -1).sum(1) > 510).astype(np.int32))
    return Dataset("tiny", split, split, ("a", "b"))


def compiled_for(data, optimizer=None, norm=None, **settings):
    recipe = Recipe(epochs=1, batch_size=10, **settings)
    model = MLP(norm=norm or BatchNorm(momentum=0.5), classes=2, widths=(4,))
    optimizer = with_recipe(optimizer or optax.sgd(0.5), recipe)
    return Compiled(Program(model, optimizer, recipe), DeviceData.put(data))


def steps(compiled, count=4):
    state = compiled.init(0)
    order, states = compiled.order(0, 0), []
    for _ in range(count):
        state, _ = compiled.step(state, order, 0)
        states.append(jax.tree.map(np.asarray, state))
    return state, states


def expected(trees):
    """Average by the definition, in float64."""
    weights = DECAY ** np.arange(len(trees), dtype=np.float64)[::-1]
    weights /= weights.sum()
    return jax.tree.map(lambda *leaves: np.tensordot(weights, np.stack(leaves), 1), *trees)


def assert_close(found, wanted):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, wanted)


@pytest.mark.parametrize("statistics", ["averaged", "current", "recalibrated"])
def test_an_evaluation_takes_averaged_weights_and_the_statistics_of_the_policy(data, statistics):
    compiled = compiled_for(data, ema=DECAY, ema_statistics=statistics)
    state, states = steps(compiled)
    params, norm_state = compiled.for_evaluation(state)
    average = expected([one.params for one in states])
    assert_close(params, average)
    if statistics == "averaged":
        assert_close(norm_state, expected([one.norm_state for one in states]))
    elif statistics == "current":
        assert_close(norm_state, states[-1].norm_state)
    else:
        images, _ = compiled.first_examples(40)
        hidden = np.asarray(images, np.float64).reshape(40, -1) @ average["Dense_0"]["kernel"]
        assert_close(norm_state["NormAct_0"]["Norm_0"]["norm"]["mean"], hidden.mean(0))
    logits = compiled.program.model.apply(
        {"params": params, "norm_state": norm_state}, compiled.first_examples(40)[0], train=False
    )
    labels = jnp.asarray(data.train.labels)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    assert compiled.evaluate(state)["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_training_is_the_same_with_an_average(data):
    one, other = (steps(compiled_for(data, ema=ema))[0] for ema in (None, DECAY))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert compiled_for(data).for_evaluation(one) == (one.params, one.norm_state)


def test_a_network_without_statistics_is_averaged_whatever_the_policy(data):
    compiled = compiled_for(data, norm=LayerNorm(), ema=DECAY, ema_statistics="recalibrated")
    state, states = steps(compiled)
    assert_close(compiled.for_evaluation(state)[0], expected([one.params for one in states]))


def test_a_decay_near_one_is_the_plain_mean_of_few_steps():
    averaged = with_average(optax.sgd(1.0), 0.999999)
    params, state = jnp.zeros(()), averaged.init(jnp.zeros(()))
    for _ in range(4):
        updates, state = averaged.update(jnp.asarray(-1.0), state, params)
        params = params + updates
    assert float(state.params) == pytest.approx(2.5, rel=1e-2)


def test_a_schedule_free_optimiser_is_evaluated_with_its_average(data):
    optimizer = optax.contrib.schedule_free_sgd(0.5)
    compiled = compiled_for(data, optimizer, LayerNorm())
    state, _ = steps(compiled)
    found, _ = compiled.for_evaluation(state)
    assert_close(found, optax.contrib.schedule_free_eval_params(state.opt_state, state.params))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), found, state.params)
    assert any(jax.tree.leaves(changed))
