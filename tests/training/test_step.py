"""One step takes the right batch, computes the right update and reports the right loss."""

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.data.augment import Flip
from normlab.models.slots import NORM_STATE
from normlab.norms import Identity
from normlab.store.seeds import split_seed
from normlab.training.compiled import Compiled
from normlab.training.fit import Loop
from normlab.training.optimizer import clipped, decayed
from normlab.training.state import Clock
from normlab.training.streams import STREAMS, seed_array, stream_key

SEED = jnp.asarray(3, jnp.uint32)
IMAGE = (4, 4, 1)


@dataclass(eq=False)
class Recorder:
    """An augmentation that changes nothing and records its inputs outside of jit."""

    keys: list = field(default_factory=list)
    batches: list = field(default_factory=list)

    def __call__(self, key, images):
        self.keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        self.batches.append(np.asarray(images)[:, 0, 0, 0].astype(int).tolist())
        return images


def train(program, device_data, steps, seed=SEED):
    """Take some eager steps, every epoch in its own order; return state and losses."""
    state, losses = program.init(seed, IMAGE), []
    for step in range(steps):
        order = program.order(seed, step // 4, 70)
        state, loss = program.step(state, device_data, order, seed)
        losses.append(float(loss))
    return state, losses


def test_every_epoch_takes_whole_batches_of_a_fresh_permutation(program, device_data):
    seen = Recorder()
    train(program(augmentations=(seen,)), device_data, 12)
    epochs = [list(chain(*seen.batches[start : start + 4])) for start in (0, 4, 8)]
    for epoch, taken in enumerate(epochs):
        assert len(set(taken)) == 64  # no example twice, a remainder of 6 left out
        assert taken == program().order(SEED, epoch, 70)[:64].tolist()
    assert len({tuple(taken) for taken in epochs}) == 3
    assert len({frozenset(taken) for taken in epochs}) == 3  # another remainder every time


@pytest.mark.parametrize("epoch", [0, 1, 1000])
def test_an_order_is_a_permutation_of_all_examples(program, epoch):
    assert sorted(program().order(0, epoch, 70).tolist()) == list(range(70))


def test_the_compiled_order_is_the_same(program, compiled):
    made = compiled()
    for seed, epoch in [(0, 0), (5, 2), (2**32 - 1, 7)]:
        expected = program().order(jnp.asarray(seed, jnp.uint32), epoch, 70)
        np.testing.assert_array_equal(made.order(seed, epoch), expected)


def test_every_step_has_its_own_augmentation_key(program, device_data):
    one, other = Recorder(), Recorder()
    train(program(augmentations=(one,)), device_data, 6)
    train(program(augmentations=(other,)), device_data, 6)
    assert len(set(one.keys)) == 6
    assert one.keys == other.keys


def test_seeds_differ_in_weights_order_and_augmentation(program, device_data):
    seen, weights, orders = Recorder(), [], []
    made = program(augmentations=(seen,))
    for seed in (0, 1):
        train(made, device_data, 1, jnp.asarray(seed, jnp.uint32))
        weights.append(made.init(seed, IMAGE).params["Dense_0"]["kernel"])
        orders.append(made.order(seed, 0, 70).tolist())
    assert not np.allclose(*weights)
    assert orders[0] != orders[1]
    assert seen.keys[0] != seen.keys[1]


def test_streams_of_randomness_are_apart():
    keys = [jax.random.key_data(stream_key(0, s)).tolist() for s in STREAMS]
    assert len(set(map(tuple, keys))) == len(STREAMS)


def test_each_stream_of_a_split_seed_is_seeded_apart():
    split = split_seed(init=5, order=6, augment=7, dropout=8)
    for stream, number in zip(STREAMS, (5, 6, 7, 8, 8, 8), strict=True):
        for seed in (split, seed_array(split, True)):
            found, expected = (jax.random.key_data(stream_key(s, stream)) for s in (seed, number))
            np.testing.assert_array_equal(found, expected)


def test_a_seed_split_into_equal_numbers_is_bitwise_the_plain_seed(program, device_data):
    plain = program(augmentations=(Flip(),), epochs=1)
    split = replace(plain, recipe=replace(plain.recipe, seed=split_seed(3, 3, 3, 3)))
    ends = []
    for made, seed in ((plain, 3), (split, split.recipe.seed)):
        compiled = Compiled(made, device_data)
        ends.append(Loop(compiled, seed).run(compiled.init(seed), Clock()).state)
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_a_step_is_pure(program, device_data):
    made = program()
    state, order = made.init(SEED, IMAGE), made.order(SEED, 0, 70)
    before = jax.tree.map(np.array, state)
    first = made.step(state, device_data, order, SEED)
    second = made.step(state, device_data, order, SEED)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, state, before)
    assert not np.array_equal(
        first[0].params["Dense_0"]["kernel"], state.params["Dense_0"]["kernel"]
    )


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def batches(program, data, steps):
    """Compute images and labels of the first steps by numpy, without augmentation."""
    train_images = data.train.images.astype(np.float64)
    for step in range(steps):
        order = np.asarray(program.order(SEED, step // 4, 70))
        chosen = order[step % 4 * 16 : step % 4 * 16 + 16]
        images = (train_images[chosen] - train_images.mean()) / train_images.std()
        yield jnp.asarray(images, jnp.float32), data.train.labels[chosen]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_loss_is_cross_entropy_with_smoothed_labels(program, device_data, data, smoothing):
    made = program(label_smoothing=smoothing)
    state, (loss,) = train(made, device_data, 1)
    start = made.init(SEED, IMAGE)
    ((images, labels),) = batches(made, data, 1)
    variables = {"params": start.params, NORM_STATE: start.norm_state}
    logits = made.model.apply(variables, images, train=True)
    targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    expected = -(targets * log_softmax(logits)).sum(axis=1).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    correct = (np.asarray(logits).argmax(axis=1) == labels).sum()
    assert (float(state.meter.correct), float(state.meter.examples)) == (correct, 16)


SCHEDULE = optax.cosine_decay_schedule(0.5, 6)


def no_change(grads, params):
    return grads


def decay_kernels(grads, params):
    """Add 0.1 times each kernel by hand."""

    def add(path, grad, param):
        return grad + 0.1 * param if path[-1].key == "kernel" else grad

    return jax.tree_util.tree_map_with_path(add, grads, params)


def clip_at_tenth(grads, params):
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(grads)))
    assert norm > 0.1
    return jax.tree.map(lambda leaf: leaf * np.float32(0.1 / norm), grads)


