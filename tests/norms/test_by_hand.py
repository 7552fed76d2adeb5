"""Normalisers that no other library has agree with numbers checked on paper; eps is almost zero.

The entries that another library does have are in tests/peers.
"""

import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import normlab
from normlab import norms
from normlab.errors import ShapeError
from normlab.models import MLP
from normlab.norms.normality import power_transform

from .conftest import NAMES, assert_trees_close, make, with_values

TINY: dict[str, Any] = {"eps": 1e-12}
LN2, LN3, LN9 = math.log(2), math.log(3), math.log(9)


def column(*values):
    """One channel, an example a value."""
    return [[value] for value in values]


# Two examples of two positions, one channel. Each example has the variance 1, its mean 2 or 6; all
# four have the mean 4 and the variance (9 + 1 + 1 + 9) / 4 = 5.
PAIRS = [[[1], [3]], [[5], [7]]]
# Four examples of two uncorrelated channels with the mean 0 and the variances 8 / 4 and 2 / 4.
CROSS = [[2, 0], [-2, 0], [0, 1], [0, -1]]

HAND = {
    "identity": (norms.Identity(), {}, [[2]], [[2]]),
    # 3 * 2 + 1
    "affine": (norms.Affine(), {"scale": [3], "bias": [1]}, [[2]], [[7]]),
    # Of 1 1 3 3: mean 2, deviation 1. Of 10 20 20 30: mean 20, variance (100 + 100) / 4 = 50.
    "batch group, two examples at a time": (
        norms.BatchGroupNorm(groups=1, norm_batch=2, **TINY),
        {},
        [[1, 1], [3, 3], [10, 20], [20, 30]],
        [[-1, -1], [1, 1], [-math.sqrt(2), 0], [0, math.sqrt(2)]],
    ),
    # 1/4 of (-3 -1 1 3) / sqrt 5 and 3/4 of (-1 1 -1 1)
    "batch instance": (
        norms.BatchInstanceNorm(**TINY),
        {"gate": [0.25]},
        PAIRS,
        [[[-1.08541], [0.63820]], [[-0.63820], [1.08541]]],
    ),
    # Standardised as -1 and 1, both of the first condition: 2 z + 5.
    "conditional batch": (
        norms.ConditionalBatchNorm(**TINY),
        {"scale": [[2], [3]], "bias": [[5], [7]]},
        column(1, 3),
        column(3, 7),
    ),
    # diag(2, 1/2)^(-1/2) = diag(1 / sqrt 2, sqrt 2)
    "decorrelated batch": (
        norms.DecorrelatedBatchNorm(**TINY),
        {},
        CROSS,
        [[math.sqrt(2), 0], [-math.sqrt(2), 0], [0, math.sqrt(2)], [0, -math.sqrt(2)]],
    ),
    # One step from the identity: (3 - diag(2, 1/2) / 2.5) / 2 = diag(1.1, 1.4), over sqrt 2.5.
    "iterative": (
        norms.IterativeNorm(iterations=1, **TINY),
        {},
        CROSS,
        [[1.391402, 0], [-1.391402, 0], [0, 0.885438], [0, -0.885438]],
    ),
    # Means of two or three neighbours: 0 1 1 3/2, so v = 0 -1 2 -3/2; their mean squares: 1/2 5/3
    # 7.25/3 6.25/2; and v / sqrt(1 + those).
    "divisive": (
        norms.DivisiveNorm(window=3),
        {},
        [[[0], [0], [3], [0]]],
        [[[0], [-0.612372], [1.081998], [-0.738549]]],
    ),
    # tanh(ln 3) = (3 - 1/3) / (3 + 1/3) = 0.8, twice that and one.
    "dynamic tanh": (norms.DynamicTanh(), {"scale": [2], "bias": [1]}, [[LN9]], [[2.6]]),
    # erf(1 / 2 + 1 / 2)
    "dynamic erf": (norms.DynamicErf(), {"shift": 0.5}, [[1]], [[0.842701]]),
    # Mean 1, distances 1 1 1 3 of mean 3/2, times sqrt(pi / 2) = 1.253314.
    "L1 batch": (
        norms.L1BatchNorm(**TINY),
        {},
        column(0, 0, 0, 4),
        column(-0.531923, -0.531923, -0.531923, 1.595769),
    ),
    # Example 0 is half of each mode; of example 1, whose logits are ln 3 and 0, the first has 3/4.
    # Mode 1: weights 1/2 3/4, mean 0.6, variance 0.24. Mode 2: 1/2 1/4, mean 1/3, variance 2/9.
    # 0 -> (-0.6 / 0.489898 - 0.333333 / 0.471405) / 2; 1 -> 3/4 * 0.4 / ... + 1/4 * 0.666667 / ...
    "mode": (
        norms.ModeNorm(**TINY),
        {"gate": [[LN3, 0]]},
        column(0, 1),
        column(-0.965926, 0.965926),
    ),
    # By 0 and 1: 2 -2, over its root mean square 2. Then the means are 1 -1, the variances
    # 1/2 + 4/4 = 1.5: 0 and 1 / sqrt 1.5, over the root of the mean of their squares, sqrt(1/3).
    "online": (
        norms.OnlineNorm(momentum=0.5, **TINY),
        {},
        [[2, -2], [1, 0]],
        [[1, -1], [0, math.sqrt(2)]],
    ),
    # Scale and bias come before the layer's scaling: 2 * 2 + 1 = 5 and 2 * -2 + 3 = -1, over
    # sqrt((25 + 1) / 2).
    "online, scaled": (
        norms.OnlineNorm(**TINY),
        {"scale": [2, 2], "bias": [1, 3]},
        [[2, -2]],
        [[5 / math.sqrt(13), -1 / math.sqrt(13)]],
    ),
    # Of 1 and 3 at each position: mean 2, deviation 1; the last window holds one position.
    "kernel": (
        norms.KernelNorm(window=2, **TINY),
        {},
        [[[1, 3], [1, 3], [10, 30]]],
        [[[-1, 1], [-1, 1], [-1, 1]]],
    ),
    # The first of two channels: 2 over sqrt 4.
    "partial RMS": (norms.PartialRMSNorm(fraction=0.5, **TINY), {}, [[2, 6]], [[1, 3]]),
    # With the third channel, -3: mean square 14 / 3, whose root is 2.160247.
    "compressed RMS": (norms.CompressedRMSNorm(**TINY), {}, [[1, 2]], [[0.462910, 0.925820]]),
    # sqrt 2 * 3 / sqrt(16 + 9) and sqrt 2 * -4 / sqrt(16 + 16), twice that and one.
    "dynamic ISRU": (
        norms.DynamicISRU(beta=16.0),
        {"scale": [2, 2], "bias": [1, 1]},
        [[3, -4]],
        [[2.697056, -1]],
    ),
    # The root mean square is 3. tanh(x . beta) = tanh(ln 3) = 0.8, and 0.8 * 2 + 1 = 2.6.
    "self-rescaled": (
        norms.SeedNorm(**TINY),
        {"alpha": [2, 2], "beta": [LN3 / 3, 0]},
        [[3, -3]],
        [[2.6, -2.6]],
    ),
    # Half of -1 1, 1 -1, and half of the same plus twice the input.
    "progressive": (
        norms.ProgressiveBatchNorm(start=0.5, **TINY),
        {"eta": 2},
        [[1, 3], [3, 1]],
        [[0, 4], [4, 0]],
    ),
    # Both of the first condition: -1 and 1, times 1 + 1, plus 5.
    "adaptive layer": (
        norms.AdaptiveLayerNorm(**TINY),
        {"to_scale": [[1, 1], [7, 7]], "to_bias": [[5, 5], [7, 7]]},
        [[1, 3]],
        [[3, 7]],
    ),
    # (0.5 + 1) * -1 and 1: the scale is kept less one.
    "zero-centred layer": (
        norms.LayerNorm(zero_centred=True, **TINY),
        {"scale": [0.5, 0]},
        [[1, 3]],
        [[-1.5, 1]],
    ),
    # y is -1 and 1, z 0 and 1. The proxy, max(Y, 0) of a normal Y, has the mean 1 / sqrt(2 pi)
    # and variance 1/2 - 1 / (2 pi) = 0.340845, as 4,000 quantiles have them to a thousandth.
    "proxy": (
        norms.ProxyGroupNorm(proxy_eps=1e-6, samples=4000, **TINY),
        {},
        [[1, 3]],
        [[-0.683, 1.0296]],
    ),
    "positional": (norms.PositionalNorm(**TINY), {}, [[1, 3]], [[-1, 1]]),
    # Weights of the means 1/2 1/4 1/4: 2.5 and 5.5. Of the variances a third each: (1 + 1 + 5) / 3.
    "switchable": (
        norms.SwitchableNorm(**TINY),
        {"mean_weights": [LN2, 0, 0]},
        PAIRS,
        [[[-0.981981], [0.327327]], [[-0.327327], [0.981981]]],
    ),
}


