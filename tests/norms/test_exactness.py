"""Statistics keep their digits at any mean: float32 in, held against float64 of the same input."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LayerNormImage

from .conftest import sample
from .reference import element_sets, standardise

SHAPE = (16, 8, 8, 16)
NORMS = {
    "channel": BatchNorm(),
    "position": LayerNorm(),
    "example": LayerNormImage(),
    "example and group": GroupNorm(groups=4),
    "example and channel": InstanceNorm(),
}
HOSTILE = [(0, 1), (1e3, 1), (1e4, 1), (1e4, 1e-2), (1e6, 1), (1e6, 100), (-1e5, 0.1), (3, 1e-4)]
ROUNDING = 1e-6
"""A few units in the last place of float32 (6e-8); 1.5e-7 is what was found at the time."""


def output_and_gradient(function, x, dy):
    y, vjp = jax.vjp(jax.jit(function), jnp.asarray(x))
    return np.asarray(y), np.asarray(vjp(jnp.asarray(dy))[0])


def ours(norm, groups=16):
    params, state = norm.init(groups)
    return lambda x: norm.apply(params, state, x, train=True)[0]


def truth(x, dy, kind, eps=1e-5):
    sets = element_sets(x, kind, groups=4)
    y = standardise(x, sets, eps=eps)
    flat_x, flat_y, flat_dy = (np.asarray(a, np.float64).ravel() for a in (x, y, dy))
    gradient = np.zeros_like(flat_x)
    for one in sets:
        d = flat_dy[one]
        spread = d - d.mean() - flat_y[one] * (d * flat_y[one]).mean()
        gradient[one] = spread / np.sqrt(flat_x[one].var() + eps)
    return y, gradient.reshape(x.shape)


def error(found, true):
    return np.abs(np.asarray(found, np.float64) - true).max() / np.abs(true).max()


@pytest.mark.parametrize(("mean", "std"), HOSTILE)
@pytest.mark.parametrize("kind", NORMS)
def test_output_and_gradient_are_exact_to_rounding_at_any_mean(kind, mean, std):
    x, dy = sample(SHAPE, mean, std), sample(SHAPE, seed=9)
    for found, true in zip(
        output_and_gradient(ours(NORMS[kind]), x, dy), truth(x, dy, kind), strict=True
    ):
        assert error(found, true) < ROUNDING


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("kind", NORMS)
def test_one_outlier_in_the_first_place_costs_nothing(kind, mean):
    """The first value is what a shift by a single sample would take."""
    x = sample(SHAPE, mean)
    x[0, 0, 0, :] += 1e5
    y, _ = truth(x, x, kind)
    found, _ = output_and_gradient(ours(NORMS[kind]), x, x)
    assert error(found, y) < ROUNDING
    ordinary = np.abs(y) < 1
    assert np.abs(found - y)[ordinary].max() < 1e-5


@pytest.mark.parametrize(("mean", "std"), [(1e3, 1), (1e4, 1e-2), (1e6, 1)])
@pytest.mark.parametrize("fast", [True, False])
def test_at_large_means_no_mode_of_flax_is_as_exact(mean, std, fast):
    x, dy = sample(SHAPE, mean, std), sample(SHAPE, seed=9)
    layers = {
        "channel": nn.BatchNorm(use_running_average=False, use_fast_variance=fast),
        "position": nn.LayerNorm(epsilon=1e-5, use_fast_variance=fast),
    }
    for kind, layer in layers.items():
        variables = layer.init(jax.random.key(0), jnp.zeros(SHAPE))
        theirs = lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0]  # noqa: B023, E731
        for mine, other, true in zip(
            output_and_gradient(ours(NORMS[kind]), x, dy),
            output_and_gradient(theirs, x, dy),
            truth(x, dy, kind),
            strict=True,
        ):
            assert error(mine, true) < error(other, true)


@pytest.mark.parametrize(("mean", "std"), HOSTILE)
def test_at_any_mean_torch_is_no_more_exact(mean, std):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = sample(SHAPE, mean, std)
    first = torch.tensor(x).permute(0, 3, 1, 2).contiguous()
    theirs = {
        "channel": functional.batch_norm(first, None, None, training=True).permute(0, 2, 3, 1),
        "position": functional.layer_norm(torch.tensor(x), (16,)),
        "example and group": functional.group_norm(first, 4).permute(0, 2, 3, 1),
    }
    for kind, other in theirs.items():
        true, _ = truth(x, x, kind)
        mine, _ = output_and_gradient(ours(NORMS[kind]), x, x)
        assert error(mine, true) < max(error(other.numpy(), true), ROUNDING / 2)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(NORMS)),
    sizes=st.tuples(*[st.integers(2, 6)] * 3, st.sampled_from([4, 8])),
    exponent=st.floats(-6, 6),
    spread=st.floats(-2, 3),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_random_shapes_masks_offsets_and_scales(kind, sizes, exponent, spread, masked, seed):
    rng = np.random.default_rng(seed)
    x = sample(sizes, mean=rng.choice([-1, 1]) * 10**exponent, std=10**spread, seed=seed)
    mask = rng.random((*sizes[:-1], 1)) < 0.8 if masked else None
    norm = NORMS[kind]
    params, state = norm.init(sizes[-1])
    given_mask = None if mask is None else jnp.asarray(mask)
    y, _ = norm.apply(params, state, jnp.asarray(x), train=True, mask=given_mask)
    true = standardise(x, element_sets(x, kind, groups=4), eps=norm.eps, mask=mask)
    assert np.abs(np.asarray(y) - true).max() <= 3 * ROUNDING * max(1, np.abs(true).max())
