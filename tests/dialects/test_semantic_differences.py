"""Twenty differences between libraries, each with its effect measured (docs/conventions.md).

Measured with normlab's own dialects, held to closed forms, and to the library where it is
installed. Each test records its figures as properties (`pytest --junitxml=FILE`).
"""

import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from normlab.dialects.library import dialect
from normlab.norms import BatchNorm, BatchRenorm, GroupNorm, LayerNorm, LayerNormImage
from normlab.ops.moments import Moments, ShapeError, pool
from normlab.weights.scaled_weight_standardisation import scaled_weight_standardisation
from normlab.weights.weight_norm import WeightNorm
from normlab.weights.weight_standardisation import weight_standardisation
from tests.norms.conftest import sample


def train(norm, x, state=None):
    params, fresh = norm.init(x.shape[-1])
    x = jnp.asarray(x, jnp.float32)
    return norm.apply(params, fresh if state is None else state, x, train=True)


def evaluate(norm, x, state):
    return norm.apply(norm.init(x.shape[-1])[0], state, jnp.asarray(x), train=False)[0]


def installed(library):
    """The library, for what is shown beside ours where it is there, or None."""
    try:
        return importlib.import_module(library)
    except ImportError:
        return None


def s1(record):
    """One step gives d + (1 - d) v from zero and one, or v if debiased; "0.9" is two horizons."""
    x = sample((128, 1), mean=2.8, std=1.8)
    m, v, n = x.mean(), x.var(), 128
    after = {
        "flax": 0.9 + 0.1 * v,
        "keras": 0.9 + 0.1 * v,
        "torch": 0.1 + 0.9 * v * n / (n - 1),  # whose 0.9 is the weight of the new
        "haiku": v,
    }
    for library, wanted in after.items():
        _, state = train(dialect(library).batch_norm(momentum=0.9), x)
        np.testing.assert_allclose(state["variance"], [wanted], rtol=1e-5)
        record(library, (float(state["mean"][0]), float(state["variance"][0])))
    _, state = train(dialect("flax").batch_norm(momentum=0.9), x)
    np.testing.assert_allclose(state["mean"], [0.1 * m], rtol=1e-5)
    # equinox as released: the variance begins at one and is debiased as if at zero.
    if eqx := installed("equinox"):
        layer, held = eqx.nn.make_with_state(eqx.nn.BatchNorm)(1, "n", momentum=0.9, mode="batch")
        with jax.numpy_dtype_promotion("standard"):
            _, held = jax.vmap(layer, in_axes=(0, None), out_axes=(0, None), axis_name="n")(x, held)
        hidden = held.get(layer.batch_state_index)[1] / (1 - 0.9)
        np.testing.assert_allclose(hidden, [v + 0.9 / (1 - 0.9)], rtol=1e-4)
        record("equinox 0.13.8 evaluates by a variance of", float(hidden[0]))


def s2(record):
    """Training divides by the root of the biased variance, whose mean of 1/s unbiased does not
    bring nearer: E[1/s] of n normal values against one over the root of the running variance."""
    draws = np.random.default_rng(0)
    for n, wanted in {4: 1.60, 8: 1.20, 32: 1.04}.items():
        values = draws.standard_normal((200_000, n))
        training = (1 / np.sqrt(values.var(axis=1) + 1e-5)).mean()
        biased, unbiased = (1 / np.sqrt(values.var(axis=1, ddof=d).mean()) for d in (0, 1))
        record(f"n = {n}", (float(training), float(biased), float(unbiased)))
        assert training == pytest.approx(wanted, abs=0.02)
        assert unbiased < biased < training, "unbiased is further from training"
    x = sample((4, 1))
    states = [train(dialect(name).batch_norm(momentum=0.5), x)[1] for name in ("torch", "flax")]
    unbiased, biased = (float(state["variance"][0]) - 0.5 for state in states)
    assert unbiased / biased == pytest.approx(4 / 3, rel=1e-5)


def s3(record):
    """A deviation s comes out as s / sqrt(s^2 + eps)."""
    x = sample((4096, 1))
    x = 0.03 * (x - x.mean()) / x.std()
    for library in ("keras", "flax"):
        y, _ = train(dialect(library).batch_norm(), x)
        eps = dialect(library).batch_norm().eps
        record(f"eps {eps}", float(y.std()))
        assert float(y.std()) == pytest.approx(0.03 / np.sqrt(0.03**2 + eps), rel=1e-4)
    assert float(train(dialect("keras").batch_norm(), x)[0].std()) == pytest.approx(0.688, abs=1e-3)


