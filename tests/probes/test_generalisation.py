"""`generalisation` compares training images with test images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.errors import UserError
from normlab.models.slots import NORM_STATE
from normlab.norms import BatchNorm
from normlab.probes import Generalisation, generalisation

from .conftest import MODELS, moment, subject


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["plain", "dropout"])
def who(request):
    return subject(MODELS["mlp"](BatchNorm(), dropout=request.param))


@pytest.fixture(scope="module")
def when(who):
    """Make labels that are the network's own predictions, except for one in four."""
    start = moment(who)
    variables = {"params": start.params, NORM_STATE: start.norm_state}
    says = who.model.apply(variables, start.images, train=False).argmax(axis=-1)
    wrong = jnp.arange(len(says), dtype=says.dtype) % 4 == 0
    return start._replace(labels=jnp.where(wrong, (says + 1) % 3, says))


def expected(who, when):
    test = when.held_out
    seen = (np.asarray(test.images, np.float32) - np.asarray(test.mean)) / np.asarray(test.std)
    variables = {"params": when.params, NORM_STATE: when.norm_state}
    found = {}
    for name, images, labels in (
        ("train", when.images, when.labels),
        ("test", jnp.asarray(seen), test.labels),
    ):
        logits = np.asarray(who.model.apply(variables, images, train=False), np.float64)
        right = logits[np.arange(len(labels)), np.asarray(labels)]
        found[f"{name}_loss"] = (np.log(np.exp(logits).sum(axis=1)) - right).mean()
        found[f"{name}_accuracy"] = (logits.argmax(axis=1) == np.asarray(labels)).mean()
    gap = found["train_accuracy"] - found["test_accuracy"]
    return {**found, "accuracy_gap": gap, "loss_gap": found["test_loss"] - found["train_loss"]}


@pytest.mark.parametrize("at_once", [500, 7])
def test_it_is_the_mean_over_all_images_in_evaluation(who, when, at_once, monkeypatch):
    monkeypatch.setattr(generalisation, "AT_ONCE", at_once)
    found = Generalisation().measure(who, when)
    wanted = expected(who, when)
    assert found.keys() == wanted.keys() and found["train_accuracy"] == 0.75
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_without_test_images_it_says_where_there_are_some(who, when):
    with pytest.raises(UserError, match="into a config's 'probes'"):
        jax.eval_shape(lambda: Generalisation().measure(who, when._replace(held_out=None)))