def prepared(norm, changed, x):
    x = jnp.asarray(x, jnp.float32)
    params, state = norm.init(x.shape[-1])
    given = {name: jnp.asarray(value, jnp.float32) for name, value in changed.items()}
    assert set(given) <= set(params)
    return {**params, **given}, state, x


@pytest.mark.parametrize("case", HAND)
def test_output_is_what_paper_and_pencil_give(case):
    norm, changed, x, wanted = HAND[case]
    params, state, x = prepared(norm, changed, x)
    y, _ = jax.jit(partial(norm.apply, train=True))(params, state, x)
    close = 2e-3 if case == "proxy" else 3e-6
    np.testing.assert_allclose(y, wanted, rtol=close, atol=close)


def test_dynamic_functions_have_the_slope_that_paper_and_pencil_give():
    """alpha (1 - tanh^2) = 0.5 * 0.36; alpha 2 / sqrt(pi) exp(-1) = 0.207554."""
    for norm, changed, x, slope in (
        (norms.DynamicTanh(), {}, [[LN9]], 0.18),
        (norms.DynamicErf(), {"shift": 0.5}, [[1]], 0.207554),
    ):
        params, _, x = prepared(norm, changed, x)
        slope_of = jax.grad(lambda x, n=norm, p=params: n.apply(p, {}, x, train=True)[0].sum())
        found = jax.jit(slope_of)(x)
        np.testing.assert_allclose(found, [[slope]], rtol=1e-5)


