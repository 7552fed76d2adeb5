"""Private training clips every example, adds the noise that it says, and accounts for both."""

import logging
import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from scipy import special, stats

from normlab.errors import FieldError, UserError
from normlab.models.plain import MLP
from normlab.norms import FrozenBatchNorm, GroupNorm, LayerNorm, OnlineNorm, TaperNorm
from normlab.training import gradients, private
from normlab.training.compiled import Compiled
from normlab.training.fit import fit
from normlab.training.host_data import HostData
from normlab.training.privacy import Privacy, sampled, serves
from normlab.training.program import Program
from normlab.training.recipe import Recipe

IMAGE = (4, 4, 1)
SEED = jnp.zeros((), jnp.uint32)
SILENT = Privacy(clip=0.5, noise_multiplier=1e-20, delta=1e-5)
LOUD = Privacy(clip=0.5, noise_multiplier=2.0, delta=1e-5)


@cache
def network():
    """Make a network, six examples of different sizes, and the plain gradient of each."""
    program = Program(MLP(norm=LayerNorm(), classes=3, widths=(4,)), optax.sgd(0.1), Recipe())
    params = program.init(0, IMAGE).params
    sizes = jnp.arange(1.0, 7.0).reshape(6, 1, 1, 1)
    images = sizes * jax.random.normal(jax.random.key(1), (6, *IMAGE))
    labels, keys = jnp.arange(6, dtype=jnp.int32) % 3, jax.random.split(jax.random.key(2), 6)

    def of_one(params, image, label, key):
        given = params, {}, image[None], label[None], key
        return gradients.loss(program.network, program.recipe, *given)

    gradient = jax.jit(jax.grad(of_one, has_aux=True))
    own = [
        [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient(params, *one)[0])]
        for one in zip(images, labels, keys, strict=True)
    ]
    return of_one, params, (images, labels, keys), own


@cache
def compiled_for(settings, accumulate):
    """Compile the private gradient of these examples, of which those count that are told."""
    recipe = Recipe(batch_size=4, private=settings, accumulate=accumulate)
    of_one, params, (images, labels, keys), _ = network()

    @jax.jit
    def found(counts, noise):
        examples = private.Examples(images, labels, counts, keys)
        return private.of_batch(of_one, recipe, params, examples, jax.random.key(noise))

    return found


def of_examples(counts, settings=SILENT, accumulate=1, noise=0):
    return compiled_for(settings, accumulate)(jnp.asarray(counts), noise), network()[-1]


def by_hand(own, counts, clip, batch):
    """Clip the gradients of examples in float64, and add those that count."""
    total = [np.zeros_like(leaf) for leaf in own[0]]
    for one, is_there in zip(own, counts, strict=True):
        length = math.sqrt(sum((leaf**2).sum() for leaf in one))
        factor = min(1, clip / length) if is_there else 0
        total = [a + factor * b for a, b in zip(total, one, strict=True)]
    return [leaf / batch for leaf in total]


COUNTS = [True, True, False, True, True, False]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("clip", [0.5, 1.2])
def test_every_example_is_clipped_as_by_hand(accumulate, clip):
    settings = Privacy(clip=clip, noise_multiplier=1e-20, delta=1e-5)
    found, own = of_examples(COUNTS, settings, accumulate)
    lengths = [math.sqrt(sum((leaf**2).sum() for leaf in one)) for one in own]
    assert clip == 0.5 or min(lengths) < clip < max(lengths), "some are clipped and some are not"
    expected = by_hand(own, COUNTS, clip, 4)
    for one, other in zip(jax.tree.leaves(found.gradient), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-7)
    assert found.examples == 4


def test_without_noise_it_is_optax_s_aggregate_of_the_same_gradients():
    found, own = of_examples([True] * 6)
    stacked = [
        jnp.stack([jnp.float32(leaf) for leaf in leaves]) for leaves in zip(*own, strict=True)
    ]
    theirs = optax.contrib.differentially_private_aggregate(0.5, 0.0, key=0)
    expected, _ = theirs.update(stacked, theirs.init(None))
    for one, other in zip(jax.tree.leaves(found.gradient), expected, strict=True):
        np.testing.assert_allclose(one * 4 / 6, other, rtol=1e-5, atol=1e-7)  # theirs divides by 6


