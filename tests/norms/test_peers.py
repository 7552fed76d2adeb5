"""The same numbers as flax and torch in training and evaluation, conventions converted in sight."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LayerNormImage, RMSNorm

from .conftest import sample, with_values

SHAPE = (6, 4, 5, 8)
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def gradients(function, params, x, dy):
    y, vjp = jax.vjp(function, params, x)
    return y, *vjp(dy)


PAIRS = {
    "layer": (LayerNorm(eps=1e-6), nn.LayerNorm(epsilon=1e-6)),
    "layer, image": (
        LayerNormImage(),
        nn.LayerNorm(epsilon=1e-5, reduction_axes=(1, 2, 3), feature_axes=3),
    ),
    "group": (GroupNorm(groups=4), nn.GroupNorm(num_groups=4, epsilon=1e-5)),
    "instance": (InstanceNorm(), nn.InstanceNorm(epsilon=1e-5)),
    "rms": (RMSNorm(eps=1e-6), nn.RMSNorm(epsilon=1e-6)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_flax_has_the_same_output_and_gradients(name):
    ours, theirs = PAIRS[name]
    x, dy = (jnp.asarray(sample(SHAPE, seed=s)) for s in (0, 1))
    params = with_values(ours.init(8)[0])
    mine = gradients(lambda p, x: ours.apply(p, {}, x, train=True)[0], params, x, dy)
    other = gradients(lambda p, x: theirs.apply({"params": p}, x), params, x, dy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), mine, other)


def test_flax_batch_norm_agrees_over_steps_of_training_and_evaluation():
    ours = BatchNorm(momentum=0.8)
    theirs = nn.BatchNorm(momentum=0.8, epsilon=1e-5)
    params, state = ours.init(8)
    params = with_values(params)
    variables = {"params": params, "batch_stats": {"mean": jnp.zeros(8), "var": jnp.ones(8)}}
    dy = jnp.asarray(sample(SHAPE, seed=99))
    for step in range(4):
        x = jnp.asarray(sample(SHAPE, mean=step, std=1 + step, seed=step))

        def mine(p, x, state=state):
            return ours.apply(p, state, x, train=True)[0]

        def other(p, x, variables=variables):
            changed = {**variables, "params": p}
            return theirs.apply(changed, x, use_running_average=False, mutable=["batch_stats"])[0]

        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **CLOSE),
            gradients(mine, params, x, dy),
            gradients(other, params, x, dy),
        )
        _, state = ours.apply(params, state, x, train=True)
        _, moved = theirs.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        variables = {**variables, **moved}
        np.testing.assert_allclose(state["mean"], moved["batch_stats"]["mean"], **CLOSE)
        np.testing.assert_allclose(state["variance"], moved["batch_stats"]["var"], **CLOSE)
        y, _ = ours.apply(params, state, x, train=False)
        np.testing.assert_allclose(y, theirs.apply(variables, x, use_running_average=True), **CLOSE)


def test_torch_batch_norm_agrees_over_steps_of_training_and_evaluation():
    """torch: momentum is the weight of the NEW value, running variance unbiased, channels first."""
    torch = pytest.importorskip("torch")
    ours = BatchNorm(momentum=0.9, unbiased_running_variance=True)
    theirs = torch.nn.BatchNorm2d(8, eps=1e-5, momentum=1 - 0.9)
    params, state = ours.init(8)
    params = with_values(params)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(np.asarray(params["scale"])))
        theirs.bias.copy_(torch.tensor(np.asarray(params["bias"])))
    for step in range(4):
        x, dy = sample(SHAPE, mean=step, seed=step), sample(SHAPE, seed=50 + step)
        leaf = torch.tensor(x, requires_grad=True)
        theirs.train().zero_grad()
        y_torch = theirs(leaf.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y_torch.backward(torch.tensor(dy))

        def mine(p, x, state=state):
            return ours.apply(p, state, x, train=True)[0]

        y, d_params, d_x = gradients(mine, params, jnp.asarray(x), jnp.asarray(dy))
        np.testing.assert_allclose(y, y_torch.detach().numpy(), **CLOSE)
        np.testing.assert_allclose(d_x, leaf.grad.numpy(), **CLOSE)
        np.testing.assert_allclose(
            d_params["scale"], theirs.weight.grad.numpy(), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(d_params["bias"], theirs.bias.grad.numpy(), rtol=1e-4, atol=1e-4)
        _, state = ours.apply(params, state, jnp.asarray(x), train=True)
        np.testing.assert_allclose(state["mean"], theirs.running_mean.numpy(), **CLOSE)
        np.testing.assert_allclose(state["variance"], theirs.running_var.numpy(), **CLOSE)
        evaluated = theirs.eval()(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y, _ = ours.apply(params, state, jnp.asarray(x), train=False)
        np.testing.assert_allclose(y, evaluated.detach().numpy(), **CLOSE)


def test_torch_has_the_same_outputs_without_a_batch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = sample(SHAPE, mean=2)
    first = torch.tensor(x).permute(0, 3, 1, 2)
    theirs = {
        GroupNorm(groups=2): functional.group_norm(first, 2, eps=1e-5).permute(0, 2, 3, 1),
        InstanceNorm(): functional.instance_norm(first, eps=1e-5).permute(0, 2, 3, 1),
        LayerNorm(): functional.layer_norm(torch.tensor(x), (8,), eps=1e-5),
        LayerNormImage(): functional.layer_norm(torch.tensor(x), SHAPE[1:], eps=1e-5),
        RMSNorm(): functional.rms_norm(torch.tensor(x), (8,), eps=1e-5),
    }
    for norm, other in theirs.items():
        params, state = norm.init(8)
        y, _ = norm.apply(params, state, jnp.asarray(x), train=True)
        np.testing.assert_allclose(y, other.numpy(), **CLOSE)
