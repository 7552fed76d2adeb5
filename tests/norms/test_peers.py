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


def torch_layers(torch):
    """Ours -> torch's function of (x, scale, bias); channels second where torch wants them so."""
    f = torch.nn.functional

    def second(function):
        return lambda x, *rest: function(x.permute(0, 3, 1, 2), *rest).permute(0, 2, 3, 1)

    return {
        GroupNorm(groups=2): second(lambda x, s, b: f.group_norm(x, 2, s, b, eps=1e-5)),
        InstanceNorm(): second(lambda x, s, b: f.instance_norm(x, weight=s, bias=b, eps=1e-5)),
        LayerNorm(): lambda x, s, b: f.layer_norm(x, (8,), s, b, eps=1e-5),
        # torch has one scale for each pixel and channel: ours is put on after it.
        LayerNormImage(): lambda x, s, b: f.layer_norm(x, SHAPE[1:], eps=1e-5) * s + b,
        RMSNorm(): lambda x, s, b: f.rms_norm(x, (8,), s, eps=1e-5),
        RMSNorm(eps=float(np.finfo(np.float32).eps)): lambda x, s, b: f.rms_norm(x, (8,), s),
    }


def test_torch_has_the_same_outputs_and_gradients():
    torch = pytest.importorskip("torch")
    for norm, layer in torch_layers(torch).items():
        params, state = norm.init(8)
        params = with_values(params)
        x, dy = sample(SHAPE, mean=2), sample(SHAPE, seed=1)
        leaves = {k: torch.tensor(np.asarray(v), requires_grad=True) for k, v in params.items()}
        leaf = torch.tensor(x, requires_grad=True)
        other = layer(leaf, leaves["scale"], leaves.get("bias"))
        other.backward(torch.tensor(dy))

        def mine(p, x, norm=norm, state=state):
            return norm.apply(p, state, x, train=True)[0]

        y, d_params, d_x = gradients(mine, params, jnp.asarray(x), jnp.asarray(dy))
        np.testing.assert_allclose(y, other.detach().numpy(), **CLOSE, err_msg=repr(norm))
        np.testing.assert_allclose(d_x, leaf.grad.numpy(), **CLOSE, err_msg=repr(norm))
        for key, found in d_params.items():
            np.testing.assert_allclose(found, leaves[key].grad.numpy(), rtol=1e-4, atol=1e-4)


def test_torch_and_we_refuse_the_same_batch_of_one_value():
    torch = pytest.importorskip("torch")
    params, state = BatchNorm().init(4)
    with pytest.raises(ValueError, match="more than 1 value"):
        torch.nn.BatchNorm1d(4)(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="one value"):
        BatchNorm().apply(params, state, jnp.zeros((1, 4)), train=True)


@pytest.mark.parametrize("name", [*PAIRS, "batch"])
def test_flax_has_the_same_masked_output(name):
    batch = nn.BatchNorm(use_running_average=False, epsilon=1e-5)
    ours, theirs = {**PAIRS, "batch": (BatchNorm(), batch)}[name]
    x = jnp.asarray(sample(SHAPE, mean=2))
    mask = jnp.asarray(np.random.default_rng(3).random((*SHAPE[:3], 1)) < 0.7)
    params, state = ours.init(8)
    params = with_values(params)
    y, _ = ours.apply(params, state, x, train=True, mask=mask)
    stats = {"mean": jnp.zeros(8), "var": jnp.ones(8)}
    wide = jnp.broadcast_to(mask, SHAPE)  # as flax's GroupNorm wants it
    other, _ = theirs.apply(
        {"params": params, "batch_stats": stats}, x, mask=wide, mutable=["batch_stats"]
    )
    # flax leaves a value where the mask is False; here it is zero.
    np.testing.assert_allclose(y, jnp.where(mask, other, 0), **CLOSE)
