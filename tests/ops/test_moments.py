"""Moments merge as the moments of all the values would be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.ops.moments import Moments, Sharing, pool, subtract_mean, synchronise
from tests.norms.conftest import sample

pytestmark = pytest.mark.usefixtures("as_users_compile")


def of(values):
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        return Moments(*(jnp.zeros(()) for _ in range(3)))
    m2 = ((values - values.mean()) ** 2).sum()
    return Moments(*(jnp.asarray(v, jnp.float32) for v in (len(values), values.mean(), m2)))


def stack(*moments):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *moments)


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
@pytest.mark.parametrize(
    "sizes", [(3, 3), (7, 1), (5, 0), (0, 5), (1, 1, 1), (9, 2, 4, 1)], ids=str
)
def test_pooling_parts_gives_the_moments_of_the_whole(sizes, mean):
    parts = [sample(n, mean=mean + 3 * k, seed=k) for k, n in enumerate(sizes)]
    pooled = pool(stack(*map(of, parts)), axis=0)
    whole = of(np.concatenate(parts))
    assert pooled.count.item() == whole.count.item()
    # The means of the parts are given in float32, whose step near 1e6 is 1/16.
    np.testing.assert_allclose(pooled.mean.item(), whole.mean.item(), rtol=2e-7, atol=1e-6)
    np.testing.assert_allclose(pooled.variance.item(), whole.variance, rtol=1e-5 + mean * 1e-7)


def merge_by(how, moments):
    if how is pool:
        return jax.tree.map(lambda leaf: leaf[0], pool(moments, axis=0))
    shards = jax.vmap(lambda m: synchronise(m, "shard"), axis_name="shard")(moments)
    return jax.tree.map(lambda leaf: leaf[0], shards)


@pytest.mark.parametrize("how", [pool, synchronise])
@pytest.mark.parametrize("mean", [3.0, 1e4 / 3, -1e6 / 3, 1e30, -1e30])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_parts_without_a_value_change_no_digit(how, mean, place):
    """A mean of zero for nothing is no mean to measure the others from."""
    filled = Moments(*(jnp.float32(value) for value in (300, mean, 0.03)))
    parts = [of([])] * 3
    parts[place] = filled
    for found, wanted in zip(merge_by(how, stack(*parts)), filled, strict=True):
        assert found == wanted


@pytest.mark.parametrize("how", [pool, synchronise])
@pytest.mark.parametrize("mean", [0.0, 1e4, -1e6])
@pytest.mark.parametrize("sizes", [(0, 300, 100), (7, 1), (90, 0, 4), (5, 5, 5, 2)], ids=str)
def test_a_merge_is_exact_to_rounding_given_its_parts(how, mean, sizes):
    """Nothing is lost but what the float32 means of the parts had lost before."""
    parts = stack(*(of(sample(n, mean + k, 0.5, seed=k)) for k, n in enumerate(sizes)))
    count, means, m2 = (np.asarray(leaf, np.float64) for leaf in parts)
    mean = (count * means).sum() / count.sum()
    merged = merge_by(how, parts)
    assert merged.count.item() == sum(sizes)
    assert merged.mean.item() == pytest.approx(mean, rel=1e-7, abs=3e-7)
    wanted = (m2.sum() + (count * (means - mean) ** 2).sum()) / count.sum()
    assert merged.variance.item() == pytest.approx(wanted, rel=1e-6)


def test_the_order_of_merging_does_not_matter():
    a, b, c = (of(sample(n, mean=n, seed=n)) for n in (3, 8, 2))

    def squeezed(moments):
        return jax.tree.map(lambda leaf: leaf[0], pool(moments, axis=0))

    left = squeezed(stack(squeezed(stack(a, b)), c))
    right = squeezed(stack(a, squeezed(stack(c, b))))
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_spread_of_the_means_is_in_the_variance():
    """Averaging the two variances, both zero, would lose it."""
    pooled = pool(stack(of([1.0, 1.0]), of([3.0, 3.0, 3.0, 3.0])), axis=0)
    assert pooled.mean.item() == pytest.approx(7 / 3)
    assert pooled.variance.item() == pytest.approx(np.var([1, 1, 3, 3, 3, 3]))


def test_nothing_counted_is_zero_and_not_nan():
    empty = pool(stack(of([]), of([])), axis=0)
    assert [leaf.item() for leaf in empty] == [0, 0, 0]
    assert empty.variance.item() == 0 and empty.unbiased_variance.item() == 0


def test_shards_of_unequal_counts_are_weighted_by_them():
    moments = stack(of([0.0, 1.0, -1.0]), of([8.0]))
    merged = jax.vmap(lambda m: synchronise(m, "shard"), axis_name="shard")(moments)
    np.testing.assert_allclose(merged.mean, 2.0)
    np.testing.assert_allclose(merged.variance, np.var([0, 1, -1, 8]), rtol=1e-6)


@pytest.mark.parametrize("mean", [0.0, -1e4, 1e6])
def test_subtract_mean_reports_the_moments_it_used(mean):
    x = sample((50, 4), mean=mean, std=2)
    mask = sample((50, 1), seed=3) > 0
    _, moments = subtract_mean(jnp.asarray(x), Sharing(axes=(0,)), mask=jnp.asarray(mask))
    kept = x[mask[:, 0]].astype(np.float64)
    np.testing.assert_array_equal(moments.count, np.full((1, 4), len(kept)))
    np.testing.assert_allclose(moments.mean[0], kept.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.variance[0], kept.var(0), rtol=1e-5)
