"""nGPT is the network of its paper and of its authors' code, and training keeps its spheres."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import normlab
from normlab.data.dataset import Dataset, Split
from normlab.errors import FieldError, UserError
from normlab.models import MLP, NGPT
from normlab.models.slots import parameter_role
from normlab.models.sphere import on_sphere
from normlab.norms import Identity, LayerNorm
from normlab.training.recipe import Recipe

WIDTH, HEADS, DEPTH = 8, 2, 2
KEPT = 1 / math.sqrt(WIDTH)


@pytest.fixture(autouse=True)
def standard():
    with jax.numpy_dtype_promotion("standard"):  # optimisers of optax mix dtypes
        yield


def network(**settings):
    fields = {"classes": WIDTH, "width": WIDTH, "depth": DEPTH, "heads": HEADS, **settings}
    return NGPT(norm=Identity(), **fields)


def on(x, axis=-1):
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(params, x, kept):
    """Compute the logits in float64, by the paper's equations (section 2 and table 1)."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    count = {}

    def take(kind):
        number = count.get(kind, 0)
        count[kind] = number + 1
        return p[f"{kind}_{number}"]

    def factors(start, kept):
        return take("Factors")["norm"]["scale"] * start / kept

    def kernel(kind):
        return take(kind)["kernel"]

    n, height, width, channels = x.shape
    squares = np.float64(x).reshape(n, height // 4, 4, width // 4, 4, channels)
    squares = squares.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, 16 * channels)
    tokens = squares @ kernel("ToSphere") / math.sqrt(16 * channels)
    tokens = np.concatenate([np.zeros((n, 1, WIDTH)), tokens], axis=1)
    h = on(tokens + take("PointsOnSphere")["embedding"])
    d = WIDTH // HEADS
    for _ in range(DEPTH):
        q, k, v = (h @ kernel("FromSphere") for _ in range(3))
        s_qk = factors(1.0, kept)
        y = np.zeros_like(q)
        for i in range(HEADS):
            part = slice(i * d, (i + 1) * d)
            one, other = (s_qk[part] * on(z[..., part]) for z in (q, k))
            weights = np.exp(math.sqrt(d) * one @ other.swapaxes(1, 2))
            y[..., part] = weights / weights.sum(-1, keepdims=True) @ v[..., part]
        h_a = on(y @ kernel("ToSphere"))
        h = on(h + np.abs(factors(0.05, kept)) * (h_a - h))
        u, v = h @ kernel("FromSphere"), h @ kernel("FromSphere")
        u, v = u * factors(1, 1), v * factors(1, 1) * math.sqrt(WIDTH)
        h_m = on((u * v * sigmoid(v)) @ kernel("ToSphere"))
        h = on(h + np.abs(factors(0.05, kept)) * (h_m - h))
    logits = h[:, 0] @ kernel("FromSphere") * factors(1.0, kept)
    assert sum(count.values()) == len(params), "all parameters are used"
    return logits


@pytest.mark.parametrize("kept", [None, 1.0])
def test_logits_are_those_of_the_equations(kept):
    made = network(classes=5, kept=kept)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    params = made.init(jax.random.key(0), x, train=False)["params"]
    noise = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.float32(0.3 * noise.standard_normal(leaf.shape)), params
    )
    expected = by_hand(params, x, kept or KEPT)
    found = made.apply({"params": params}, x, train=True)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


AUTHORS = [
    0.06508634697997998, 0.0011298464019407063, 0.06957527583583345, -0.034142760413541334,
    0.6585575570435437, -0.34246713570372445, -0.5854707177940048, -0.30983590401552946,
]  # fmt: skip
"""The first token after two blocks of the authors' class `Block` (github.com/NVIDIA/ngpt at
ed19eb2, model.py), in float64, with the weights below, without rotations and without a mask."""


