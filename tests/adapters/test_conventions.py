"""Conventions that two sides of `carry` do not share are named, with what they change."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import LinenWeights, NnxWeights, TorchWeights, carry
from normlab.adapters.conventions import of_layer, torchs_resize
from normlab.adapters.linen import Norm
from normlab.norms import BatchNorm, LayerNorm
from tests.norms.conftest import sample

X = sample((2, 8, 8, 3))
STATE = {"conv.weight": sample((4, 3, 3, 3)), "conv.bias": sample((4,), seed=1)}
NORMS = {
    "norm.weight": np.full(4, 2.0, np.float32),
    "norm.bias": sample((4,), seed=2),
    "norm.running_mean": sample((4,), seed=3),
    "norm.running_var": np.full(4, 1e-4, np.float32),
}


class Net(nn.Module):
    """A strided convolution, and a norm whose variance is as small as `eps`."""

    padding: str | int = "SAME"
    eps: float = 1e-3
    momentum: float = 0.99
    normed: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), 2, padding=self.padding, name="conv")(x)
        if not self.normed:
            return x
        return nn.BatchNorm(True, epsilon=self.eps, momentum=self.momentum, name="norm")(x)


class NnxNet(nnx.Module):
    def __init__(self, padding="SAME"):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), 2, padding=padding, rngs=rngs)
        self.norm = nnx.BatchNorm(4, epsilon=1e-3, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.conv(x))


class TorchLike:
    """A module as torch has them, without torch."""

    def __init__(self, state, **layers):
        self.state, self.layers = state, layers

    def state_dict(self):
        return self.state

    def named_modules(self):
        return self.layers.items()


class Layer:
    def __init__(self, **fields):
        vars(self).update(fields)


def moved(line):
    """The size of the effect that a line tells."""
    return float(line.partition("move by ")[2].partition(" of")[0])


def lines_of(source, target):
    _, report = carry(source, target)
    names = ("eps:", "momentum:", "padding:", "running variance:", "interpolation:")
    return {
        line.partition(":")[0]: line for line in report.remarks if line.startswith(names)
    }, report


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_each_convention_is_named_with_its_effect(kind):
    state = {**STATE, **NORMS}
    target = LinenWeights(Net(), X) if kind == "linen" else NnxWeights(NnxNet(), X)
    found, _ = lines_of(TorchWeights(state), target)
    assert set(found) == {"eps", "momentum", "padding", "running variance"}
    assert (
        "1e-05 in the source (as is usual in torch), 0.001 in the target, of norm" in found["eps"]
    )
    assert "0.9 in the source (as is usual in torch), 0.99 in the target" in found["momentum"]
    assert "does not change an evaluation" in found["momentum"]
    assert "((1, 1), (1, 1)) in the source (as is usual in torch), SAME" in found["padding"]
    variables, _ = carry(TorchWeights(state), LinenWeights(Net(), X))
    before = Net().apply(variables, X)
    for name, other in (("eps", Net(eps=1e-5)), ("padding", Net(padding=1))):
        effect = abs(other.apply(variables, X) - before).max() / abs(before).max()
        assert moved(found[name]) == pytest.approx(float(effect), rel=0.06)


def test_networks_that_share_all_have_no_such_line():
    state = {**STATE, **NORMS}
    torchs = BatchNorm(momentum=0.9, eps=1e-5, unbiased_running_variance=True)

    class Shared(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3), 2, padding=1, name="conv")(x)
            return Norm(torchs, True, name="norm")(x)

    assert lines_of(TorchWeights(state), LinenWeights(Shared(), X))[0] == {}
    odd = sample((2, 9, 9, 3))  # of which flax's SAME pads both sides alike
    assert lines_of(TorchWeights(STATE), LinenWeights(Net(normed=False), odd))[0] == {}


def test_a_source_of_flax_is_run_too_and_a_shape_alone_gives_no_effect():
    state = {**STATE, **NORMS}
    variables, _ = carry(TorchWeights(state), LinenWeights(Net(), X))
    source = LinenWeights(Net(), X, variables)
    found, _ = lines_of(source, TorchWeights(state))
    assert moved(found["padding"]) > 0.1
    assert "SAME in the source, ((1, 1), (1, 1)) in the target (as is usual" in found["padding"]
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    found, _ = lines_of(TorchWeights(state), LinenWeights(Net(), shape))
    assert "not known without the values of an example" in found["eps"]


def test_two_networks_of_flax_are_compared_with_each_other():
    variables, _ = carry(TorchWeights({**STATE, **NORMS}), LinenWeights(Net(), X))
    same, _ = lines_of(LinenWeights(Net(), X, variables), NnxWeights(NnxNet(), X))
    assert same == {}
    found, _ = lines_of(LinenWeights(Net(eps=1e-5), X, variables), NnxWeights(NnxNet(1), X))
    assert "eps: 1e-05 in the source, 0.001 in the target, of norm" in found["eps"]
    assert "SAME in the source, ((1, 1), (1, 1)) in the target" in found["padding"]


def test_a_module_of_torch_tells_its_own():
    conv = Layer(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    norm = Layer(eps=1e-4, momentum=0.3, running_var=1)
    source = TorchWeights(TorchLike({**STATE, **NORMS}, conv=conv, norm=norm))
    found, _ = lines_of(source, LinenWeights(Net(), X))
    assert "0.0001 in the source, 0.001 in the target" in found["eps"]
    assert "0.7 in the source, 0.99 in the target" in found["momentum"]
    assert moved(found["padding"]) > 0.1


def test_a_real_module_of_torch_tells_its_own():
    torch = pytest.importorskip("torch")
    layers = {"conv": torch.nn.Conv2d(3, 4, 3, 2, padding=1), "norm": torch.nn.BatchNorm2d(4, 1e-4)}
    module = torch.nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    found, _ = lines_of(TorchWeights(module.eval()), LinenWeights(Net(), X))
    assert "0.0001 in the source, 0.001 in the target" in found["eps"]
    assert "0.9 in the source, 0.99 in the target" in found["momentum"]
    assert "unbiased in the source, biased in the target" in found["running variance"]
    assert "((1, 1), (1, 1)) in the source, SAME in the target" in found["padding"]


class Resizing(nn.Module):
    method: str = "bilinear"

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding=1, name="conv")(x)
        return jax.image.resize(x, (x.shape[0], 5, 5, 4), self.method)


def test_resizing_is_named_with_the_effect_of_torchs_rule():
    found, _ = lines_of(TorchWeights(STATE), LinenWeights(Resizing(), X))
    assert "(8, 8, 4) to (5, 5, 4)" in found["interpolation"]
    variables, _ = carry(TorchWeights(STATE), LinenWeights(Resizing(), X))
    y = Resizing().apply(variables, X)
    inner = nn.Conv(4, (3, 3), padding=1).apply({"params": variables["params"]["conv"]}, X)
    other = torchs_resize(inner, y.shape, "bilinear")
    effect = abs(other - y).max() / abs(y).max()
    assert moved(found["interpolation"]) == pytest.approx(float(effect), rel=0.06)


def test_torchs_rule_by_hand():
    row = jnp.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 4)
    assert torchs_resize(row, (1, 2), "nearest").tolist() == [[0.0, 2.0]]
    assert torchs_resize(row, (1, 2), "bilinear").tolist() == [[0.5, 2.5]]
    up = torchs_resize(row, (1, 8), "bilinear")
    np.testing.assert_allclose(up, [[0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]])


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [3, 5, 7, 12])
def test_torchs_rule_is_torchs(method, size):
    torch = pytest.importorskip("torch")
    x = sample((2, 6, 6, 3))
    interpolate = torch.nn.functional.interpolate
    given = {} if method == "nearest" else {"align_corners": False}
    wanted = interpolate(torch.tensor(x.transpose(0, 3, 1, 2)), (size, size), mode=method, **given)
    found = torchs_resize(jnp.asarray(x), (2, size, size, 3), method)
    np.testing.assert_allclose(found, wanted.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_settings_of_layers():
    assert of_layer(nn.Conv(4, (3, 3))) == {}  # not strided, so torch can pad as it does
    assert of_layer(nn.Conv(4, (3, 3), 2, padding="VALID")) == {"padding": ((0, 0), (0, 0))}
    assert of_layer(nn.Conv(4, (3, 3), 2, padding=[(1, 2), 0])) == {"padding": ((1, 2), (0, 0))}
    assert of_layer(Norm(LayerNorm(eps=1e-4))) == {"eps": 1e-4}
    assert of_layer(nn.Dense(3)) == of_layer(Net()) == {}  # a model's own eps is no layer's
    assert of_layer(nn.RMSNorm()) == {"eps of RMS norm": 1e-6}
    for size, usual in (((3, 3), ((1, 1), (1, 1))), ((2, 2), ((0, 0), (0, 0))), ((4, 4), None)):
        assert of_layer(nn.Conv(4, size, 2))["padding"].usual == usual
