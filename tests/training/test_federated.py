"""Rounds of clients equal the same rounds by a loop; what is local stays local."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.adapters.classifier import Classifier
from normlab.data import Dataset, Split
from normlab.data.dataset import Outline
from normlab.data.shards import ByLabel, Dirichlet, dealt, dealt_sizes
from normlab.errors import FieldError, UserError
from normlab.models import MLP
from normlab.norms import BatchNorm, GroupNorm
from normlab.training.compiled import Compiled
from normlab.training.federated import Federated
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData

CLIENTS, LABELS = 2, np.arange(48, dtype=np.int32) % 4


def split(seed):
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (48, 2, 2, 1)).astype(np.uint8), LABELS)


DATA = dealt(Dataset("noise", split(0), split(1), tuple("abcd")), ByLabel(CLIENTS, pieces=1))


def program(norm=None, kind=Federated, optimizer=None, **settings):
    recipe = Recipe(epochs=1, batch_size=16, eval_batch_size=7, **settings)
    model = MLP(norm or BatchNorm(), classes=4, widths=(5,), activation="relu")
    more = {"clients": CLIENTS} if kind is Federated else {}
    return kind(model, optimizer or optax.sgd(0.1, momentum=0.9), recipe, **more)


def by_hand(made, state, data, order, local=None, fixed=False):
    """Make one round by a loop over clients; return each client's (params, state, opt state)."""
    images, labels = made._batch(state.step, data, order, jnp.asarray(0, jnp.uint32))
    steps = made.recipe.local_steps
    images = images.reshape(CLIENTS, steps, -1, *images.shape[1:])
    labels = labels.reshape(CLIENTS, steps, -1)
    ended = []
    for client in range(CLIENTS):
        params, norm_state = local[client] if local else (state.params, state.norm_state)
        opt = state.opt_state.inner
        for step in range(steps):
            x, y = images[client, step], labels[client, step]

            def loss(p, s=norm_state, x=x, y=y):
                logits, moved = Classifier(made.model).apply(p, s, x, train=not fixed)
                wrong = optax.softmax_cross_entropy_with_integer_labels(logits, y)
                return wrong.mean(), moved

            gradient, norm_state = jax.grad(loss, has_aux=True)(params)
            updates, opt = made.optimizer.update(gradient, opt, params)
            params = optax.apply_updates(params, updates)
        ended.append((params, norm_state, opt))
    return ended


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def mean(trees):
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


def begun(made):
    data = DeviceData.put(DATA)
    seed = jnp.asarray(0, jnp.uint32)
    return data, made.init(0, (2, 2, 1)), made.order(seed, 0, len(DATA.train.labels)), seed


def test_a_round_averages_what_clients_learn_on_their_own_examples():
    made = program(local_steps=2)
    data, state, order, seed = begun(made)
    for number in range(2):
        ended = by_hand(made, state, data, order)
        state, _ = jax.jit(made.step)(state, data, order, seed)
        close((state.params, state.norm_state), mean([one[:2] for one in ended]))
        close(jax.tree.leaves(state.opt_state.inner), jax.tree.leaves(mean([e[2] for e in ended])))
        assert state.step == number + 1


def test_one_client_with_one_step_is_training_as_always():
    data = DeviceData.put(DATA)
    plain, one = program(kind=Program), replace(program(), clients=1)
    order, seed = jnp.arange(48, dtype=jnp.int32), jnp.asarray(0, jnp.uint32)
    expected, _ = jax.jit(plain.step)(plain.init(0, (2, 2, 1)), data, order, seed)
    found, _ = jax.jit(one.step)(one.init(0, (2, 2, 1)), data, order, seed)
    close((found.params, found.norm_state), (expected.params, expected.norm_state))