def s4(record):
    """Input of size 1e-4, with each library's default."""
    x = np.full((1, 8), 1e-4, np.float32)
    for library, wanted in {"torch": 0.278, "flax": 0.0995, "keras": 0.0995,
                            "haiku": 0.0316, "equinox": 0.0316}.items():  # fmt: skip
        y, _ = train(dialect(library).rms_norm(), x)
        record(library, float(y[0, 0]))
        assert float(y[0, 0]) == pytest.approx(wanted, rel=5e-3)


def s5(record):
    """Parameters of a layer normalisation over (8, 8, 16): a scale and bias a channel, or each."""
    x = jnp.asarray(sample((2, 8, 8, 16)))
    flax = nn.LayerNorm(reduction_axes=(1, 2, 3), feature_axes=-1).init(jax.random.key(0), x)
    ours = LayerNormImage().init(16)[0]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (flax, ours)]
    assert counts == [32, 32]
    record("a channel, an element", (32, 2 * 8 * 8 * 16))
    if torch := installed("torch"):
        layer = torch.nn.LayerNorm((16, 8, 8))
        assert sum(p.numel() for p in layer.parameters()) == 2 * 8 * 8 * 16
        # Its weights are (C, H, W): on channels-last data they must be moved, not reshaped.
        weight = np.asarray(sample((16, 8, 8), seed=1))
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight))
        wanted = layer(torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())).detach().numpy()
        z, _ = train(LayerNormImage(), x)
        found = np.asarray(z) * np.moveaxis(weight, 0, -1)
        np.testing.assert_allclose(found, np.moveaxis(wanted, 1, -1), rtol=1e-4, atol=1e-5)


def s6(record):
    """The two senses of layer normalisation on the same image."""
    x = sample((4, 8, 8, 16)) * np.linspace(0.2, 2, 8).reshape(8, 1, 1)  # brighter to one side
    pixel, image = (np.asarray(train(norm, x)[0]) for norm in (LayerNorm(), LayerNormImage()))
    by_row = [float(y[:, 7].std() / y[:, 0].std()) for y in (pixel, image)]
    record("contrast of the last row over the first: pixel, image", by_row)
    assert by_row[0] == pytest.approx(1, abs=0.05) and by_row[1] > 8
    group = train(GroupNorm(groups=1), x)[0]
    np.testing.assert_allclose(image, group, rtol=1e-4, atol=1e-5)


def s7(record):
    """Channels-first data where C = H: no error, and another result."""
    x = sample((8, 8, 4, 8)) * np.arange(1, 9)
    right = np.asarray(train(GroupNorm(groups=4), x)[0])
    wrong = np.moveaxis(np.asarray(train(GroupNorm(groups=4), np.moveaxis(x, -1, 1))[0]), 1, -1)
    record("largest difference", float(np.abs(right - wrong).max()))
    assert np.abs(right - wrong).max() > 1


def s8(record):
    """32 groups of 48 channels: an error here, which says what would do."""
    for library in ("flax", "keras", "timm"):
        with pytest.raises(ValueError, match="groups=32 does not divide the 48 channels"):
            train(dialect(library).group_norm(), sample((2, 4, 4, 48)))
    with pytest.raises(ValueError, match="no default for 'groups'"):
        dialect("torch").group_norm()
    with pytest.raises(ValueError, match=r".*"):
        nn.GroupNorm().init(jax.random.key(0), jnp.ones((2, 4, 4, 48)))


