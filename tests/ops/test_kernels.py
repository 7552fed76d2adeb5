"""The fast kernels: what the contract of all normalisers does not already ask of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import normlab
from normlab.ops.kernels import normalised, scaled, statistics
from normlab.ops.layouts import Channels, Rows
from normlab.ops.linear import linear

pytestmark = pytest.mark.usefixtures("as_users_compile")

FUNCTIONS = {
    "batch": normlab.batch_norm,
    "layer": normlab.layer_norm,
    "layer_image": normlab.layer_norm_image,
    "group": lambda x, scale, bias: normlab.group_norm(x, scale, bias, groups=2),
    "instance": normlab.instance_norm,
    "rms": normlab.rms_norm,
}
LAYOUTS = [Channels((0, 1, 2), 6), Channels((1, 2), 3), Channels((1, 2), 1), Rows()]


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_replicated_parameters_are_summed_over_shards(name):
    function = FUNCTIONS[name]
    x, scale, bias = random(4, 3, 3, 6), 1 + random(6, seed=1), random(6, seed=2)

    def loss(x, scale, bias):
        return jnp.sum(jnp.sin(function(x, scale, bias)))

    mesh = Mesh(np.array(jax.devices()[:2]), ("shards",))
    sharded = jax.shard_map(
        lambda *arguments: jax.lax.psum(loss(*arguments), "shards"),
        mesh=mesh,
        in_specs=(P("shards"), P(), P()),
        out_specs=P(),
    )
    found = jax.jit(jax.grad(sharded, (0, 1, 2)))(x, scale, bias)
    true = jax.grad(lambda x, *affine: loss(x[:2], *affine) + loss(x[2:], *affine), (0, 1, 2))(
        x, scale, bias
    )
    for one, other in zip(found, true, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if "backend_compile" in event else None
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_outside_of_jit_a_second_call_compiles_nothing(name):
    """A notebook calls them so; a `lax.cond` there is compiled at every call."""
    x, scale = jnp.asarray(random(4, 5, 5, 6)), jnp.ones(6)

    def call():
        FUNCTIONS[name](x, scale, None)
        jax.grad(lambda x: FUNCTIONS[name](x, scale, None).sum())(x)

    call()
    assert COMPILED
    COMPILED.clear()
    call()
    assert not COMPILED


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_cheap_statistics_and_the_exact_ones_agree_where_both_serve(layout, monkeypatch):
    x = 1 + random(4, 5, 5, 6)
    traced_anew = normalised.__wrapped__
    monkeypatch.setattr("normlab.ops.layouts.WELL_CENTRED", 20.0)  # of six values, some are not
    cheap = traced_anew(layout, 1e-5, x, None, None)
    monkeypatch.setattr("normlab.ops.layouts.WELL_CENTRED", 0.0)
    exact = traced_anew(layout, 1e-5, x, None, None)
    assert np.any(exact[1].shift != 0) and not np.any(cheap[1].shift)
    np.testing.assert_allclose(cheap[0], exact[0], atol=3e-6)
    np.testing.assert_allclose(cheap[1].variance, exact[1].variance, rtol=3e-6)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_one_badly_centred_statistic_makes_all_exact(layout):
    x = random(4, 5, 5, 6)
    x[0] += 1e4
    y, statistics = normalised(layout, 1e-5, x, None, None)
    wide = x.astype(np.float64)
    axes = (3,) if isinstance(layout, Rows) else layout.axes
    if isinstance(layout, Channels) and layout.groups < 6:
        grouped = wide.reshape(4, 5, 5, layout.groups, -1)
        axes, wide = (1, 2, 4), grouped
    true = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, true.reshape(x.shape), atol=2e-3 if axes == (0, 1, 2) else 2e-5)
    assert np.all(np.asarray(statistics.variance) >= 0)


@pytest.mark.parametrize("mean", [0.0, 1e3])
@pytest.mark.parametrize("layout", [*LAYOUTS, Channels((1, 2), 3, centred=False)], ids=str)
def test_statistics_and_scaled_have_the_derivatives_of_their_formulas(layout, mean):
    """Both orders, forward and reverse mode, the cheap sums and the exact ones are checked."""

    def halves(x, slope, level):
        about = statistics(layout, x)
        return scaled(x, about, slope * jax.lax.rsqrt(about.variance + 1), level * about.variance)

    def formulas(x, slope, level):
        mean = layout.mean(x) if layout.centred else jnp.zeros_like(layout.mean(x))
        variance = layout.mean((x - mean) ** 2)
        return (x - mean) * slope / jnp.sqrt(variance + 1) + level * variance

    with jax.enable_x64(True):
        shapes = (3, 4, 5, 6), (3, 1, 1, 6), (1, 1, 1, 6)
        values = [jnp.asarray(random(*shape, seed=i), float) for i, shape in enumerate(shapes)]
        moves = [jnp.asarray(random(*shape, seed=9 + i), float) for i, shape in enumerate(shapes)]
        values[0] = values[0] + mean

        def derivatives(f):
            def loss(*arrays):
                return jnp.sum(jnp.sin(f(*arrays)))

            slopes = jax.grad(loss, (0, 1, 2))
            forward = jax.jvp(slopes, tuple(values), tuple(moves))

            def along(*arrays):
                return sum(jnp.vdot(a, b) for a, b in zip(slopes(*arrays), moves, strict=True))

            return *forward, jax.grad(along, (0, 1, 2))(*values)

        found, true = jax.jit(lambda: (derivatives(halves), derivatives(formulas)))()
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("channels", [7, 16, 48, 384, 1000])
def test_a_constant_of_few_digits_is_zero_whatever_the_mean_is_divided_by(channels):
    """Rows in bfloat16 have a way of their own where XLA's 1 / channels gives constants back."""
    digits = np.arange(128, 256)[:, None] * 2.0 ** np.arange(-4, 8, 4)[:, None, None]
    x = jnp.asarray(np.broadcast_to(digits, (3, 128, channels)), jnp.bfloat16)
    for sign in (-1, 1):
        y = jax.jit(normlab.layer_norm)(sign * x, None, None)
        assert not np.asarray(y, np.float32).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["batch", "layer", "group", "rms"])
