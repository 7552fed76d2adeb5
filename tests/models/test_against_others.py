"""ResNet-20 equals independent implementations in torch and in plain flax.linen."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.models.resnet import Resnet
from normlab.models.slots import NORM_STATE
from normlab.norms import BatchNorm

MODEL = Resnet(norm=BatchNorm(), classes=10, depth=20)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (8, 16, 16, 3))


@pytest.fixture(scope="module")
def variables(x):
    """Make variables that differ from their initial values, so that a mix-up is noticed."""
    shapes = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), x, train=False))
    noise = np.random.default_rng(0)

    def draw(path, leaf):
        values = noise.standard_normal(leaf.shape).astype(np.float32)
        if leaf.ndim == 4:
            return jnp.asarray(values * np.sqrt(2 / np.prod(leaf.shape[:3])).astype(np.float32))
        positive = path[-1].key in ("scale", "variance")
        return jnp.asarray(np.exp(values / 4) if positive else values / 4)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module", params=[False, True], ids=["evaluation", "training"])
def ours(request, x, variables):
    """Return mode, logits and the new state."""
    train = request.param
    apply = jax.jit(lambda v: MODEL.apply(v, x, train=train, mutable=[NORM_STATE]))
    logits, moved = apply(variables)
    return train, logits, moved[NORM_STATE]


def slots(tree):
    """List the normalisers' entries in the order in which the network applies them."""
    blocks = [("NormAct_0",)]
    for block in range(9):
        blocks += [(f"NormAct_{block + 1}",), (f"Norm_{block}",)]
    found = []
    for (name,) in blocks:
        entry = tree[name]
        found.append(entry["Norm_0"]["norm"] if "Norm_0" in entry else entry["norm"])
    return found


class Linen(nn.Module):
    """ResNet-20 written with flax alone."""

    @nn.compact
    def __call__(self, x, train):
        def conv(features, stride=1):
            pad = [(1, 1), (1, 1)]
            return nn.Conv(features, (3, 3), (stride, stride), padding=pad, use_bias=False)

        def norm():
            return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)

        x = nn.relu(norm()(conv(16)(x)))
        for features, stride in (
            [(16, 1)] * 3 + [(32, 2), (32, 1), (32, 1), (64, 2)] + [(64, 1)] * 2
        ):
            y = nn.relu(norm()(conv(features, stride)(x)))
            y = norm()(conv(features)(y))
            if stride == 2:
                zeros = jnp.zeros_like(x[:, ::2, ::2])
                x = jnp.concatenate([x[:, ::2, ::2], zeros], axis=-1)
            x = nn.relu(x + y)
        return nn.Dense(10)(x.mean(axis=(1, 2)))


def test_equals_plain_linen(x, variables, ours):
    train, logits, state = ours
    theirs = {
        "params": {
            **{f"Conv_{i}": variables["params"][f"Conv_{i}"] for i in range(19)},
            **{f"BatchNorm_{i}": slot for i, slot in enumerate(slots(variables["params"]))},
            "Dense_0": variables["params"]["Dense_0"],
        },
        "batch_stats": {
            f"BatchNorm_{i}": {"mean": slot["mean"], "var": slot["variance"]}
            for i, slot in enumerate(slots(variables[NORM_STATE]))
        },
    }
    apply = jax.jit(lambda v: Linen().apply(v, x, train, mutable=["batch_stats"]))
    expected, moved = apply(theirs)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=2e-5)
    for index, slot in enumerate(slots(state)):
        stats = moved["batch_stats"][f"BatchNorm_{index}"]
        np.testing.assert_allclose(slot["mean"], stats["mean"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(slot["variance"], stats["var"], rtol=1e-4, atol=1e-5)


def test_equals_torch(x, variables, ours):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    train, logits, state = ours

    def tensor(values):
        return torch.tensor(np.asarray(values))

    kernels = [
        tensor(np.transpose(variables["params"][f"Conv_{i}"]["kernel"], (3, 2, 0, 1)).copy())
        for i in range(19)
    ]
    params, stats = slots(variables["params"]), slots(variables[NORM_STATE])
    running = [(tensor(slot["mean"]), tensor(slot["variance"])) for slot in stats]
    layers = iter(range(19))

    def conv_norm(value, stride=1):
        i = next(layers)
        value = functional.conv2d(value, kernels[i], stride=stride, padding=1)
        scale, bias = tensor(params[i]["scale"]), tensor(params[i]["bias"])
        # torch's momentum is the weight of the new value.
        return functional.batch_norm(value, *running[i], scale, bias, train, momentum=0.1)

    value = functional.relu(conv_norm(tensor(x).permute(0, 3, 1, 2)))
    for _stage, stride in enumerate((1, 2, 2)):
        for block in range(3):
            step = stride if block == 0 else 1
            branch = conv_norm(functional.relu(conv_norm(value, step)))
            if step == 2:
                value = functional.pad(value[:, :, ::2, ::2], (0, 0, 0, 0, 0, value.shape[1]))
            value = functional.relu(value + branch)
    head = variables["params"]["Dense_0"]
    expected = value.mean(dim=(2, 3)) @ tensor(head["kernel"]) + tensor(head["bias"])

    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=2e-5)
    for i, (slot, (mean, variance)) in enumerate(zip(slots(state), running, strict=True)):
        np.testing.assert_allclose(slot["mean"], mean.numpy(), rtol=1e-4, atol=1e-5)
        if train:
            # torch's running variance is the unbiased one: count / (count - 1) on the new part.
            count = 8 * 16 * 16 / 4 ** (0 if i < 7 else 1 if i < 13 else 2)
            new = (tensor(slot["variance"]) - 0.9 * tensor(stats[i]["variance"])) * count
            expected = 0.9 * tensor(stats[i]["variance"]) + new / (count - 1)
            np.testing.assert_allclose(expected, variance.numpy(), rtol=1e-4, atol=1e-5)
