"""`under_corruption` equals accuracies by hand, with stored and with adapted statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.adapters.statistics import adapt
from normlab.data.corruptions import Corruption
from normlab.data.light import Darkness
from normlab.errors import FieldError, UserError
from normlab.models.slots import NORM_STATE
from normlab.norms import BatchNorm, GroupNorm
from normlab.probes.under_corruption import UnderCorruption

from .conftest import MODELS, moment, subject


@pytest.fixture(scope="module")
def seen():
    """Apply the probe to a network whose batch statistics are those of its images."""
    who = subject(MODELS["mlp"](BatchNorm(momentum=0.0)))
    when = moment(who)
    _, state = who.loss(when.params, when.norm_state, when.images, when.labels)
    when = when._replace(norm_state=state)
    probe = UnderCorruption(("darkness", "fog"), batches=(8, 24), prior=4.0)
    return who, when, probe, probe.measure(who, when)


def by_hand(who, when, images, size=None, prior=None):
    """Compute the accuracy by hand, batch after batch, in the fixed order."""
    order = np.asarray(jax.random.permutation(jax.random.key(0), len(when.held_out.labels)))
    labels = np.asarray(when.held_out.labels)[order]
    variables = {"params": when.params, NORM_STATE: when.norm_state}
    right = 0
    for start in range(0, len(labels), size or len(labels)):
        part = slice(start, start + (size or len(labels)))
        own = variables
        if size is not None:
            own = adapt(who.model, variables, images[order][part], prior=prior)
        logits = who.model.apply(own, images[order][part], train=False)
        right += int((np.asarray(logits).argmax(axis=1) == labels[part]).sum())
    return right / len(labels)


def test_clean_is_the_plain_accuracy_and_adapted_that_of_adapted_batches(seen):
    who, when, _, found = seen
    pixels = when.held_out.images.astype(jnp.float32)
    images = (pixels - 127.5) / 74.0
    assert float(found["clean"]) == pytest.approx(by_hand(who, when, images))
    for size in (8, 24):
        expected = by_hand(who, when, images, size, prior=4.0)
        assert float(found[f"clean_adapted_{size}"]) == pytest.approx(expected)


def test_a_severity_is_that_corruption_of_the_same_images(seen):
    who, when, _, found = seen
    order = jax.random.permutation(jax.random.key(0), 24)
    pixels = when.held_out.images[order].astype(jnp.float32)
    for severity in (1, 5):
        # The first corruption's severities have the seeds 0, 1, 2, ...
        dark = (Darkness(severity)(jax.random.key(severity - 1), pixels) - 127.5) / 74.0
        unordered = jnp.zeros_like(dark).at[order].set(dark)
        expected = by_hand(who, when, unordered)
        assert float(found["darkness"][severity - 1]) == pytest.approx(expected)


def test_means_and_gains_are_of_what_is_shown(seen):
    found = seen[3]
    assert found["fog"].shape == found["darkness_adapted_8"].shape == (5,)
    for ending in ("", "_adapted_8", "_adapted_24"):
        each = np.concatenate([found["darkness" + ending], found["fog" + ending]])
        mean = found["adapted" + ending.removeprefix("_adapted")] if ending else found["corrupted"]
        assert float(mean) == pytest.approx(each.mean())
    gain = float(found["adapted_24"]) - float(found["corrupted"])
    assert float(found["gain_24"]) == pytest.approx(gain)
    clean_gain = float(found["clean_adapted_8"]) - float(found["clean"])
    assert float(found["clean_gain_8"]) == pytest.approx(clean_gain)


def test_batch_statistics_undo_a_change_of_light_that_stored_ones_do_not(monkeypatch):
    class Dimmed(Corruption):
        """Scales the contrast around white by 1/100, which any batch norm can undo."""

        amounts = (0.5, 0.01)

        def corrupt(self, key, images, amount):
            return 255 + (images - 255) * amount

    monkeypatch.setattr("normlab.probes.under_corruption.corruption", lambda name: Dimmed(1))
    who = subject(MODELS["mlp"](BatchNorm(momentum=0.0)))
    when = moment(who)
    _, state = who.loss(when.params, when.norm_state, when.images, when.labels)
    # Labels are what the network itself says of the clean images, so clean is 1.
    when = when._replace(norm_state=state)
    images = (when.held_out.images.astype(jnp.float32) - 127.5) / 74.0
    variables = {"params": when.params, NORM_STATE: adapt_to(who, when, images)}
    says = who.model.apply(variables, images, train=False).argmax(axis=1)
    when = when._replace(held_out=when.held_out._replace(labels=says.astype(jnp.int32)))
    found = UnderCorruption(("darkness",), batches=(24,)).measure(who, when)
    assert float(found["clean_adapted_24"]) == 1
    assert float(found["darkness_adapted_24"][1]) > 0.9 > 0.7 > float(found["darkness"][1])


def adapt_to(who, when, images):
    variables = {"params": when.params, NORM_STATE: when.norm_state}
    return adapt(who.model, variables, images, prior=0)[NORM_STATE]


def test_a_network_without_batch_statistics_has_nothing_to_adapt():
    who = subject(MODELS["mlp"](GroupNorm(groups=2)))
    found = UnderCorruption(("glare",), batches=(8,)).measure(who, moment(who))
    assert float(found["gain_8"]) == 0
    np.testing.assert_array_equal(found["glare"], found["glare_adapted_8"])


def test_the_last_images_that_fill_no_batch_are_left_out(seen):
    who, when, _, _ = seen
    found = UnderCorruption(("fog",), batches=(7,)).measure(who, when)
    assert (np.asarray(found["fog_adapted_7"]) * 21 % 1 < 1e-5).all()


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"corruptions": ("frog",)}, "no augmentation is called 'frog'; did you mean 'fog'?"),
        ({"corruptions": ("flip",)}, "'flip' has no severities"),
        ({"corruptions": ()}, "one at least"),
        ({"corruptions": ("fog", "fog")}, "without repetitions"),
        ({"batches": (0,)}, "positive whole numbers"),
        ({"prior": -1.0}, "prior must be"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, said):
    with pytest.raises(FieldError) as raised:
        UnderCorruption(**settings)
    assert said in str(raised.value)


def test_it_says_what_is_missing(seen):
    who, when, _, _ = seen
    with pytest.raises(UserError, match="needs the test images"):
        UnderCorruption().measure(who, when._replace(held_out=None))
    with pytest.raises(UserError, match="only 24 test images, not 25"):
        UnderCorruption(batches=(8, 25)).measure(who, when)