def test_the_backward_keeps_no_more_than_flax_does(name, dtype):
    x = jnp.asarray(random(8, 6, 6, 16), dtype)
    affine = jnp.ones(16), jnp.zeros(16)
    peers = {
        "batch": nn.BatchNorm(use_running_average=False, dtype=dtype),
        "layer": nn.LayerNorm(dtype=dtype),
        "group": nn.GroupNorm(num_groups=2, dtype=dtype),
        "rms": nn.RMSNorm(dtype=dtype),
    }
    peer = peers[name]

    def kept(function, *arguments):
        leaves = jax.tree.leaves(jax.vjp(function, *arguments)[1])
        return sum({id(leaf): leaf.nbytes for leaf in leaves}.values())

    def flax(x, params):
        return peer.apply({**variables, "params": params}, x, mutable=["batch_stats"])[0]

    with jax.numpy_dtype_promotion("standard"):  # flax asks for it
        variables = peer.init(jax.random.key(0), x)
        peers_bytes = kept(flax, x, variables["params"])
    assert kept(FUNCTIONS[name], x, *affine) <= peers_bytes


def test_a_linear_map_has_the_transpose_it_is_given():
    def forward(k, t):
        return {"product": k * t}

    def transpose(k, cotangent):
        return -k * cotangent["product"]  # wrong on purpose, so that it can be told from JAX's

    def f(k, t):
        return linear(forward, transpose, k, t)["product"]

    k, t = jnp.array(3.0), jnp.array(2.0)
    assert f(k, t) == 6
    assert jax.jvp(lambda t: f(k, t), (t,), (t,))[1] == 6
    assert jax.grad(lambda t: f(k, t))(t) == -3
    assert jax.jit(jax.grad(lambda t: f(k, t)))(t) == -3
    assert jax.grad(lambda k: f(k, t))(k) == 2  # of the residuals, as JAX derives it
    assert jax.vmap(f, (0, None))(jnp.stack([k, 2 * k]), t).tolist() == [6, 12]
    assert jax.vmap(f, (None, 0), 0)(k, jnp.stack([t, 2 * t])).tolist() == [6, 12]