def s9(record):
    """One value a statistic: flax gives zero, here and in torch it is an error."""
    x = jnp.full((1, 4), 7.0)
    layer = nn.BatchNorm(use_running_average=False)
    y, _ = layer.apply(layer.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    assert not np.asarray(y).any()
    with pytest.raises(ShapeError, match="one value"):
        train(dialect("flax").batch_norm(), x)
    np.testing.assert_array_equal(
        evaluate(BatchNorm(eps=1e-12), x, {"mean": jnp.zeros(4), "variance": jnp.ones(4)}), x
    )
    if torch := installed("torch"):
        with pytest.raises(ValueError, match="more than 1 value"):
            torch.nn.BatchNorm1d(4)(torch.ones(1, 4))


def s10(record):
    """Libraries differ in the parameters that exist by default."""
    found = {name: sorted(dialect(name).instance_norm().init(4)[0]) for name in ("torch", "flax")}
    assert found == {"torch": [], "flax": ["bias", "scale"]}
    assert sorted(dialect("equinox").rms_norm().init(4)[0]) == ["bias", "scale"]
    assert sorted(dialect("flax").rms_norm().init(4)[0]) == ["scale"]


def s11(record):
    """Frozen parameters, training mode: after a hundred other batches the evaluation has moved."""
    norm = dialect("torch").batch_norm()
    x = sample((64, 1))
    _, state = train(norm, x)
    before = float(evaluate(norm, x, state).mean())
    for seed in range(100):
        _, state = train(norm, sample((64, 1), mean=2, seed=seed), state)
    after = float(evaluate(norm, x, state).mean())
    record("mean of the same batch's output, before and after", (before, after))
    assert after - before < -1.5
    if torch := installed("torch"):
        layer = torch.nn.BatchNorm1d(1).requires_grad_(False)
        with torch.no_grad():
            layer(torch.tensor(sample((64, 1), mean=2)))
        assert float(layer.running_mean) > 0.1, "no gradient, and yet it moved"


def s12(record):
    """Evaluated by the batch, an example's output depends on its company."""
    norm, x = BatchNorm(), sample((8, 1))
    other = np.concatenate([x[:1], x[1:] + 5])
    alone, moved = (float(train(norm, batch)[0][0, 0]) for batch in (x, other))
    record("the same example's output in two batches", (alone, moved))
    assert abs(alone - moved) > 1
    _, state = train(norm, x)
    first, second = (evaluate(norm, batch, state)[0, 0] for batch in (x, other))
    assert first == second


def s13(record):
    """The same word in linen and nnx, on bfloat16's own terms, at a mean of 30 deviations."""
    x = sample((512, 4), mean=30)
    true = (x - x.mean(0)) / x.std(0)
    x = jnp.asarray(x)
    options = {"dtype": jnp.bfloat16, "use_fast_variance": False}
    linen = nn.BatchNorm(use_running_average=False, **options)
    layer = nnx.BatchNorm(4, rngs=nnx.Rngs(0), **options)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        outcome = {"linen": linen.init_with_output(jax.random.key(0), x)[0], "nnx": layer(x)}
    errors = {k: float(np.abs(np.asarray(y, np.float32) - true).max()) for k, y in outcome.items()}
    record("largest error with dtype=bfloat16", errors)
    assert errors["linen"] < 0.02 < errors["nnx"], "the output rounded, the input rounded"
    y, state = train(BatchNorm(), x)
    assert y.dtype == x.dtype and state["mean"].dtype == jnp.float32


def s14(record):
    """A thousand steps of decay alone: a scale to zero, a zero-centred one (1 + g) to one."""
    optimizer = optax.add_decayed_weights(1.0)
    scale, centred = 2.0, 1.0
    for _ in range(1000):
        update, _ = optimizer.update(
            {"s": 0.0, "g": 0.0}, optimizer.init({"s": scale}), {"s": scale, "g": centred}
        )
        scale, centred = scale - 0.01 * update["s"], centred - 0.01 * update["g"]
    record("what a scale of 2 becomes: plain, zero-centred", (float(scale), float(1 + centred)))
    assert float(scale) == pytest.approx(0, abs=1e-3)
    assert float(1 + centred) == pytest.approx(1, abs=1e-3)


def standardised(kernel):
    """Standardise by three formulas: the authors' code, timm's, and DeepMind's without its gain."""
    kernel = jnp.asarray(kernel)
    size = kernel.size // kernel.shape[-1]
    return {
        "authors": weight_standardisation(kernel),
        "timm": weight_standardisation(kernel, eps=1e-6, unbiased=False, eps_in_variance=True),
        "deepmind": scaled_weight_standardisation(kernel) * np.sqrt(size),
    }


def s15(record):
    """Three formulas of weight standardisation: n - 1 or n, and what small kernels become."""
    for fan_in, apart in ((9, 0.057), (27, 0.019)):
        kernel = sample((fan_in, 64))
        found = {k: float(v.std()) for k, v in standardised(kernel).items()}
        record(f"deviation at a fan-in of {fan_in}", found)
        assert 1 - found["authors"] / found["timm"] == pytest.approx(apart, abs=2e-3)
    small = sample((9, 512))
    small = 1e-3 * (small - small.mean(0)) / small.std(0)
    found = {k: float(v.std()) for k, v in standardised(small).items()}
    record("deviation of kernels of deviation 1e-3", found)
    assert found["timm"] == pytest.approx(1 / np.sqrt(2), rel=1e-3)
    assert found["deepmind"] == pytest.approx(1e-3 * 3 / 1e-2, rel=1e-3)
    assert found["authors"] == pytest.approx(1e-3 / (1e-3 * np.sqrt(9 / 8) + 1e-5), rel=1e-3)
    if timm := installed("timm"):
        import torch

        layer = timm.layers.StdConv2d(1, 64, 3, padding=0)
        image = torch.zeros(1, 1, 3, 3)
        image[0, 0, 1, 2] = 1  # picks out one number of each kernel
        weight = layer.weight.detach().numpy().reshape(64, 9).T
        picked = layer(image).detach().numpy().ravel()
        np.testing.assert_allclose(standardised(weight)["timm"][5], picked, rtol=1e-4, atol=1e-5)


def s16(record):
    """Wrapped by weight norm, a layer computes what it did (torch, here) or not (flax)."""
    kernel = jnp.asarray(sample((9, 4)))
    norm = WeightNorm()
    params, state = norm.init(jax.random.key(0), kernel)
    ours, _ = norm.apply(params, state, kernel, train=True)
    np.testing.assert_allclose(ours, kernel, rtol=1e-5)
    dense = nn.Dense(4, use_bias=False, kernel_init=nn.initializers.ones)  # units of length 3
    layer = nn.WeightNorm(dense)
    x = jnp.eye(9)
    lengths = np.linalg.norm(layer.apply(layer.init(jax.random.key(0), x), x), axis=0)
    record("length 3 becomes in flax", lengths.tolist())
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    if torch := installed("torch"):
        wrapped = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(9, 4))
        g, v = (p.detach() for p in wrapped.parametrizations.weight.parameters())
        np.testing.assert_allclose(g.ravel(), v.norm(dim=1), rtol=1e-5)


