"""Streams bring what they say, and a network is judged on them batch by batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.adapters.classifier import Classifier
from normlab.data import FIFTEEN, Dataset, Split
from normlab.errors import FieldError
from normlab.models import MLP
from normlab.models.slots import NORM_STATE
from normlab.norms import BatchNorm
from normlab.policies import SAR, Stored, Tent, TestBatch, evaluate
from normlab.policies.evaluating import CLEAN, Setting, evaluations, parts_of, pictures, source_of
from normlab.policies.streams import order

LABELS = np.arange(120, dtype=np.int32) % 3


@pytest.fixture(autouse=True, scope="module")
def _promotion():
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def split(seed):
    """Make pictures with a bright third for each class, and noise."""
    images = np.random.default_rng(seed).normal(90, 30, (120, 3, 6, 1))
    images[np.arange(120), LABELS] += 60
    return Split(np.clip(images, 0, 255).round().astype(np.uint8), LABELS)


@pytest.fixture(scope="module")
def data():
    return Dataset("thirds", split(0), split(1), ("a", "b", "c"))


@pytest.fixture(scope="module")
def net(data):
    """Train a small network, with the statistics of its last batches."""
    model = MLP(BatchNorm(momentum=0.8), classes=3, widths=(8,), activation="relu")
    mean, std = data.channel_statistics()
    images = jnp.asarray((data.train.images - mean) / std, jnp.float32)
    variables = model.init(jax.random.key(0), images, train=False)
    params, state = variables["params"], variables[NORM_STATE]

    @jax.jit
    def step(params, state):
        def loss(p):
            given = {"params": p, NORM_STATE: state}
            logits, moved = model.apply(given, images, train=True, mutable=[NORM_STATE])
            wrong = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
            return wrong.mean(), moved[NORM_STATE]

        gradient, moved = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient), moved

    for _ in range(40):
        params, state = step(params, state)
    return model, {"params": params, NORM_STATE: state}


def test_orders():
    labels = np.array([2, 0, 1, 0, 2, 1])
    assert labels[order("sorted", labels, 0)].tolist() == [0, 0, 1, 1, 2, 2]
    for stream in ("iid", "changing"):
        found = order(stream, labels, 0)
        assert sorted(found) == list(range(6)) and (found == order("iid", labels, 0)).all()
    assert (order("iid", LABELS, 0) != order("iid", LABELS, 1)).any()
    assert parts_of("changing", None) == FIFTEEN and parts_of("iid", None) == (CLEAN,)


def test_stored_statistics_give_the_plain_accuracy_on_any_stream(net, data):
    model, variables = net
    mean, std = data.channel_statistics()
    logits = model.apply(variables, (data.test.images - mean) / std, train=False)
    plain = (np.asarray(logits).argmax(axis=1) == LABELS).mean()
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    assert plain > 0.9
    for stream, size in (("iid", 50), ("sorted", 50), ("as_stored", 120)):
        found = evaluate(model, variables, data, Stored(), stream=stream, batch_size=size)
        assert found.accuracy == pytest.approx(plain)
        assert found.loss == pytest.approx(float(losses.mean()), rel=1e-4)
        assert (found.labels[0] == LABELS[order(stream, LABELS, 0)]).all()


def test_a_sorted_stream_breaks_the_statistics_of_the_batch_and_tent_with_them(net, data):
    model, variables = net

    def on(policy, stream):
        return evaluate(model, variables, data, policy, stream=stream, batch_size=20)

    assert on(TestBatch(), "iid").accuracy > 0.85
    sorted_ = on(TestBatch(), "sorted")
    assert sorted_.accuracy < 0.7
    tent = on(Tent(0.1), "sorted")
    assert tent.accuracy < 0.7 and tent.along(6).shape == (6,)
    collapsed = on(Tent(1.0), "iid")
    assert collapsed.commonest > on(TestBatch(), "iid").commonest
    back = on(SAR(1.0, margin=1.0, share=1.0, reset_below=0.6), "iid")
    assert back.adapted.memory.resets > 0 and back.accuracy >= collapsed.accuracy


def test_a_changing_stream_goes_on_and_others_begin_anew(net, data):
    model, variables = net
    network = Classifier(model)
    params, state = network.split(variables)
    source = source_of(data, 60, 30, 0)
    corruptions = ("remade_contrast", "remade_brightness")
    settings = [Setting("tent", Tent(0.05), stream, 60) for stream in ("iid", "changing")]
    both = evaluations(network, params, state, data, settings, source, corruptions, severity=3)
    iid, changing = (both[one] for one in settings)
    assert changing.parts == corruptions and changing.logits.shape == (2, 120, 3)
    np.testing.assert_array_equal(iid.logits[0], changing.logits[0])
    assert (iid.logits[1] != changing.logits[1]).any()
    assert list(iid.accuracies) == list(corruptions)
    again = evaluations(network, params, state, data, settings[1:], source, corruptions, severity=3)
    np.testing.assert_array_equal(again[settings[1]].logits, changing.logits)
    assert not evaluations(network, params, state, data, settings, source, should_stop=lambda: True)


def test_a_picture_is_corrupted_alike_in_any_list(data):
    found = pictures(data, "remade_gaussian_noise", 5, 0)
    assert found.dtype == np.uint8 and (found != data.test.images).any()
    np.testing.assert_array_equal(found, pictures(data, "remade_gaussian_noise", 5, 0))
    assert pictures(data, CLEAN, 5, 0) is data.test.images


def test_batches_of_one_and_a_last_one_that_is_not_full(net, data):
    model, variables = net
    few = Dataset("few", data.train, data.test.chosen(np.arange(7)), data.classes)
    for size in (1, 3, 100):
        found = evaluate(model, variables, few, Tent(), batch_size=size)
        assert found.logits.shape == (1, 7, 3) and np.isfinite(found.logits).all()


@pytest.mark.parametrize(
    "given, said",
    [({"stream": "sort"}, "stream must be one of iid, sorted"), ({"batch_size": 0}, "batch_size"),
     ({"corruptions": ["frog"]}, "did you mean"),
     ({"corruptions": ["fog"], "severity": 6}, "severity"),
     ({"examples": 0}, "examples must be at least")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(net, data, given, said):
    with pytest.raises(FieldError, match=said):
        evaluate(*net, data, Stored(), **given)