@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_example_more_moves_the_sum_by_no_more_than_the_clip(accumulate):
    both = [of_examples(counts, SILENT, accumulate)[0] for counts in ([True] * 6, COUNTS)]
    one, other = (jax.tree.leaves(found.gradient) for found in both)
    moved = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(one, other, strict=True)))
    assert 0 < moved <= 2 * 0.5 / 4 * (1 + 1e-5)  # two examples more, a batch of four


def test_the_noise_has_the_deviation_that_is_accounted_for_and_depends_on_its_key():
    nothing = [False] * 6
    drawn = [of_examples(nothing, LOUD, parts, noise=k)[0] for parts in (1, 2) for k in range(6)]
    numbers = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(one.gradient)])
               for one in drawn]  # fmt: skip
    expected = 2.0 * 0.5 / 4  # once a step, whatever the number of microbatches
    for found in (numbers[:6], numbers[6:]):
        every = np.concatenate(found)
        low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], len(every))
        assert low < (every**2).sum() / expected**2 < high
    assert not np.allclose(numbers[0], numbers[1])
    assert float(drawn[0].loss) == 0 and float(drawn[0].examples) == 0


def test_every_step_has_every_example_with_the_same_chance_apart_from_the_others():
    drawn = np.asarray(sampled(jax.random.key(0), 40, 8, 2000, 24))
    counts = (drawn >= 0).sum(axis=1)
    assert abs(counts.mean() - 8) < 0.25
    assert counts.var() == pytest.approx(40 * 0.2 * 0.8, rel=0.15)  # a fixed batch has 0
    each = np.bincount(drawn[drawn >= 0], minlength=40)
    assert stats.chi2.sf(((each - 400) ** 2).sum() / (2000 * 0.2 * 0.8), 40) > 1e-4
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in drawn)


@pytest.mark.parametrize(
    ("examples", "batch", "steps"), [(50_000, 128, 4000), (60, 50, 3), (9, 9, 1)]
)
def test_the_room_is_just_enough_for_a_chance_far_below_delta(examples, batch, steps):
    room = LOUD.room(examples, batch, steps)
    more = [stats.binom.sf(count, examples, batch / examples) for count in (room, room - 1)]
    assert steps * more[0] <= 1e-3 * 1e-5
    assert room == batch or steps * more[1] > 1e-3 * 1e-5
    assert LOUD.room(examples, batch, steps, multiple=4) % 4 == 0


def private_program(program, norm=None, **more):
    return program(norm or LayerNorm(), epochs=3, private=LOUD, **more)


def stepped(program, data, seed=0, steps=2):
    state = program.init(seed, IMAGE)
    order = program.order(seed, 0, 70)
    step = jax.jit(program.step)
    for _ in range(steps):
        state, _ = step(state, data, order, jnp.asarray(seed, jnp.uint32))
    return state


def test_noise_is_of_the_seed_and_the_step_and_the_meter_counts_who_was_there(program, device_data):
    made = private_program(program)
    order = np.asarray(made.order(0, 0, 70))
    assert order.shape == (4, made.recipe.room(70)) and (order < 0).any()
    one, again, other = (stepped(made, device_data, seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one.params, again.params)
    assert not np.allclose(one.params["Dense_0"]["kernel"], other.params["Dense_0"]["kernel"])
    assert float(one.meter.examples) == (order[:2] >= 0).sum()


def test_an_augmentation_sees_one_example_at_a_time(program, device_data):
    """One that mixes examples, such as mixup, then joins nothing."""
    seen = []

    def mix(key, images):
        seen.append(images.shape)
        return images + images.mean(axis=0, keepdims=True)

    stepped(private_program(program, augmentations=(mix,)), device_data, steps=1)
    assert set(seen) == {(1, *IMAGE)}


def test_data_on_the_host_give_the_same_steps(program, data, device_data):
    made = private_program(program, accumulate=2)
    expected = stepped(made, device_data).params
    compiled = Compiled(made, HostData(data))
    state, order = compiled.init(0), made.order(0, 0, 70)
    for at in range(2):
        state, _ = compiled.step(state, order, 0, at)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, state.params, expected)