def test_the_order_gives_every_round_as_many_examples_of_each_client():
    made = program(local_steps=2)
    order = np.asarray(made.order(0, 0, 48))
    assert sorted(order) == list(range(48))
    batches = order.reshape(3, CLIENTS, 8)
    assert (batches // 24 == np.arange(CLIENTS)[:, None]).all()
    assert (order != np.asarray(made.order(0, 1, 48))).any()


def test_fedbn_keeps_normalisers_with_their_clients_and_tests_each_on_its_own():
    made = program(local_steps=2, local_normalisers=True)
    data, state, order, seed = begun(made)
    local = [(state.params, state.norm_state)] * CLIENTS
    for _ in range(2):
        ended = by_hand(made, state, data, order, local)
        shared = mean([one[0] for one in ended])
        state, _ = jax.jit(made.step)(state, data, order, seed)
        # What a client goes on with: the shared weights, and normalisers of its own.
        local = [({**shared, "NormAct_0": e[0]["NormAct_0"]}, e[1]) for e in ended]
        params, norm_state = made.weights(state, state.params, state.norm_state)
        for client, (own, own_state) in enumerate(local):
            close(
                jax.tree.map(lambda leaf, c=client: leaf[c], (params, norm_state)), (own, own_state)
            )
    assert (params["NormAct_0"]["Norm_0"]["norm"]["scale"][0]
            != params["NormAct_0"]["Norm_0"]["norm"]["scale"][1]).any()  # fmt: skip
    right = 0
    for client, weights in enumerate(local):
        own = slice(24 * client, 24 * client + 24)
        x = data.standardised(data.test.images[own])
        logits, _ = Classifier(made.model).apply(*weights, x, train=False)
        right += int((logits.argmax(axis=1) == data.test.labels[own]).sum())
    compiled = Compiled(made, data)
    assert compiled.evaluate(state)["accuracy"] == pytest.approx(right / 48)
    assert compiled.logits(state).shape == (48, 4)


def test_fixbn_takes_the_averaged_statistics_from_its_round_on_and_keeps_them():
    made = program(local_steps=2, fixed_statistics_after=1)
    data, state, order, seed = begun(made)
    state, _ = jax.jit(made.step)(state, data, order, seed)
    ended = by_hand(made, state, data, order, fixed=True)
    after, _ = jax.jit(made.step)(state, data, order, seed)
    close(after.params, mean([one[0] for one in ended]))
    jax.tree.map(np.testing.assert_array_equal, after.norm_state, state.norm_state)


def test_a_rate_is_that_of_the_round():
    """A schedule counts rounds: with 1, 0, ... the second round moves nothing."""
    made = program(local_steps=4, optimizer=optax.sgd(lambda count: jnp.where(count < 1, 1.0, 0.0)))
    data, state, order, seed = begun(made)
    first, _ = jax.jit(made.step)(state, data, order, seed)
    second, _ = jax.jit(made.step)(first, data, order, seed)
    jax.tree.map(np.testing.assert_array_equal, second.params, first.params)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params, state.params)
    assert all(jax.tree.leaves(moved["Dense_1"]))


@pytest.mark.parametrize("shards", [ByLabel(3, pieces=2), ByLabel(5, 1), Dirichlet(3, alpha=0.2)])
def test_dealing_gives_each_example_to_one_client_at_most_and_equally_many(shards):
    labels = np.random.default_rng(0).integers(0, 4, 61)
    found = shards.deal(labels)
    assert found.shape[0] == shards.clients and len(np.unique(found)) == found.size
    sizes = dealt_sizes(Outline((1, 1, 1), 4, 61, 61), shards)
    assert sizes.train_examples == found.size > 61 - shards.clients * shards.pieces
    assert (found == shards.deal(labels)).all()


def test_few_pieces_and_a_small_alpha_give_few_classes_to_a_client():
    labels = np.arange(1000) % 10
    assert all(len(np.unique(labels[own])) <= 2 for own in ByLabel(10, pieces=2).deal(labels))

    def most(alpha):
        dealt = Dirichlet(10, alpha).deal(labels)
        return np.mean([np.bincount(labels[own]).max() / len(own) for own in dealt])

    assert most(0.05) > 0.5 > 0.2 > most(100.0)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="multiple of 2 clients x 3 local_steps"):
        program(local_steps=3)
    with pytest.raises(UserError, match="ema must be null"):
        program(ema=0.9)
    with pytest.raises(UserError, match="has no frozen counterpart"):
        made = program(GroupNorm(groups=1), fixed_statistics_after=1)
        data, state, order, seed = begun(made)
        jax.eval_shape(made.step, state, data, order, seed)
    bad = {"clients": lambda: ByLabel(clients=0), "alpha": lambda: Dirichlet(alpha=0.0)}
    for field, make in bad.items():
        with pytest.raises(FieldError, match=field):
            make()
    few = Dataset("few", split(0), split(1).chosen(np.arange(3)), tuple("abcd"))
    with pytest.raises(UserError, match="3 examples cannot be dealt to 5"):
        dealt(few, ByLabel(5, 1))