def test_blocks_are_those_of_the_authors_code():
    noise = np.random.default_rng(7)
    made = network()
    x = noise.standard_normal((1, 4, 8, 3))

    def kernel(axis, *shape):
        return {"kernel": jnp.float32(on(noise.standard_normal(shape), axis))}

    def factors(low, high, count, kept=KEPT):
        return {"norm": {"scale": jnp.float32(noise.uniform(low, high, count) * kept)}}

    p = {"ToSphere_0": kernel(1, 48, WIDTH)}
    p["PointsOnSphere_0"] = {"embedding": kernel(1, 3, WIDTH)["kernel"]}
    for block in range(DEPTH):
        dense, number = 5 * block, 5 * block
        for i in range(3):
            p[f"FromSphere_{dense + i}"] = kernel(0, WIDTH, WIDTH)
        p[f"ToSphere_{1 + 2 * block}"] = kernel(1, WIDTH, WIDTH)
        for i in range(3, 5):
            p[f"FromSphere_{dense + i}"] = kernel(0, WIDTH, 4 * WIDTH)
        p[f"ToSphere_{2 + 2 * block}"] = kernel(1, 4 * WIDTH, WIDTH)
        p[f"Factors_{number}"] = factors(0.5, 1.5, WIDTH)
        p[f"Factors_{number + 1}"] = factors(-1, 3, WIDTH)  # the size of an alpha counts
        p[f"Factors_{number + 2}"] = factors(0.5, 1.5, 4 * WIDTH, 1)
        p[f"Factors_{number + 3}"] = factors(0.5, 1.5, 4 * WIDTH, 1)
        p[f"Factors_{number + 4}"] = factors(-1, 3, WIDTH)
    p["FromSphere_10"] = {"kernel": jnp.eye(WIDTH)}  # the logits are the token itself
    p["Factors_10"] = {"norm": {"scale": jnp.full(WIDTH, KEPT)}}
    found = made.apply({"params": p}, jnp.float32(x), train=False)
    np.testing.assert_allclose(found[0], AUTHORS, rtol=1e-4, atol=2e-6)


def spheres(params):
    """Return the lengths of all unit vectors, in float64, from the shapes of the paper."""
    found = []
    for name, layer in params.items():
        kind = name.rpartition("_")[0]
        if kind != "Factors":
            (leaf,) = layer.values()
            axis = 0 if kind == "FromSphere" else 1
            found.append(np.linalg.norm(np.asarray(leaf, np.float64), axis=axis))
    return np.concatenate(found)


def test_it_begins_on_the_sphere_with_the_factors_of_the_paper():
    params = network().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)["params"]
    np.testing.assert_allclose(spheres(params), 1, atol=1e-6)
    kept = [KEPT, KEPT, 1.0, 1.0, KEPT]
    for number in range(11):
        scale = params[f"Factors_{number}"]["norm"]["scale"]
        np.testing.assert_allclose(scale, kept[number % 5], rtol=1e-6)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    roles = {path[0].key.rpartition("_")[0]: parameter_role(path) for path, _ in leaves}
    assert roles == {
        "Factors": "norm", "FromSphere": "weight", "ToSphere": "weight", "PointsOnSphere": "weight",
    }  # fmt: skip


def data():
    noise = np.random.default_rng(0)
    labels = np.arange(32, dtype=np.int32) % 2
    images = np.where(labels[:, None, None, None] == 1, 160, 90) + noise.integers(
        0, 40, (32, 8, 8, 1)
    )
    split = Split(images.astype(np.uint8), labels)
    return Dataset("dark or light", split, split, ("dark", "light"))


def test_every_weight_is_on_the_sphere_after_every_step_of_training():
    seen = []

    def emit(event):
        if hasattr(event, "compiled"):
            seen.append(jax.tree.map(np.asarray, event.state.params))

    recipe = Recipe(epochs=6, batch_size=16, project="sphere", eval_every=100)
    made = network(classes=2)
    fitted = normlab.fit(made, data(), optax.adam(0.05), recipe, look_at=range(13), emit=emit)
    assert fitted.history[-1]["test_accuracy"] == 1.0
    assert len(seen) == 13
    for params in seen:
        np.testing.assert_allclose(spheres(params), 1, atol=2e-6)
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, seen[::12]), strict=True)]
    assert min(moved) > 1e-3, "every weight and every factor learns"