def test_what_joins_examples_or_keeps_something_of_them_does_not_serve(program, device_data):
    assert all(map(serves, (LayerNorm(), GroupNorm(groups=48), FrozenBatchNorm())))
    assert not any(map(serves, (OnlineNorm(), TaperNorm())))
    with pytest.raises(UserError, match=r"OnlineNorm reveals: .* use one of .*group_norm"):
        private_program(program, OnlineNorm()).init(0, IMAGE)
    with pytest.raises(UserError, match="TaperNorm reveals: it keeps statistics of the examples"):
        private_program(program, TaperNorm()).init(0, IMAGE)


@pytest.mark.parametrize("given", [{"clip": 0.0}, {"noise_multiplier": -1.0}, {"delta": 1.0}])
def test_settings_that_cannot_work_are_named(given):
    fields = {"clip": 1.0, "noise_multiplier": 1.0, "delta": 1e-5, **given}
    (name,) = given
    with pytest.raises(FieldError, match=f"private must be given a {name} above 0"):
        Recipe(private=Privacy(**fields))


# Epsilon. The divergence is written anew from Mironov et al. 2019, section 3.3, for whole orders.


def divergence(share, noise, order):
    k = np.arange(order + 1)
    logs = special.gammaln(order + 1) - special.gammaln(k + 1) - special.gammaln(order - k + 1)
    logs = logs + k * math.log(share) + (order - k) * math.log1p(-share)
    return special.logsumexp(logs + (k**2 - k) / (2 * noise**2)) / (order - 1)


def bound(share, noise, steps, delta, conversion):
    return min(steps * divergence(share, noise, a) + conversion(a, delta) for a in range(2, 257))


def first_conversion(a, delta):
    """Convert as Mironov 2017, proposition 3, which earlier papers used."""
    return math.log(1 / delta) / (a - 1)


def tighter_conversion(a, delta):
    """Convert as Canonne et al. 2020 (arXiv:2004.00010, proposition 12)."""
    return math.log1p(-1 / a) - math.log(delta * a) / (a - 1)


PUBLISHED = [
    # Abadi et al. 2016, section 5.1: q = 0.01, sigma = 4, 10,000 steps, delta = 1e-5.
    (60_000, 600, 4.0, 10_000, 1.26),
    # The tutorial of TensorFlow Privacy: 60 epochs of batches of 256 and sigma = 1.12.
    (60_000, 256, 1.12, 14_063, 2.92),
]


@pytest.mark.parametrize(("examples", "batch", "noise", "steps", "published"), PUBLISHED)
def test_epsilon_is_that_of_an_account_of_our_own_which_gives_published_values(
    examples, batch, noise, steps, published
):
    share = batch / examples
    found = bound(share, noise, steps, 1e-5, first_conversion)
    assert found == pytest.approx(published, abs=0.005)
    tighter = bound(share, noise, steps, 1e-5, tighter_conversion)
    assert tighter < published
    pytest.importorskip("dp_accounting")
    given = Privacy(clip=1.0, noise_multiplier=noise, delta=1e-5)
    found = given.epsilon(examples, batch, steps)
    assert found <= tighter * (1 + 1e-9)  # it tries orders between whole ones too
    assert found == pytest.approx(tighter, rel=2e-3)


def test_no_step_reveals_nothing_and_orders_that_are_left_out_are_not_warned_of(caplog):
    pytest.importorskip("dp_accounting")
    with caplog.at_level(logging.WARNING):
        assert LOUD.epsilon(100, 10, 0) == 0
        assert Privacy(1.0, 1.1, 1e-5).epsilon(400, 40, 30) == pytest.approx(4.025, abs=0.01)
    assert not caplog.records


def test_a_fit_records_epsilon_as_it_grows_or_says_what_to_install(data, monkeypatch):
    model, tool = MLP(norm=LayerNorm(), classes=3, widths=(4,)), optax.sgd(0.1)
    recipe = Recipe(epochs=2, batch_size=16, private=LOUD)
    with monkeypatch.context() as patch:
        patch.setattr("normlab.training.privacy.LIBRARY", "no_such_package")
        with pytest.raises(UserError, match=r"pip install 'normlab\[private\]'"):
            fit(model, data, tool, recipe)
    pytest.importorskip("dp_accounting")
    rows = fit(model, data, tool, recipe).history
    assert [row["epsilon"] for row in rows] == [LOUD.epsilon(70, 16, step) for step in (4, 8)]
    assert rows[0]["epsilon"] < rows[1]["epsilon"]