@pytest.mark.parametrize(
    ("optimizer", "change", "plain"),
    [
        (optax.sgd(0.3), no_change, optax.sgd(0.3)),
        (
            optax.sgd(SCHEDULE, momentum=0.9, nesterov=True),
            no_change,
            optax.sgd(SCHEDULE, momentum=0.9, nesterov=True),
        ),
        (optax.adam(0.01), no_change, optax.adam(0.01)),
        (
            decayed(optax.sgd(0.1, momentum=0.9), 0.1, ("weight",)),
            decay_kernels,
            optax.sgd(0.1, momentum=0.9),
        ),
        (clipped(optax.sgd(0.3), 0.1), clip_at_tenth, optax.sgd(0.3)),
    ],
    ids=["sgd", "momentum and schedule", "adam", "weight decay", "clip"],
)
def test_steps_equal_a_plain_loop(program, device_data, data, optimizer, change, plain):
    made = program(optimizer=optimizer)
    steps = 5  # one more than an epoch
    state, losses = train(made, device_data, steps)

    start = made.init(SEED, IMAGE)
    params, norm_state, opt_state = start.params, start.norm_state, plain.init(start.params)

    def loss_of(params, norm_state, images, labels):
        logits, moved = made.model.apply(
            {"params": params, NORM_STATE: norm_state}, images, train=True, mutable=[NORM_STATE]
        )
        picked = jax.nn.log_softmax(logits)[np.arange(16), labels]
        return -picked.mean(), moved[NORM_STATE]

    expected = []
    for images, labels in batches(made, data, steps):
        (loss, norm_state), grads = jax.value_and_grad(loss_of, has_aux=True)(
            params, norm_state, images, labels
        )
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = plain.update(change(grads, params), opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
        expected.append(float(loss))

    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, state.params, params)
    jax.tree.map(close, state.norm_state, norm_state)
    assert int(state.step) == steps
    np.testing.assert_allclose(float(state.meter.loss), 16 * sum(expected), rtol=1e-4)


def test_init_does_not_depend_on_the_data_or_the_recipe(program):
    one = program().init(SEED, IMAGE)
    other = program(epochs=9, batch_size=4, accumulate=2).init(SEED, IMAGE)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_compiled_step_grows_no_faster_than_the_network(program, device_data, clip):
    """One number of all layers (whether all are finite) is not recomputed for each."""

    def instructions(layers):
        made = program(norm=Identity(), optimizer=clipped(optax.sgd(0.1), clip))
        made = replace(made, model=made.model.clone(widths=(4,) * layers))
        state = jax.eval_shape(partial(made.init, image_shape=IMAGE), SEED)
        order = jax.ShapeDtypeStruct((70,), jnp.int32)
        step = jax.jit(made.step).lower(state, device_data, order, SEED)
        return step.compile().as_text().count(" = ")

    four, eight, sixteen = (instructions(layers) for layers in (4, 8, 16))
    assert sixteen - eight <= 2.1 * (eight - four)
