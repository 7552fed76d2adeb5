"""Differences 13 to 20 between libraries, each with its effect measured (docs/conventions.md)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from normlab.dialects.library import dialect
from normlab.norms import BatchNorm, BatchRenorm
from normlab.ops.moments import Moments, pool
from normlab.weights.scaled_weight_standardisation import scaled_weight_standardisation
from normlab.weights.weight_norm import WeightNorm
from normlab.weights.weight_standardisation import weight_standardisation
from tests.norms.conftest import sample

from .test_semantic_differences import installed, train


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
    """By the three formulas: the authors' code, timm's, and DeepMind's without its gain."""
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


CASES = (s13, s14, s15, s16, s17, s18, s19, s20)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.upper())
def test_the_difference_has_this_effect(case, record_property):
    case(record_property)