def s17(record):
    """EvoNorm-B0 of a channel of deviation 0.03, in timm's dialect and with eps 1e-5."""
    x = 0.03 * sample((64, 4, 4, 1))
    theirs = train(dialect("timm").evo_norm_b0(), x)[0]
    ours = train(dialect("timm").evo_norm_b0(eps=1e-5), x)[0]
    ratio = float(theirs.std() / ours.std())
    record("output with 1e-3 over that with 1e-5", ratio)
    assert ratio == pytest.approx(np.sqrt((9e-4 + 1e-5) / (9e-4 + 1e-3)), rel=0.1)


def s18(record):
    """A step recomputed: the statistics move once here and in flax, twice in torch."""
    norm, x = BatchNorm(momentum=0.5), jnp.asarray(sample((16, 2), mean=4))

    def loss(x):
        y, state = jax.checkpoint(lambda x: train(norm, x))(x)
        return (y**2).sum(), state

    _, state = jax.grad(loss, has_aux=True)(x)
    np.testing.assert_allclose(state["mean"], 0.5 * np.mean(x, 0), rtol=1e-5)
    if torch := installed("torch"):
        from torch.utils.checkpoint import checkpoint

        layer = torch.nn.BatchNorm1d(2, momentum=0.5)
        leaf = torch.tensor(np.asarray(x), requires_grad=True)
        checkpoint(layer, leaf, use_reentrant=False).sum().backward()
        ratio = layer.running_mean.numpy() / (0.5 * np.mean(x, 0))
        record("torch's update over one update", ratio.tolist())
        np.testing.assert_allclose(ratio, 1.5, rtol=1e-4)


def s19(record):
    """The variance of two shards whose means differ: pooled, and the average of the variances."""
    shards = np.stack([sample((64,)), sample((64,), mean=3, seed=1)])
    moments = Moments(
        jnp.full(2, 64.0), jnp.asarray(shards.mean(1)), jnp.asarray(64 * shards.var(1))
    )
    merged = float(pool(moments, 0).variance[0])
    averaged = float(shards.var(axis=1).mean())
    record("pooled, averaged", (merged, averaged))
    assert merged == pytest.approx(shards.var(), rel=1e-5)
    assert merged - averaged == pytest.approx(shards.mean(1).var(), rel=1e-4)


def s20(record):
    """Without limits, renormalisation is evaluation by the running statistics from the first step;
    with the paper's, which open late, it begins as batch normalisation."""
    x = sample((64, 1), mean=5, std=3)
    paper = BatchRenorm()
    unlimited = BatchRenorm(warm_up=0, r_rise=0, d_rise=0, r_max=1e6, d_max=1e6)
    found = {name: train(norm, x)[0] for name, norm in {"paper": paper, "none": unlimited}.items()}
    moments = {k: (float(y.mean()), float(y.std())) for k, y in found.items()}
    record("mean and deviation of the first step's output", moments)
    np.testing.assert_allclose(found["none"], x, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["paper"], train(BatchNorm(), x)[0], rtol=1e-4, atol=1e-5)


CASES = (s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, s16, s17, s18, s19, s20)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.upper())
def test_the_difference_has_this_effect(case, record_property):
    case(record_property)