def test_the_projection_is_onto_the_axis_of_the_width():
    params = {
        "FromSphere_0": {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]])},
        "ToSphere_12": {"kernel": jnp.array([[3.0, 4.0], [0.0, 2.0]])},
        "Dense_0": {"kernel": jnp.array([[3.0, 4.0]])},
    }
    found = on_sphere(params)
    np.testing.assert_allclose(found["FromSphere_0"]["kernel"], [[0.6, 0], [0.8, 1]], rtol=1e-6)
    np.testing.assert_allclose(found["ToSphere_12"]["kernel"], [[0.6, 0.8], [0, 1]], rtol=1e-6)
    np.testing.assert_array_equal(found["Dense_0"]["kernel"], params["Dense_0"]["kernel"])


def test_training_without_the_projection_and_the_projection_without_a_sphere_are_refused():
    with pytest.raises(UserError, match=r"write train: \{project: sphere\}"):
        normlab.fit(network(classes=2), data(), optax.adam(0.1), Recipe(batch_size=16))
    other, recipe = MLP(norm=LayerNorm(), classes=2), Recipe(batch_size=16, project="sphere")
    with pytest.raises(UserError, match="such as model ngpt, and this one has none"):
        normlab.fit(other, data(), optax.adam(0.1), recipe)
    with pytest.raises(UserError, match="norm must be identity, found LayerNorm"):
        NGPT(norm=LayerNorm(), classes=2).init(
            jax.random.key(0), jnp.ones((1, 8, 8, 1)), train=False
        )
    with pytest.raises(FieldError, match="ema must be null with project: sphere"):
        Recipe(project="sphere", ema=0.9)
    for field, value in (("alpha", 0.0), ("kept", -1.0), ("heads", 3)):
        with pytest.raises(FieldError, match=field):
            network(**{field: value})


# At the start of training, by depth. For nearly orthogonal h and f(h) on the sphere a step with a
# part `a` has the length sqrt((1 - a)^2 + a^2) before it is brought back.


ALPHA = 0.1


@cache
def starts(depth):
    """Return the first token before the blocks and after them, and its gradient's length."""
    width = 256
    made = network(width=width, depth=depth, alpha=ALPHA, classes=width, heads=4, mlp_ratio=1)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    params = made.init(jax.random.key(1), x, train=False)["params"]
    params[f"FromSphere_{5 * depth}"] = {"kernel": jnp.eye(width)}  # logits are the token itself

    @jax.jit
    def last_and_gradient(places):
        def last(places):
            moved = {**params, "PointsOnSphere_0": {"embedding": places}}
            return made.apply({"params": moved}, x, train=False)

        out, pull = jax.vjp(last, places)
        probe = jax.random.normal(jax.random.key(2), out.shape)
        along = probe - (probe * out).sum(-1, keepdims=True) * out
        return out, jnp.linalg.norm(pull(along)[0][0])

    places = params["PointsOnSphere_0"]["embedding"]
    return np.asarray(places[0]), *map(np.asarray, last_and_gradient(places))


@pytest.mark.parametrize("depth", [2, 6])
def test_tokens_stay_on_the_sphere_and_turn_by_the_same_angle_at_each_branch(depth):
    start, out, _ = starts(depth)
    np.testing.assert_allclose(np.linalg.norm(out, axis=-1), 1, rtol=1e-5)
    one = (1 - ALPHA) / math.hypot(1 - ALPHA, ALPHA)  # the cosine of the angle of one branch
    np.testing.assert_allclose((out @ start).mean(), one ** (2 * depth), rtol=0.05)


def test_the_gradient_does_not_grow_or_vanish_with_the_depth():
    assert 0.7 < starts(6)[2] / starts(2)[2] < 1.4
