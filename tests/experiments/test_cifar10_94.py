"""The airbench94 recipe piece by piece, as torch trains by it, and the program in small."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed import airbench, cifar10_94, harness
from experiments.speed.airbench import Carry, Recipe
from normlab.models.slots import NORM_STATE
from normlab.models.speednet import WHITENING, Speednet
from normlab.norms import BatchNorm, GroupNorm, Identity, RMSNorm
from normlab.training.state import DeviceData, DeviceSplit
from tests.peers import goldens, speednet

UNIT = 1024 * (1 + 1 / (1 - 0.85))


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Compiles in half the time; what these tests claim does not hang on XLA's optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def small_data(size=10, classes=4, seed=0, examples=16):
    """Noise on the device, standardised by nothing."""
    draw = np.random.default_rng(seed)

    def split(n):
        images = draw.integers(0, 256, (n, size, size, 3), np.uint8)
        return DeviceSplit(jnp.asarray(images), jnp.asarray(np.arange(n, dtype=np.int32) % classes))

    spread = jnp.full(3, 64.0)
    return DeviceData(split(examples), split(10), None, 2 * spread, spread)


def test_the_triangle_rises_to_its_peak_at_23_percent_and_falls():
    found = [float(airbench.triangle(step, 100)) for step in (0, 11.5, 23, 61.5, 100)]
    np.testing.assert_allclose(found, [0.2, 0.6, 1, 0.535, 0.07], rtol=1e-6)
    np.testing.assert_allclose(airbench.triangle(0, 2), 0.2, rtol=1e-6)  # no room for the rise


def test_the_lookaheads_decay_grows_with_the_cube_of_time():
    found = [float(airbench.lookahead_decay(done, 100)) for done in (0, 50, 100)]
    np.testing.assert_allclose(found, [0, 0.7737809375 / 8, 0.7737809375], rtol=1e-6)


def test_losses_are_smoothed_and_added_up():
    """Targets 0.9 and 0.1: log(1 + e) - 0.9 where the first is right, - 0.1 where it is wrong."""
    logits, both = jnp.array([[1.0, 0.0], [1.0, 0.0]]), np.log(1 + np.e)
    found = airbench.smoothed_loss(logits, jnp.array([0, 1]))
    np.testing.assert_allclose(found, 2 * both - 1, rtol=1e-6)
    even = airbench.smoothed_loss(jnp.zeros((3, 10)), jnp.array([1, 2, 9]))
    np.testing.assert_allclose(even, 3 * np.log(10), rtol=1e-6)


def test_the_first_step_has_the_published_rates():
    """Nesterov's first step is 1.85 gradients; the triangle begins at 0.2; decay is apart."""
    params = {
        WHITENING: {"kernel": jnp.array(2.0), "bias": jnp.array(2.0)},
        "Conv_1": {"kernel": jnp.array(2.0), "bias": jnp.array(2.0)},
        "NormAct_0": {"norm": {"bias": jnp.array(2.0), "scale": jnp.array(2.0)}},
    }
    sgd = airbench.optimizer(steps=100, batch=512)
    updates, _ = sgd.update(
        jax.tree.map(lambda p: jnp.array(3.0), params), sgd.init(params), params
    )
    rate, decay = 11.5 / UNIT, 0.0153 * 512 / UNIT
    usual = -0.2 * 1.85 * (3 * rate + 2 * decay)
    of_bias = -0.2 * 1.85 * (3 * 64 * rate + 2 * decay)
    expected = {
        WHITENING: {"kernel": 0.0, "bias": usual},
        "Conv_1": {"kernel": usual, "bias": of_bias},
        "NormAct_0": {"norm": {"bias": of_bias, "scale": usual}},
    }
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)


