"""At the start of training, signals and gradients grow with the depth as the papers derive.

A branch is a chain of linear layers whose random kernels keep the variance, so that the equations
hold exactly for wide layers.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import PLACEMENTS
from normlab.models import Vit
from normlab.norms import LayerNorm
from normlab.placements import (
    V1,
    V2,
    AfterAddition,
    Branch,
    DeepNorm,
    HybridNorm,
    HybridNormStar,
    Keel,
    LayerNormScaling,
    MixLN,
    NormFormer,
    Peri,
    Post,
    Pre,
    Sandwich,
    SpanNorm,
    SubLN,
    V1ActNorm,
    V2ActNorm,
)

WIDTH = 512


def normal(x):
    """Normalise to variance 1 in the arithmetic of `x`."""
    x = x - x.mean(-1, keepdims=True)
    return x / (x**2).mean(-1, keepdims=True) ** 0.5


@dataclass
class Tokens:
    """A block whose branches are linear; `larger` multiplies their kernels."""

    depth: int
    number: int = 1
    gains: tuple = (1.0, 1.0, 1.0, 1.0)
    larger: float = 1.0
    stopped: bool = False
    noise: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def norm(self, x):
        return normal(x)

    def layer(self, x, gain):
        kernel = self.noise.standard_normal((WIDTH, WIDTH)) / math.sqrt(WIDTH)
        return x @ (gain * self.larger * kernel)

    def chain(self, x, first, last, inner):
        y = self.layer(x, first)
        y = self.layer(y if inner is None else inner(y), last)
        return jax.lax.stop_gradient(y) if self.stopped else y

    def attention(self, x, *, qkv=None, heads=None, inner=None):
        x = x if heads is None else heads(x)
        if qkv is not None:  # values of variance 1, whatever the kernel
            return self.layer(qkv(self.layer(x, self.gains[0])), self.gains[1])
        return self.chain(x, self.gains[0], self.gains[1], inner)

    def mlp(self, x, *, inner=None):
        return self.chain(x, self.gains[2], self.gains[3], inner)

    def by_head(self, x):
        return x


def variances(placement, depth, larger=1.0):
    """Compute the variance of the tokens before the first block and after each."""
    noise = np.random.default_rng(1)
    x = placement.start(normal(noise.standard_normal((8, WIDTH))), normal)
    found = [x.var()]
    for number in range(1, depth + 1):
        gains = placement.gains(depth)
        x = placement.block(x, Tokens(depth, number, gains, larger, noise=noise))
        found.append(x.var())
    return np.array(found)


BLOCK = np.arange(9)
HARMONIC = np.array([sum(1 / n for n in range(1, block + 1)) for block in BLOCK])

EXPECTED = {
    Pre: 1 + 2 * BLOCK,  # linear: each branch adds 1 (Xiong et al. 2020, lemma 2)
    Post: np.ones(9),
    Sandwich: 1 + 2 * BLOCK,
    Peri: 1 + 2 * BLOCK,
    SubLN: 1 + 2 * BLOCK * math.log(16),  # the last kernel has gain^2 = log(2 * 8)
    NormFormer: 1 + 2 * BLOCK,
    HybridNorm: np.where(BLOCK == 0, 1, 2),  # norm(y) + mlp(norm(y))
    HybridNormStar: np.array([1, 3, *[2] * 7]),
    MixLN: np.array([1, 1, 1, 3, 5, 7, 9, 11, 13]),  # a quarter of eight blocks is post-norm
    LayerNormScaling: 1 + 2 * HARMONIC,  # logarithmic: block l adds 2 / l
    DeepNorm: np.ones(9),
    SpanNorm: np.ones(9),
    Keel: np.ones(9),
}


def test_every_placement_is_here():
    known = {entry.load() for entry in PLACEMENTS.entries().values()}
    assert known == {*EXPECTED, *MEAN_SQUARES, AfterAddition, V1, V1ActNorm}


@pytest.mark.parametrize("kind", EXPECTED)
def test_variance_grows_with_the_depth_as_derived(kind):
    np.testing.assert_allclose(variances(kind(), 8), EXPECTED[kind], rtol=0.12)


@pytest.mark.parametrize("kind", [Peri, Sandwich, Post, Keel, SpanNorm])
def test_larger_kernels_let_pre_norm_explode_and_not_those_with_a_norm_behind(kind):
    """Peri-LN, section 3: the bound does not depend on the kernels; pre-norm's does."""
    assert variances(Pre(), 8, larger=3.0)[-1] > 1000
    np.testing.assert_allclose(variances(kind(), 8, larger=3.0)[-1], EXPECTED[kind][-1], rtol=0.12)


