"""The Pallas kernels, interpreted by JAX, against float64; and lowered for a GPU."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.engine.process import set_by_normlab
from normlab.ops import kernels, pallas
from normlab.ops.layouts import Channels, Rows, Statistics

EPS = 1e-5
CASES = [
    ((37, 3, 20), Rows()),
    ((70, 33), Rows(centred=False)),
    ((4, 5, 7, 20), Channels((0, 1, 2), 20)),
    ((3, 5, 7, 20), Channels((1, 2), 5)),
    ((2, 5, 7, 20), Channels((1, 2), 1)),
    ((3, 5, 7, 20), Channels((1, 2), 20, centred=False)),
    ((2, 530, 70), Channels((1,), 70)),  # several programs for the positions, and for the channels
]
HOSTILE = [(0.0, 1.0), (1e4, 1e-2), (-3e3, 1.0)]


def drawn(shape, mean, deviation, dtype="float32"):
    rng = np.random.default_rng(0)
    x, dy = (
        jnp.asarray(v, dtype)
        for v in (mean + deviation * rng.standard_normal(shape), rng.standard_normal(shape))
    )
    scale, bias = (jnp.asarray(rng.standard_normal(shape[-1]), jnp.float32) for _ in range(2))
    return x, dy, scale, bias


@partial(jax.jit, static_argnums=0)
def interpreted(layout, x, dy, scale, bias, moved=0.0):
    """Compute output, gradients and statistics, whose own gradient is `moved`, by the kernels."""
    plain = partial(kernels._in_jax, layout, EPS)
    y, statistics = pallas.forward(layout, EPS, x, scale, bias, plain, interpret=True)
    cotangents = dy, Statistics(*(jnp.full_like(value, moved) for value in statistics))
    plain = partial(kernels._cotangent_in_jax, layout, EPS, True)
    kept = x, scale, statistics
    found = pallas.cotangent(layout, EPS, True, kept, cotangents, plain, interpret=True)
    return (y, *found), statistics


def expected(layout, x, dy, scale, bias):
    """Compute output and gradients in float64."""
    x, dy, scale, bias = (np.asarray(v, np.float64) for v in (x, dy, scale, bias))
    shape, groups = x.shape, getattr(layout, "groups", 1)
    x = x.reshape(*shape[:-1], groups, -1)
    shared = (*getattr(layout, "axes", ()), x.ndim - 1)
    mean = x.mean(shared, keepdims=True) if layout.centred else 0
    root = 1 / np.sqrt(((x - mean) ** 2).mean(shared, keepdims=True) + EPS)
    z, g = (x - mean) * root, (dy * scale).reshape(x.shape)
    dx = g - z * (g * z).mean(shared, keepdims=True)
    dx = root * (dx - (g.mean(shared, keepdims=True) if layout.centred else 0))
    z, leading = z.reshape(shape), tuple(range(len(shape) - 1))
    return z * scale + bias, dx.reshape(shape), (dy * z).sum(leading), dy.sum(leading)


@pytest.mark.parametrize("shape, layout", CASES)
@pytest.mark.parametrize("mean, deviation", HOSTILE)
def test_output_and_gradients_are_exact_at_any_mean(shape, layout, mean, deviation):
    given = drawn(shape, mean, deviation)
    pairs = zip(interpreted(layout, *given)[0], expected(layout, *given), strict=True)
    for found, true in pairs:
        np.testing.assert_allclose(found, true, atol=3e-6 * np.abs(true).max(), rtol=0)


@pytest.mark.parametrize(
    "shape, layout, dtype",
    [
        (*CASES[0], "bfloat16"),
        pytest.param(*CASES[0], "float16", marks=pytest.mark.thorough),
        pytest.param(*CASES[3], "bfloat16", marks=pytest.mark.thorough),
    ],
)
def test_half_precision_is_rounded_once(shape, layout, dtype):
    given = drawn(shape, 3.0, 2.0, dtype)
    (y, dx, *_), _ = interpreted(layout, *given)
    true = expected(layout, *given)
    step = float(jnp.finfo(dtype).eps)
    for found, exact in ((y, true[0]), (dx, true[1])):
        assert found.dtype == dtype
        limit = 0.51 * step * np.abs(exact) + 1e-5 * np.abs(exact).max()
        assert (np.abs(np.asarray(found, np.float64) - exact) <= limit).all()


@pytest.mark.parametrize("shape, layout", [case for case in CASES if case[1].centred])
def test_a_constant_comes_out_as_the_bias(shape, layout):
    _, dy, scale, bias = drawn(shape, 0.0, 1.0)
    (y, *_), statistics = interpreted(layout, jnp.full(shape, 0.1), dy, scale, bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias, shape))
    np.testing.assert_array_equal(statistics.variance, 0)


@pytest.mark.parametrize("shape, layout", [CASES[0], CASES[3]])
def test_the_statistics_hand_on_their_gradients(shape, layout):
    x, dy, scale, bias = drawn(shape, 1.0, 2.0)
    (_, *found), statistics = interpreted(layout, x, dy, scale, bias, 0.5)
    moved = Statistics(*(jnp.full_like(value, 0.5) for value in statistics))
    true = kernels._cotangent_in_jax(layout, EPS, True, (x, scale, statistics), (dy, moved))
    limit = 2e-6 * float(jnp.abs(true[0]).max())
    np.testing.assert_allclose(found[0], true[0], atol=limit, rtol=0)


@contextlib.contextmanager
def as_if_on_a_gpu():
    """Let JAX lower for a GPU that this machine lacks; its older versions need not be told."""
    kind = getattr(jax.sharding, "AbstractDevice", None)
    if kind is None or "platform" not in kind.__dataclass_fields__:
        yield
        return
    device = kind(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        yield


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("shape, layout", [CASES[0], CASES[3]])
def test_the_kernels_become_programs_for_a_gpu(shape, layout):
    x, dy, scale, bias = drawn(shape, 0.0, 1.0)
    kind = "rows" if isinstance(layout, Rows) else "columns"
    run, back = (getattr(pallas, f"_{kind}_{way}") for way in ("forward", "cotangent"))

    def both(x, dy, scale, bias):
        y, found = run(layout, EPS, False, x, scale, bias)
        return y, back(layout, EPS, True, False, (x, scale, found), (dy, found))

    with as_if_on_a_gpu():
        lowered = jax.jit(both).trace(x, dy, scale, bias).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("triton") >= 2


def test_they_serve_on_a_gpu_alone_and_only_when_asked_for(monkeypatch):
    x = jnp.zeros((1024, 64))
    assert not pallas.serves(Rows(), x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert not pallas.serves(Rows(), x)
    monkeypatch.setenv(pallas.SETTING, pallas.ASKED)
    assert pallas.serves(Rows(), x) and not pallas.serves(Rows(), x[:8])
    assert not pallas.serves(Rows(), x.astype(int))
    monkeypatch.setattr("normlab.training.compiler._wanted", dict)
    assert "not measured" in set_by_normlab()[pallas.NAME]
