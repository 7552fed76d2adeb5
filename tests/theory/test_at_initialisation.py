"""Random networks behave as papers prove; each test names its paper.

Elsewhere: gradients by depth (Yang et al. 2019, Bjorck et al. 2018) in
test_gradients_at_initialisation.py; Fixup and signal propagation plots (Zhang et al. 2019, Brock et
al. 2021) in tests/models/test_without_normaliser.py; pooled statistics (Wu & Johnson 2021) in
tests/adapters/test_statistics.py; weight standardisation (Qiao et al. 2019) in test_invariances.py
and tests/weights/test_properties.py. docs/claims.md lists all.
"""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from normlab.norms import BatchNorm
from normlab.norms.batch import batch_norm
from normlab.norms.group import group_norm
from normlab.norms.instance import instance_norm
from normlab.norms.layer import layer_norm_image
from normlab.probes.propagation import similarity

DEPTH, CHANNELS, SIZE, BATCH = 20, 16, 4, 16

NORMALISERS = {
    "image": layer_norm_image,
    "group of 8": partial(group_norm, groups=CHANNELS // 8),
    "group of 2": partial(group_norm, groups=CHANNELS // 2),
    "instance": instance_norm,
    "batch": batch_norm,
}
PER_EXAMPLE = [name for name in NORMALISERS if name != "batch"]


def he_normal(key, *shape):
    """Draw kernels, `(number, inputs, outputs)` (He et al. 2015)."""
    return jax.random.normal(key, shape) * np.sqrt(2 / shape[1])


@cache
def through(name):
    """Measure plain networks of convolutions, normalisers and ReLUs on images of noise, two seeds.

    Returns:
        The mean cosine between two examples' features after the last layer, and the factor by which
        the squared gradient with respect to a layer's input grows from each layer to the previous.
    """
    # Convolutions of 3x3 on a torus, without borders; as a product of matrices they are quick.
    moves = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]

    def layer(x, row):
        kernel, nudge = row
        patches = [jnp.roll(x + nudge, move, (1, 2)) for move in moves]
        return nn.relu(NORMALISERS[name](jnp.concatenate(patches, axis=-1) @ kernel)), None

    def of_seed(seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        kernels = he_normal(keys[0], DEPTH, 9 * CHANNELS, CHANNELS)
        images = jax.random.normal(keys[1], (BATCH, SIZE, SIZE, CHANNELS))
        towards = jax.random.normal(keys[2], images.shape)

        def output(nudges):
            last, _ = lax.scan(layer, images, (kernels, nudges))
            return (last * towards).sum(), last

        gradient, last = jax.grad(output, has_aux=True)(jnp.zeros((DEPTH, *images.shape)))
        squares = (gradient**2).sum(axis=(1, 2, 3, 4))
        return similarity(last), (squares[0] / squares[-1]) ** (1 / (DEPTH - 1))

    alike, grown = jax.jit(jax.vmap(of_seed))(jnp.arange(2))
    return float(alike.mean()), float(grown.mean())


@pytest.mark.thorough
def test_the_larger_the_groups_the_more_alike_features_become():
    """Lubana et al. 2021 (arXiv:2106.05956): large groups lose the differences between inputs.
    Batch norm keeps them like groups of one channel."""
    alike = [through(name)[0] for name in PER_EXAMPLE]
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > 2 * alike[-1]
    assert through("batch")[0] == pytest.approx(alike[-1], rel=0.1)


@pytest.mark.thorough
def test_the_smaller_the_groups_the_faster_gradients_grow_on_the_way_back():
    """Lubana et al. 2021 (arXiv:2106.05956): small groups let gradients explode."""
    grown = [through(name)[1] for name in PER_EXAMPLE]
    assert grown == sorted(grown)
    assert grown[-1] > 1.4 and grown[0] < 1.1


BLOCKS = 12
SHARES = {  # of the variance behind each block, and what is done to a branch
    "batch norm": (1 / np.arange(2, BLOCKS + 2), lambda x, branch: branch(batch_norm(x))),
    "SkipInit, at the root of one over the depth": (
        np.full(BLOCKS, 1 / (BLOCKS + 1)),
        lambda x, branch: BLOCKS**-0.5 * branch(x),
    ),
    "nothing": (np.full(BLOCKS, 1 / 2), lambda x, branch: branch(x)),
}


@pytest.mark.parametrize("name", SHARES)
def test_batch_norm_and_skipinit_make_a_residual_branch_weigh_one_over_the_depth(name):
    """De & Smith 2020 (arXiv:2002.10444), sections 2 and 3: over the number of blocks before it, or
    over that of all; with neither each branch weighs a half."""
    width, batch = 512, 512
    keys = jax.random.split(jax.random.key(0), 2)
    kernels = he_normal(keys[0], BLOCKS, width, width)
    expected, through_branch = SHARES[name]

    def block(x, kernel):
        branch = through_branch(x, lambda x: nn.relu(x) @ kernel)
        return x + branch, branch.var() / (x + branch).var()

    x = jax.random.normal(keys[1], (batch, width))
    shares = np.asarray(jax.jit(lambda x, k: lax.scan(block, x, k))(x, kernels)[1])
    np.testing.assert_allclose(shares, expected, rtol=0.1)


@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_dropout_before_batch_norm_shifts_its_variance_by_the_share_that_is_kept(kept):
    """Li et al. 2019 (arXiv:1801.05134), section 3: Var in evaluation over Var in training is p."""
    x = jax.random.normal(jax.random.key(0), (200_000, 4))
    x = x - x.mean(axis=0, keepdims=True)
    dropout = nn.Dropout(1 - kept, deterministic=False)
    dropped = dropout.apply({}, x, rngs={"dropout": jax.random.key(1)})
    norm = BatchNorm(momentum=0.0)
    params, state = norm.init(4)
    _, state = norm.apply(params, state, dropped, train=True)
    y, _ = norm.apply(params, state, x, train=False)
    np.testing.assert_allclose(y.var(axis=0), kept, rtol=0.02)
    after = norm.apply(params, state, x, train=True)[1]
    y, _ = norm.apply(params, after, x, train=False)  # and statistics taken anew mend it
    np.testing.assert_allclose(y.var(axis=0), 1, rtol=1e-3)
