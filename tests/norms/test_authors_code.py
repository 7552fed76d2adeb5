"""Entries give the numbers that their authors' own code gave. It was run once, and is not here.

The code was run in float64 on the input `X`. A fact of an entry says that it is held to it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import normlab
from normlab import norms
from normlab.catalogue import NORMS

X = [[0.0, 1.0, 2.0, 8.0], [1.0, 0.0, -3.0, 4.0], [6.0, 2.0, 2.0, 0.5], [-2.0, 0.5, 1.0, 1.0]]
TINY = {"eps": 1e-12}

HERE = {
    "compressed_rms_norm", "kernel_norm", "normality_batch_norm", "normality_group_norm",
    "normality_layer_norm", "progressive_batch_norm", "proxy_group_norm",
}  # fmt: skip
"""The three of normality normalisation differ in the normaliser before it alone."""


def test_the_entries_that_say_so_are_here():
    found = {name for name, one in NORMS.entries().items() if one.told.get("held_to") == "code"}
    assert found == HERE


def test_compressed_rms_norm():
    """Jiang et al., github.com/ZixuanJiang/pre-rmsnorm-transformer at 025d43a, `crms_norm`."""
    expected = [
        [0.0, 0.1622213998, 0.3244427996, 1.2977711983],
        [0.4082479503, 0.0, -1.2247438508, 1.632991801],
        [1.079373974, 0.3597913233, 0.3597913233, 0.0899478308],
        [-1.7541092921, 0.4385273232, 0.877054646, 0.877054646],
    ]
    np.testing.assert_allclose(normlab.compressed_rms_norm(jnp.array(X)), expected, rtol=2e-6)


WARM, HALF, LESS, LEAST, EVALUATED = (
    [0.19999984, 0.6000003, -0.6999994, 0.3999989],
    [0.203795209, -0.291602409, -1.922747098, 1.304621125],
    [0.360994085, -0.514508253, -2.697186042, 2.155777056],
    [0.205692893, -0.737403774, -2.534120927, 1.756932248],
    [0.353736660, -0.298009981, -3.015412171, 3.039204250],
)


def test_progressive_batch_norm():
    """Guo et al., github.com/xinghaochen/SLAB at f58db00, `LinearNorm` of `LayerNorm` and `RepBN`.

    Four steps of training, the third of twice the input, and an evaluation: the second row. torch's
    running variance is unbiased, and begins at one.
    """
    norm = norms.ProgressiveBatchNorm(warm_up=1, fade=4, start=0.5)
    _, state = norm.init(4)
    params = {
        "scale": [0.5, 1, 2, 1], "bias": [0, 0, 1, 1], "eta": 0.25,
        "layer_scale": [1, 2, 0.5, 1], "layer_bias": [0, 1, 0, -1],
    }  # fmt: skip
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    x = jnp.array(X)
    for step, expected in enumerate([WARM, HALF, LESS, LEAST]):
        y, state = norm.apply(params, state, 2 * x if step == 2 else x, train=True)
        np.testing.assert_allclose(y[1], expected, rtol=2e-5)
    np.testing.assert_allclose(state["mean"], [0.45125, 0.315875, 0.1805, 1.218375], rtol=1e-6)
    begun = 0.9**3
    state["variance"] = begun + (state["variance"] - begun) * 4 / 3
    y, _ = norm.apply(params, state, x, train=False)
    np.testing.assert_allclose(y[1], EVALUATED, rtol=2e-5)


def test_kernel_norm_and_its_convolution():
    """Nasirigerdeh et al., github.com/reza-nasirigerdeh/norm-torch at fa33da5, without dropout.

    `KernelNorm2d` with windows of 2 and a stride of 2, and `KNConv2d` with a padding of 1.
    """
    x = jnp.array(X).reshape(1, 4, 4, 1)
    expected = [
        [-0.9999800006, 0.9999800006, -0.1893582606, 1.325507824],
        [0.9999800006, -0.9999800006, -1.4517466644, 0.315597101],
        [1.5075558279, 0.129219071, 1.6058830909, -1.1470593507],
        [-1.2491176859, -0.3876572129, -0.2294118701, -0.2294118701],
    ]
    found = normlab.kernel_norm(x, window=2)[0, :, :, 0]
    np.testing.assert_allclose(found, expected, rtol=5e-6)
    kernel = jnp.array([[1.0, 2.0], [-1.0, 0.5]]).reshape(2, 2, 1, 1)
    found = normlab.kernel_norm_convolution(x, kernel, jnp.array([0.25]), padding=1)[0, :, :, 0]
    expected = [
        [0.25, -0.0386674369, -2.0113186384, -1.0462372449, -3.5027751861],
        [-0.0386674369, -0.2499900003, 2.120826021, 4.3212026024, -0.8052892263],
        [0.5012592511, -3.9759199364, -3.4761636037, 0.6652518563, 0.6610885661],
        [3.0833317593, 3.0712830493, 4.195180082, -0.323529675, -3.2172795978],
        [-2.9254053112, 0.1849058976, 4.0187821715, 3.7499300021, 1.1160023107],
    ]
    # In a window of zeros the digits that the shift costs are multiplied by the root of 1 / eps.
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=5e-5)


@pytest.mark.parametrize(
    ("activation", "mean", "factor"),
    [("relu", 0.39845117338, 1.64837330368), ("silu", 0.20604836509, 1.71497667190)],
)
def test_the_proxy_begins_as_in_the_authors_code(activation, mean, factor):
    """Labatie et al., github.com/graphcore/examples at b30108f, `proxy_initialiser`, 200 samples.

    What is subtracted and what multiplies. Their step of training is written for an old TensorFlow
    and was read, not run.
    """
    norm = norms.ProxyGroupNorm(groups=1, samples=200, activation=activation, **TINY)
    params, state = norm.init(4)
    x = jnp.array(X)
    y, _ = norm.apply(params, state, x, train=True)
    act = {"relu": jax.nn.relu, "silu": jax.nn.silu}[activation]
    expected = (act(normlab.layer_norm_image(x, eps=1e-12)) - mean) * factor
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-6)


def test_normality_normalisation():
    """Eftekhari & Papyan, github.com/DanielEftekhari/normality-normalization at a146bd5.

    It was run with an eps of 1e-12, whose root it adds to exponents, and without noise.
    """
    x = jnp.array(X)
    norm = norms.NormalityBatchNorm(momentum=0.9, **TINY)
    params, state = norm.init(4)
    weights = jnp.arange(16.0).reshape(4, 4)

    def loss(x):
        y, moved = norm.apply(params, state, x, train=True)
        return (y * weights).sum(), (y, moved)

    slope, (y, moved) = jax.grad(loss, has_aux=True)(x)
    wanted = [
        [-0.4963538, 0.1628019, 1.2760692, 1.0571272],
        [-0.0877613, -1.4643739, -0.6969411, 0.1946966],
        [1.0468321, 1.1925669, 1.2760692, -1.2847848],
        [-1.5770071, -0.5631345, 0.2974303, -1.0172322],
    ]
    np.testing.assert_allclose(y, wanted, rtol=5e-6)
    power = [0.9177986, 0.9528540, 1.1759806, 0.9256280]
    np.testing.assert_allclose(moved["power"], power, rtol=5e-6)
    wanted = [
        [0.2196253, 3.9668236, -9.1441497, -1.5475614],
        [3.8055495, -16.0390202, -2.0328986, 3.0862662],
        [-1.4819874, -6.6686146, 1.0125554, -3.148263],
        [-2.5431874, 18.7408112, 10.1644929, 1.6095583],
    ]
    np.testing.assert_allclose(slope, wanted, atol=2e-5)
    layer = norms.NormalityLayerNorm(**TINY)
    wanted = [
        [-1.5798031, -0.8315233, -0.2879649, 0.7618089],
        [0.2, -0.2, -1.4000007, 1.4000007],
        [0.9335588, -0.3574995, -0.3574995, -1.6460077],
        [-0.6515407, 0.3969817, 1.2811835, 1.2811835],
    ]
    np.testing.assert_allclose(layer.apply(*layer.init(4), x, train=True)[0], wanted, rtol=5e-6)