def test_each_image_shows_its_two_mirror_images_in_turn_and_moves_two_pixels_at_most():
    """Every image is a ramp: its slope tells its side, its middle how far it moved."""
    n, size = 200, 16
    ramp = np.broadcast_to(8 * np.arange(size, dtype=np.uint8)[None, :, None], (size, size, 3))
    images = jnp.asarray(np.broadcast_to(ramp, (n, size, size, 3)))
    split = DeviceSplit(images, jnp.arange(n, dtype=jnp.int32))
    data = DeviceData(split, split, None, jnp.zeros(3), jnp.ones(3))
    sides, orders, moves = [], [], []
    for epoch in range(4):
        shown, labels = map(np.asarray, airbench.epoch_of(data, jnp.uint32(0), epoch))
        assert sorted(labels) == list(range(n)) and shown.dtype == np.uint8
        row = shown[np.argsort(labels), 8, :, 0].astype(int)
        falls = row[:, 8] < row[:, 7]
        sides.append(falls)
        orders.append(labels.tolist())
        moves.append(np.where(falls, 7 - row[:, 8] // 8, row[:, 8] // 8 - 8))
    assert 0.3 < sides[0].mean() < 0.7
    np.testing.assert_array_equal(sides[1], ~sides[0])
    np.testing.assert_array_equal(sides[2], sides[0])
    np.testing.assert_array_equal(sides[3], sides[1])
    assert set(np.concatenate(moves)) == {-2, -1, 0, 1, 2}
    assert (moves[0] != moves[2]).any() and orders[0] != orders[1]


def test_six_views_by_hand():
    """A network that reads the pixel (1, 1): of the image, of both shifts, and of their mirrors."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 6, 1)), jnp.float32)
    found = airbench.six_views(lambda view: view[:, 1, 1], x)
    still = 0.5 * (x[:, 1, 1] + x[:, 1, 4])
    moved = 0.5 * (x[:, 0, 0] + x[:, 0, 3]) + 0.5 * (x[:, 2, 2] + x[:, 2, 5])
    np.testing.assert_allclose(found, 0.5 * still + 0.25 * moved, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "batch_norm",
            BatchNorm(momentum=0.6, eps=1e-12, use_scale=False, unbiased_running_variance=True),
        ),
        ("group_norm", GroupNorm(use_scale=False)),
        ("rms_norm", RMSNorm(use_scale=False)),
        ("identity", Identity()),
    ],
)
def test_a_normaliser_has_no_scale(name, expected):
    assert airbench.normaliser(name) == expected


def test_the_whole_recipe_has_the_published_number_of_steps():
    recipe = Recipe(Speednet(Identity(), 10), batch=1024, per_epoch=48, epochs=9.9)
    plan = recipe.plan()
    assert recipe.steps == 476 and len(plan) == 10
    assert [steps for steps, _ in plan] == [48] * 9 + [44]
    assert [learns for _, learns in plan] == [True] * 3 + [False] * 7


def test_eleven_steps_end_where_torchs_do():
    """SGD of two groups, triangle, smoothing, lookahead, held bias: all of it at once."""
    kept = goldens.load(speednet.NAME)

    def at(when):
        found = {k.removeprefix(when): jnp.asarray(v) for k, v in kept.items() if when in k}
        return speednet.as_variables(found)

    model = Speednet(airbench.normaliser("batch_norm"), speednet.CLASSES, widths=speednet.WIDTHS)
    recipe = Recipe(model, speednet.BATCH, speednet.PER_EPOCH, speednet.STEPS / speednet.PER_EPOCH)
    assert recipe.steps == speednet.STEPS
    images, labels = (jnp.asarray(a) for a in speednet.data())
    plain = DeviceData(DeviceSplit(images, labels), DeviceSplit(images, labels), None,
                       jnp.zeros(3), jnp.ones(3))  # fmt: skip
    params, state = at("before/")
    moments = airbench.optimizer(recipe.steps, recipe.batch).init(params)
    carry = Carry(jnp.zeros((), jnp.int32), params, state, moments, (params, state))
    step = jax.jit(recipe.step, static_argnames="bias_learns")
    for number in range(recipe.steps):
        carry = step(carry, plain, images, labels, bias_learns=number < speednet.LEARNING)
    jax.tree.map(
        lambda found, true: np.testing.assert_allclose(found, true, rtol=2e-3, atol=2e-4),
        carry.slow,
        at("after/"),
    )


@pytest.fixture(scope="module")
def recipe():
    model = Speednet(airbench.normaliser("batch_norm"), 4, widths=(3,))
    return Recipe(model, batch=4, per_epoch=4, epochs=3.5)


@pytest.fixture(scope="module")
def compiled(recipe):
    """One step at a time, and an epoch as one program; the ten test images in batches of four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(airbench, "TEST_BATCH", 4)
        patch.setattr(cifar10_94, "TEST_BATCH", 4)
        yield [cifar10_94.Compiled(recipe, small_data(), scanned) for scanned in (False, True)]


def test_an_epoch_as_one_program_is_its_steps_one_by_one(compiled):
    seed, ends = jnp.uint32(3), []
    for kind in compiled:
        carry = kind.start(kind.data, seed)
        for epoch in range(2):
            carry = kind.epoch(carry, seed, epoch)
        ends.append(carry)
    assert int(ends[0].step) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *ends)


def test_the_whitening_stands_still_and_its_bias_after_three_epochs(compiled):
    kind, seed = compiled[0], jnp.uint32(0)
    carry = kind.start(kind.data, seed)
    kernel, biases = np.array(carry.params[WHITENING]["kernel"]), []
    for epoch in range(4):
        carry = kind.epoch(carry, seed, epoch)
        biases.append(np.array(carry.params[WHITENING]["bias"]))
        for params in (carry.params, carry.slow[0]):
            np.testing.assert_array_equal(params[WHITENING]["kernel"], kernel)
    assert int(carry.step) == kind.recipe.steps == 14
    assert np.abs(biases[0]).max() > 0 and not np.array_equal(biases[1], biases[2])
    np.testing.assert_array_equal(biases[3], biases[2])


def test_accuracy_counts_every_test_image_once(compiled):
    """Against the logits of all at once, where the program's last batch is wrapped around."""
    kind = compiled[0]
    recipe, data = kind.recipe, kind.data
    carry = kind.start(data, jnp.uint32(0))
    params, state = carry.slow
    found = [kind.accuracy(carry, views) for views in (False, True)]

    @jax.jit
    def logits(images):
        return recipe.model.apply({"params": params, NORM_STATE: state}, images, train=False)

    images = data.standardised(data.test.images)
    expected = [logits(images), airbench.six_views(logits, images)]
    right = [float((one.argmax(axis=-1) == data.test.labels).mean()) for one in expected]
    np.testing.assert_allclose(found, right, rtol=1e-6)


def test_the_program_prints_a_row_an_arm_and_writes_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    sizes = {"examples": 40, "test-examples": 20, "size": 16, "width": 2, "epochs": 1.5}
    others = {"batch": 20, "seeds": 2, "dtype": "bfloat16", "norm": "layer_norm"}
    asked = {"data": "shapes", "first": "whitened", **sizes, **others}
    cifar10_94.main([f"--{name}={value}" for name, value in asked.items()])
    printed = capsys.readouterr().out
    assert "| whitened | 2 |" in printed
    record = json.loads((tmp_path / "cifar10_94_cpu.json").read_text())["results"]
    assert record["norm"].startswith("LayerNorm(") and record["sizes"]["width"] == 2
    runs = record["runs"]["whitened"]
    assert [run["seed"] for run in runs] == [0, 1]
    for run in runs:
        assert len(run["curve"]) == 2 and 0 <= run["accuracy"] <= 1 and run["seconds"] > 0
    assert record["rows"][0]["accuracy"] == np.mean([run["accuracy"] for run in runs])
    assert (tmp_path / "cifar10_94_cpu.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("--norm=batchnorm", "did you mean 'batch_norm'"),
        ("--batch=50", "batch_size=50 is larger than the 40 training examples"),
        ("--size=4", "size must be in 8..64"),
        ("--dtype=float64", "invalid choice: 'float64'"),
    ],
)
def test_a_persons_mistake_is_told_without_a_traceback(asked, message, capsys):
    with pytest.raises(SystemExit):
        cifar10_94.main(
            ["--data=shapes", "--examples=40", "--test-examples=20", "--batch=20", asked]
        )
    assert message in capsys.readouterr().err