def test_example_weighted_batch_norm_pools_mean_squares():
    """Own: mean 2, mean square 5. Running: 0 and 1. Half of each: 1 and 3, the variance 2."""
    norm = norms.ExampleWeightedBatchNorm(weight=0.5, **TINY)
    y, _ = norm.apply(*norm.init(1), jnp.array([[[1.0], [3.0]]]), train=False)
    np.testing.assert_allclose(y, [[[0], [math.sqrt(2)]]], rtol=1e-6)


def test_population_norm_uses_its_running_statistics_and_passes_the_gradient():
    """Means 2 and 4, variances 1 and 1: after two steps 3 and 1, so 3 and 5 come out as 0 and 2."""
    norm = norms.PopulationNorm(**TINY)
    params, state = norm.init(1)
    _, state = norm.apply(params, state, jnp.array([[1.0], [3.0]]), train=True)
    y, vjp = jax.vjp(
        lambda x: norm.apply(params, state, x, train=True)[0], jnp.array([[3.0], [5.0]])
    )
    np.testing.assert_allclose(y, [[0], [2]], atol=1e-6)
    np.testing.assert_allclose(vjp(jnp.array([[3.0], [-1.0]]))[0], [[3], [-1]], rtol=1e-6)


def two_steps(norm, first, second):
    """Output and input gradient of the second step, of a cotangent of 1 and 0 in both."""
    params, state = norm.init(1)
    for x in (first, second):

        def loss(state, x):
            y, moved = norm.apply(params, state, x, train=True)
            return y[0, 0], (y, moved)

        gradients = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        (left, d_x), (y, moved) = gradients(state, jnp.asarray(x, jnp.float32))
        state = {**moved, **{name: left[name] for name in norm.facts.backward_state}}
    return y, d_x


def test_power_norm_takes_the_running_square_and_the_running_product():
    """First by 1: 2 -2, mean(g y) = 1, so the product becomes 1/2 and the square (1 + 4) / 2 =
    5/2. Then sqrt 2.5 comes out as 1, with the gradients (1 - 1/2) and (0 + 1/2) over sqrt 2.5."""
    norm, root = norms.PowerNorm(warm_up=0, momentum=0.5, **TINY), math.sqrt(2.5)
    y, d_x = two_steps(norm, column(2, -2), column(root, -root))
    np.testing.assert_allclose(y, column(1, -1), rtol=1e-6)
    np.testing.assert_allclose(d_x, column(0.5 / root, 0.5 / root), rtol=1e-5)


def test_moving_average_batch_norm_averages_two_batches():
    """Squares 1 and 9, mean 5: 3 comes out as 3 / sqrt 5 = 1.341641. Products 1/2 and 0.670820,
    mean 0.585410: the gradients (1 - 0.585410 * 1.341641) and 0.585410 * 1.341641, over sqrt 5."""
    norm = norms.MovingAverageBatchNorm(memory=2, warm_up=0, **TINY)
    y, d_x = two_steps(norm, column(1, -1), column(3, -3))
    np.testing.assert_allclose(y, column(1.341641, -1.341641), rtol=1e-6)
    np.testing.assert_allclose(d_x, column(0.095967, 0.351246), rtol=1e-5)