def test_layer_norm_scaling_grows_as_the_logarithm():
    grown = [variances(LayerNormScaling(), depth)[-1] - 1 for depth in (4, 16)]
    assert grown[1] / grown[0] == pytest.approx(3.380729 / 2.083333, rel=0.1)


def along_the_shortcuts(placement, depth):
    """Compute by how much the shortcuts alone change the gradient from the last block to the first.

    The branches' outputs count as constants, which is how the papers split the gradient.
    """
    probe = jax.random.normal(jax.random.key(2), (WIDTH,))

    def through(x):
        noise = np.random.default_rng(3)
        for number in range(1, depth + 1):
            gains = placement.gains(depth)
            x = placement.block(x, Tokens(depth, number, gains, stopped=True, noise=noise))
        return x @ probe

    x = normal(jax.random.normal(jax.random.key(4), (WIDTH,)))
    return float(jnp.linalg.norm(jax.grad(through)(x)) / jnp.linalg.norm(probe))


ALPHA, BETA = (2 * 6) ** 0.25, (8 * 6) ** -0.25
SHORTCUTS = {
    Pre: 1.0,
    Peri: 1.0,
    LayerNormScaling: 1.0,
    Post: 2.0**-6,  # two normalisers a block, each of a sum with variance 2
    DeepNorm: (ALPHA**2 / (ALPHA**2 + BETA**4)) ** 6,
    SpanNorm: (1 + 1 / 6) ** -3,  # one normaliser a block, of a sum with variance 1 + 1 / depth
    Keel: (1 + 1 / 12**2) ** -6,
}


@pytest.mark.parametrize("kind", SHORTCUTS)
def test_post_norm_loses_the_gradient_along_the_shortcuts_and_its_cures_do_not(kind):
    assert along_the_shortcuts(kind(), 6) == pytest.approx(SHORTCUTS[kind], rel=0.1)


# Residual networks of convolutions, with kernels that keep the mean square after a ReLU (He).


@dataclass
class Images:
    noise: np.random.Generator
    changes: bool = False

    def norm(self, x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)  # a channel may be dead

    def act(self, x):
        return np.maximum(x, 0)

    def norm_act(self, x):
        return self.act(self.norm(x))

    def act_norm(self, x):
        return self.norm(self.act(x))

    def first(self, x):
        return x @ (self.noise.standard_normal((256, 256)) * math.sqrt(2 / 256))

    second = first

    def shortcut(self, x, *, normed):
        return x


def mean_squares(placement, blocks=8):
    noise = np.random.default_rng(0)
    x = placement.start(noise.standard_normal((512, 256)), Images(noise))
    found = [np.mean(x**2)]
    for _ in range(blocks):
        x = placement.block(x, Images(noise))
        found.append(np.mean(x**2))
    return np.array(found)


MEAN_SQUARES = {
    V2: 1 + BLOCK,  # a branch adds what He's kernels make of an activation: 1
    Branch: 1 + BLOCK,
    V2ActNorm: 1 + 2 * BLOCK,  # kernels see variance 1 instead of half, so a branch adds 2
}


@pytest.mark.parametrize("kind", MEAN_SQUARES)
def test_the_mean_square_of_images_grows_as_derived(kind):
    np.testing.assert_allclose(mean_squares(kind()), MEAN_SQUARES[kind], rtol=0.1)


@pytest.mark.parametrize("kind", [V1, V1ActNorm])
def test_activations_after_the_addition_grow_slower_than_linearly(kind):
    found = mean_squares(kind())
    assert np.all(np.diff(found) > 0) and np.all(np.diff(found) < 1.2)


def test_a_norm_after_the_addition_keeps_the_mean_square():
    """It is at most 1, because the rest is cut off by the activation; half for symmetric values."""
    found = mean_squares(AfterAddition())
    assert found[0] == pytest.approx(0.5, rel=0.05) and np.all(found < 0.75)


# The transformer itself.


def test_the_transformer_grows_with_its_depth_under_pre_norm_and_not_under_post_norm():
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))

    def last(placement):
        made = Vit(norm=LayerNorm(), classes=2, width=64, depth=8, placement=placement)
        seen, end = [], type(placement).end
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                type(placement),
                "end",
                lambda self, x, norm: (seen.append(x), end(self, x, norm))[1],
            )
            made.init(jax.random.key(1), x, train=False)
        return float(seen[0].var())

    assert last(Pre()) > 3 and last(Post()) == pytest.approx(1, rel=0.05)
    assert last(LayerNormScaling()) < last(Pre()) < last(SubLN())
