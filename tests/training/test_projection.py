"""Projected weights keep the norm that they had at the start, and the effective rate with it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.errors import FieldError, UserError
from normlab.models import MLP, Convnet, Resnet
from normlab.norms import BatchNorm, GroupNorm, Identity, LayerNorm
from normlab.probes import Updates, look
from normlab.training.optimizer import with_recipe
from normlab.training.projection import groups_of, projected
from normlab.training.recipe import Recipe


@pytest.fixture(autouse=True)
def standard():
    with jax.numpy_dtype_promotion("standard"):  # optimisers of optax mix dtypes
        yield


def network():
    made = Convnet(norm=GroupNorm(groups=2), classes=3, widths=(4, 4), layers=1)
    x = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    params = made.init(jax.random.key(1), x, train=False)["params"]
    return made, x, jnp.arange(8) % 3, params


def trained(which, steps=3, optimizer=None, **recipe):
    """Take steps; return the parameters before, and after each step."""
    made, x, y, params = network()
    tool = with_recipe(optimizer or optax.adam(0.05), Recipe(project=which, **recipe))

    def loss(params):
        logits = made.apply({"params": params}, x, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params, state):
        updates, state = tool.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    found, state = [params], tool.init(params)
    for _ in range(steps):
        params, state = step(params, state)
        found.append(params)
    return found


def norms(params):
    """Compute every norm that might be kept, in float64."""
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    kernels = {name: np.linalg.norm(v) for name, v in flat.items() if name.endswith("kernel")}
    pairs = {
        name: np.hypot(np.linalg.norm(v), np.linalg.norm(flat[name[: -len("scale")] + "bias"]))
        for name, v in flat.items()
        if name.endswith("norm/scale")
    }
    return kernels, pairs


@pytest.mark.parametrize("which", ["weights", "weights_and_scales"])
@pytest.mark.parametrize(
    "optimizer", [optax.sgd(0.3, momentum=0.9), optax.adamw(0.05), optax.contrib.muon(0.05)]
)
def test_after_every_step_the_norm_of_each_projected_weight_is_what_it_was(which, optimizer):
    start, *later = trained(which, optimizer=optimizer)
    kernels, pairs = norms(start)
    assert len(kernels) == 3 and len(pairs) == 2
    for params in later:
        now, scales = norms(params)
        for name, norm in kernels.items():
            same = abs(now[name] / norm - 1) < 1e-5
            assert same == (name != "Dense_0/kernel"), name  # the head moves freely
        for name, norm in pairs.items():
            assert (abs(scales[name] / norm - 1) < 1e-5) == (which == "weights_and_scales"), name


def test_without_it_norms_move_and_so_they_do_in_the_head():
    start, *_, last = trained(None)
    kernels, _ = norms(start)
    now, _ = norms(last)
    assert all(abs(now[name] / norm - 1) > 1e-4 for name, norm in kernels.items())


def test_a_step_is_the_optimisers_followed_by_a_projection():
    start, plain, *_ = trained(None, steps=1)
    _, found, *_ = trained("weights", steps=1)
    for layer in ("Conv_0", "Conv_1"):
        before, after = (np.float64(p[layer]["kernel"]) for p in (start, plain))
        expected = after * np.linalg.norm(before) / np.linalg.norm(after)
        np.testing.assert_allclose(found[layer]["kernel"], expected, rtol=1e-5, atol=1e-7)
    for name in ("Dense_0", "NormAct_0"):
        jax.tree.map(np.testing.assert_array_equal, found[name], plain[name])


def test_a_scale_and_its_bias_share_one_norm_and_keep_their_direction():
    start, plain, *_ = trained(None, steps=1)
    _, found, *_ = trained("weights_and_scales", steps=1)
    before, after, kept = (
        np.concatenate([np.float64(one) for one in jax.tree.leaves(p["NormAct_0"])])
        for p in (start, plain, found)
    )
    assert np.linalg.norm(before) == 2.0  # four ones and four zeros
    np.testing.assert_allclose(kept, after * 2 / np.linalg.norm(after), rtol=1e-5, atol=1e-7)


def test_the_effective_learning_rate_stays_and_falls_without():
    """Layers before a normaliser have the effective rate rate / |w|^2 under SGD."""
    made, x, y, _ = network()

    def rates(which):
        found = trained(which, steps=20, optimizer=optax.sgd(0.5))
        return [
            np.asarray(
                look(made, {"params": params}, x, y, [Updates()], optimizer=optax.sgd(0.5),
                     train=True)["updates"]["effective_learning_rate"].values
            )[:2]
            for params in (found[0], found[-1])
        ]  # fmt: skip

    before, after = rates("weights")
    np.testing.assert_allclose(after, before, rtol=1e-3)
    before, after = rates(None)
    assert np.all(after < before)


def test_a_kernel_of_zeros_is_left_alone():
    tool = projected(optax.sgd(1.0), "weights")
    params = {"Conv_0": {"kernel": jnp.zeros(2)}, "Dense_0": {"kernel": jnp.ones(2)}}
    updates, _ = tool.update(jax.tree.map(jnp.ones_like, params), tool.init(params), params)
    np.testing.assert_array_equal(updates["Conv_0"]["kernel"], -jnp.ones(2))


def test_averaged_weights_are_those_of_the_projected_steps():
    tool = with_recipe(optax.sgd(1.0), Recipe(project="weights", ema=0.5))
    params = {"Conv_0": {"kernel": jnp.array([3.0, 4.0])}, "Dense_0": {"kernel": jnp.ones(2)}}
    grads = {"Conv_0": {"kernel": jnp.array([3.0, -4.0])}, "Dense_0": {"kernel": jnp.zeros(2)}}
    _, state = tool.update(grads, tool.init(params), params)
    np.testing.assert_allclose(state.params["Conv_0"]["kernel"], [0.0, 5.0], atol=1e-6)


@pytest.mark.parametrize(
    "made",
    [
        Resnet(norm=BatchNorm(), classes=3, depth=8, width=4),
        MLP(norm=LayerNorm(), classes=3, widths=(4,)),
        MLP(norm=Identity(), classes=3, widths=(4,)),
    ],
)
def test_every_kernel_but_the_heads_and_every_scale_is_in_one_group(made):
    x = jnp.ones((2, 8, 8, 3))
    params = jax.eval_shape(lambda: made.init(jax.random.key(0), x, train=False))["params"]
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    groups = [[paths[i] for i in group] for group in groups_of(params, "weights_and_scales")]
    kept = [name for group in groups for name in group]
    assert len(kept) == len(set(kept))
    head = max((p for p in paths if p.startswith("Dense_")), key=str).split("/")[0]
    wanted = {p for p in paths if p.endswith("kernel") and not p.startswith(head)}
    wanted |= {p for p in paths if "/norm/" in p}
    assert set(kept) == wanted


def test_what_cannot_be_projected_is_told():
    with pytest.raises(UserError, match="project leaves out the head"):
        projected(optax.sgd(1.0), "weights").init({"Conv_0": {"kernel": jnp.ones((1, 2))}})
    with pytest.raises(
        FieldError, match="project must be weights, weights_and_scales, sphere or null"
    ):
        Recipe(project="all")