def test_a_mode_without_examples_keeps_its_statistics_and_passes_finite_gradients():
    """Logits of 1000 and 0: the second mode has exp(-1000) of each example, which is nothing."""
    norm = norms.ModeNorm(momentum=0.5, **TINY)
    params, state, x = prepared(norm, {"gate_bias": [1000, 0]}, column(1, 3))
    y, moved = norm.apply(params, state, x, train=True)
    np.testing.assert_allclose(y, column(-1, 1), rtol=1e-6)
    np.testing.assert_allclose(moved["mean"], [[1], [0]], rtol=1e-6)
    np.testing.assert_allclose(moved["variance"], [[1], [1]], rtol=1e-6)
    slope = jax.grad(lambda p, x: norm.apply(p, state, x, train=True)[0][0, 0], (0, 1))
    slopes = jax.jit(slope)(params, x)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))


def test_a_condition_is_a_number_or_a_vector():
    """Rows 0 and 1 of the map, and their mean: -1 and 1 times 1, 3 and 2."""
    norm = norms.AdaptiveLayerNorm(use_bias=False, **TINY)
    params, _, x = prepared(norm, {"to_scale": [[0, 0], [2, 2]]}, [[1, 3]] * 3)
    vectors = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    y, _ = norm.apply(params, {}, x, train=False, condition=vectors)
    np.testing.assert_allclose(y, [[-1, 1], [-3, 3], [-2, 2]], rtol=1e-6)
    z, _ = norm.apply(params, {}, x, train=False, condition=jnp.array([0, 1, 1]))
    np.testing.assert_allclose(z, [[-1, 1], [-3, 3], [-3, 3]], rtol=1e-6)
    with pytest.raises(ShapeError, match="3 whole numbers, or floats of shape"):
        norm.apply(params, {}, x, train=False, condition=vectors[:2])


def test_taper_norm_ends_as_the_multiple_of_the_input_that_was_nearest():
    """Rows 1 1 and 3 3, scale 2: squares 8 and 72, products 8 / 1 and 72 / 3. c = 16 / 40, and a
    third row of 10 NaN is left as it is by a gain of 2 and a learnt 3: 0.4 * 2 * 3 * 10 = 24."""
    norm = norms.TaperNorm(warm_up=1, fade=2, **TINY)
    params, state, x = prepared(norm, {"scale": [2, 2], "tapered": [3, 3]}, [[1, 1], [3, 3]])
    y, state = norm.apply(params, state, x, train=True)
    np.testing.assert_allclose(y, [[2, 2], [2, 2]], rtol=1e-6)
    _, state = norm.apply(params, state, x, train=True)
    y, _ = norm.apply(params, state, x, train=True)  # half of each
    np.testing.assert_allclose(y, [[1 + 1.2, 1 + 1.2], [1 + 3.6, 1 + 3.6]], rtol=1e-5)
    for _ in range(2):
        _, state = norm.apply(params, state, x, train=True)
    y, _ = norm.apply(params, state, jnp.array([[10.0, jnp.nan]]), train=True)
    np.testing.assert_allclose(y, [[24, jnp.nan]], rtol=1e-5)
    changed = {**params, "scale": jnp.array([5.0, 5.0])}  # which has no part in it any more
    again, _ = norm.apply(changed, state, jnp.array([[10.0, 1.0]]), train=False)
    np.testing.assert_allclose(again, [[24, 2.4]], rtol=1e-5)


def test_progressive_batch_norm_is_the_layer_norm_and_moves_nothing_while_it_warms_up():
    norm = norms.ProgressiveBatchNorm(warm_up=1, fade=4, start=0.5, momentum=0.0, **TINY)
    params, state, x = prepared(norm, {"eta": 0}, [[1, 3], [5, 9]])
    y, state = norm.apply(params, state, x, train=True)
    np.testing.assert_allclose(y, [[-1, 1], [-1, 1]], rtol=1e-6)
    assert state["mean"].tolist() == [0, 0] and state["steps"] == 1
    y, state = norm.apply(params, state, x, train=True)  # half of it, and half of batch norm
    np.testing.assert_allclose(y, [[-1, 0], [0, 1]], atol=1e-6)
    assert state["mean"].tolist() == [3, 6]
    y, _ = norm.apply(params, state, x, train=False)
    np.testing.assert_allclose(y, [[-1, -1], [1, 1]], rtol=1e-6)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_kernel_norm_convolution_is_one_of_windows_that_were_normalised(stride, padding):
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(3, 2, (2, 5, 6, 3)), rng.normal(size=(3, 2, 3, 4)), np.arange(4.0)
    wide = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    rows = range(0, wide.shape[1] - 2, stride)
    columns = range(0, wide.shape[2] - 1, stride)
    want = np.zeros((2, len(rows), len(columns), 4))
    for n, (i, top), (j, left) in itertools.product(range(2), enumerate(rows), enumerate(columns)):
        window = wide[n, top : top + 3, left : left + 2]
        z = (window - window.mean()) / np.sqrt(window.var() + 1e-5)
        want[n, i, j] = np.einsum("hwc,hwcd->d", z, kernel) + bias
    given = (jnp.asarray(a, jnp.float32) for a in (x, kernel, bias))
    y = normlab.kernel_norm_convolution(*given, stride=stride, padding=padding)
    np.testing.assert_allclose(y, want, rtol=2e-5, atol=2e-5)


