"""A diverged run ends at once, says where, and keeps the last finite state."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.core import normaliser
from normlab.data.dataset import Dataset, Split
from normlab.models.plain import MLP
from normlab.norms import BatchNorm, Identity
from normlab.training.events import Diverged, Progress, Row, Saveable
from normlab.training.fit import Loop, fit, largest_parameter
from normlab.training.recipe import Recipe
from normlab.training.state import Clock

SEED = 5


@jax.custom_vjp
def with_gradient(x, factor):
    """Return x, but multiply its gradient."""
    return x


with_gradient.defvjp(lambda x, factor: (x, factor), lambda factor, g: (g * factor, None))


@normaliser(paper="none: made here")
@dataclass(frozen=True)
class Poison:
    """Changes nothing, but multiplies gradients from one step on."""

    factor: float = float("inf")
    at: int = 0

    def init(self, features):
        return {}, {"steps": jnp.zeros((), jnp.float32)}

    def apply(self, params, state, x, *, train, mask=None):
        factor = jnp.where(state["steps"] >= self.at, self.factor, 1.0)
        return with_gradient(x, factor), {"steps": state["steps"] + 1.0}


def run(made, state=None, **loop):
    return Loop(made, SEED, **loop).run(made.init(SEED) if state is None else state, Clock())


def after(made, steps):
    """Take some steps, one at a time; return the state and the last loss."""
    state, loss = made.init(SEED), None
    for step in range(steps):
        state, loss = made.step(state, made.order(SEED, step // 4), SEED)
    return state, loss


def test_a_huge_learning_rate_diverges_where_a_plain_loop_does(compiled, data):
    made = compiled(norm=Identity(), optimizer=optax.sgd(1e10))
    fitted = run(made)

    model, params = made.program.model, made.init(SEED).params
    pixels = data.train.images.astype(np.float64)
    images = jnp.asarray((pixels - pixels.mean()) / pixels.std(), jnp.float32)

    def loss_of(params, chosen):
        logits = model.apply({"params": params}, images[chosen], train=True)
        return -jax.nn.log_softmax(logits)[np.arange(16), data.train.labels[chosen]].mean()

    step = 0
    while True:
        chosen = made.order(SEED, step // 4)[step % 4 * 16 : step % 4 * 16 + 16]
        loss, grads = jax.value_and_grad(loss_of)(params, chosen)
        moved = jax.tree.map(lambda p, g: p - np.float32(1e10) * g, params, grads)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, grads, moved))):
            break
        params, step = moved, step + 1

    assert 0 < step < 8
    assert (fitted.status, fitted.diverged.step, int(fitted.state.step)) == ("diverged", step, step)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), fitted.state.params, params
    )
    norms = {
        f"{layer}/{name}": np.linalg.norm(np.asarray(leaf, np.float64))
        for layer, leaves in params.items()
        for name, leaf in leaves.items()
    }
    assert fitted.diverged.layer == max(norms, key=norms.get)
    assert fitted.diverged.norm == pytest.approx(max(norms.values()), rel=1e-3)


@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
@pytest.mark.parametrize("at", [0, 1, 3, 4, 6, 7])
def test_a_gradient_alone_is_caught_at_its_step(compiled, at, factor):
    """The loss stays finite. There are eight steps and a row every four; step 7 is the last."""
    made = compiled(norm=Poison(factor, at))
    fitted = run(made)
    assert (fitted.status, fitted.diverged.step) == ("diverged", at)
    assert [row["step"] for row in fitted.history] == [4] * (at >= 4)
    expected, loss = after(made, at + 1)  # the step that fails is one that changes nothing
    assert np.isnan(loss) and bool(expected.diverged)
    jax.tree.map(np.testing.assert_array_equal, fitted.state.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, fitted.state.opt_state, expected.opt_state)
    assert float(fitted.state.norm_state["NormAct_0"]["Norm_0"]["norm"]["steps"]) == at
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.state))


def test_steps_after_the_failed_one_change_nothing(compiled):
    made = compiled(norm=Poison(at=2))
    jax.tree.map(np.testing.assert_array_equal, after(made, 3), after(made, 7))
    good, _ = after(made, 2)
    jax.tree.map(np.testing.assert_array_equal, after(made, 3)[0].params, good.params)


@pytest.mark.parametrize("at", [2, 7])
def test_an_update_alone_is_caught_too(compiled, at):
    """Loss and gradient are finite but the parameters are not, even in the very last step."""
    rate = optax.scale_by_schedule(lambda count: jnp.where(count >= at, jnp.inf, -0.1))
    fitted = run(compiled(optimizer=rate))
    assert (fitted.status, fitted.diverged.step) == ("diverged", at)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.state.params))


def test_events_end_with_the_divergence_and_the_last_finite_state(compiled):
    events = []
    made = compiled(norm=Poison(at=5), epochs=50)
    fitted = run(made, emit=events.append)
    rows = [event.metrics["step"] for event in events if isinstance(event, Row)]
    assert rows == [4]
    *before, told, last = events
    assert told == fitted.diverged == Diverged(5, told.layer, told.norm)
    assert isinstance(last, Saveable) and last.state is fitted.state
    assert not any(isinstance(event, Saveable | Diverged) for event in before)
    losses = [event.loss for event in before if isinstance(event, Progress)]
    assert losses and np.isfinite(losses).all()


def test_a_diverged_state_is_not_trained_further(compiled):
    made = compiled(norm=Poison(at=2))
    state = run(made).state
    before = jax.device_get(state)
    again = run(made, state)
    assert (again.status, again.diverged.step, again.history) == ("diverged", 2, [])
    jax.tree.map(np.testing.assert_array_equal, again.state, before)


def test_a_state_marked_as_diverged_stands_still_even_where_the_next_step_would_be_finite(compiled):
    """A step that was dispatched ahead may see another order, in which it would not fail."""
    made = compiled()
    state = made.init(SEED)._replace(diverged=jnp.ones((), bool))
    before = jax.device_get(state)
    moved, loss = made.step(state, made.order(SEED, 1), SEED)
    assert np.isnan(loss)
    jax.tree.map(np.testing.assert_array_equal, moved, before)


def test_large_finite_gradients_are_no_divergence(compiled):
    """Their squares overflow, so that their norm would not be finite."""
    made = compiled(norm=Poison(factor=1e25), optimizer=optax.sgd(1e-27))
    fitted = run(made)
    assert (fitted.status, fitted.diverged) == ("done", None)
    start = made.init(SEED).params["Dense_0"]["kernel"]
    assert not np.array_equal(fitted.state.params["Dense_0"]["kernel"], start)


def test_a_gradient_of_zero_is_no_divergence_even_under_a_clip():
    """The loss of one class is zero whatever the weights are."""
    split = Split(np.arange(64, dtype=np.uint8).reshape(16, 2, 2, 1), np.zeros(16, np.int32))
    model = MLP(norm=BatchNorm(), classes=1, widths=(4,))
    recipe = Recipe(epochs=2, batch_size=8, clip=1.0)
    fitted = fit(model, Dataset("one", split, split, ("all",)), optax.sgd(0.1), recipe)
    assert fitted.status == "done"
    assert [row["train_loss"] for row in fitted.history] == [0.0, 0.0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.state.params))


@pytest.mark.parametrize(
    ("params", "layer", "norm"),
    [
        ({"a": {"kernel": np.array([[3.0, 4.0]])}, "b": {"bias": np.array([-4.9])}}, "a/kernel", 5),
        ({"a": np.zeros(3), "b": {"c": {"d": np.array([-0.1])}}}, "b/c/d", 0.1),
        # Squares that float32 cannot hold, and a dtype that numpy has not.
        ({"a": np.full(4, 1e30, np.float32), "b": np.full(4, 2e30, np.float32)}, "b", 4e30),
        ({"a": jnp.full(4, 2.0, jnp.bfloat16), "b": jnp.ones(1)}, "a", 4.0),
    ],
)
def test_the_largest_parameter_is_named_with_its_norm(params, layer, norm):
    found, size = largest_parameter(params)
    assert found == layer
    assert size == pytest.approx(norm, rel=1e-6)