SCALED = [name for name in NAMES if hasattr(make(name), "zero_centred")]


@pytest.mark.parametrize("name", SCALED)
def test_a_zero_centred_scale_is_kept_less_one_and_changes_nothing_else(name):
    plain, centred = make(name), make(name, zero_centred=True)
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (4, 3, 5, 16)), jnp.float32)
    params, state = plain.init(16)
    params = with_values(params)
    kept = {k: leaf - 1 if k.endswith("scale") else leaf for k, leaf in params.items()}
    begun, _ = centred.init(16)
    for key, leaf in plain.init(16)[0].items():
        np.testing.assert_array_equal(begun[key], leaf - 1 if key.endswith("scale") else leaf)
    for train in (True, False):
        wanted = plain.apply(params, state, x, train=train)
        found = centred.apply(kept, state, x, train=train)
        assert_trees_close(found, wanted, rtol=1e-5, atol=1e-5)
    found = jax.eval_shape(
        jax.grad(lambda p: centred.apply(p, state, x, train=True)[0].sum()), kept
    )
    assert set(found) == set(kept)


def test_every_entry_with_a_scale_may_keep_it_less_one():
    with_scale = {name for name in NAMES if "scale" in make(name).init(16)[0]}
    assert with_scale == set(SCALED) and len(with_scale) > 30


def test_the_power_transform_is_a_power_a_logarithm_and_the_identity():
    """Of 3 by 2: (4^2 - 1) / 2; by 0: ln 4; of -3 by 0: -(4^2 - 1) / 2; by 2: -ln 4."""
    powers = {2: (7.5, -2 * LN2), 1: (3, -3), 0: (2 * LN2, -7.5), 1e-5: (1.386304, -7.499927)}
    for power, wanted in powers.items():
        found = power_transform(jnp.array([3.0, -3.0]), jnp.float32(power))
        np.testing.assert_allclose(found, wanted, rtol=2e-6)
    slope = jax.grad(lambda h: power_transform(h, jnp.float32(0.5)))
    np.testing.assert_allclose(slope(0.0), 1)


def test_a_skewed_sample_comes_nearer_to_a_normal_one():
    x = jnp.asarray(np.random.default_rng(0).gamma(2.0, size=(4000, 3)), jnp.float32)
    norm = norms.NormalityBatchNorm()
    y, state = norm.apply(*norm.init(3), x, train=True)
    before, after = (np.abs(stats.skew(np.asarray(a))) for a in (x, y))
    assert (before > 1.2).all() and (after < 0.35).all()
    assert (state["power"] < 1).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("normality")])
def test_noise_needs_a_key_and_has_the_size_of_the_mean_distance(name):
    norm = make(name, noise=0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(40, 6, 6, 16)), jnp.float32)
    params, state = norm.init(16)
    plain = norm.apply(params, state, x, train=True)[0]
    key = jax.random.key(0)
    added = norm.apply(params, state, x, train=True, rng=key)[0] - plain
    assert float(added.std()) == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.05)
    assert abs(float(added.mean())) < 0.01
    found = norm.apply(params, state, x, train=False, rng=key)[0]
    np.testing.assert_array_equal(found, norm.apply(params, state, x, train=False)[0])


def test_the_slot_of_a_model_gives_the_key_of_dropout_to_noise():
    model = MLP(norm=norms.NormalityLayerNorm(), classes=2, widths=(8,))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    one, again, other = (
        model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert float(jnp.abs(one - other).max()) > 0.01
    quiet = model.apply(variables, x, train=True)
    assert float(jnp.abs(one - quiet).max()) > 0.01
