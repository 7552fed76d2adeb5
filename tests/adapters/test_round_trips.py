"""Whole networks from torch to NNX and linen and back: to the bit, and the same outputs."""

import importlib
from collections import OrderedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import LinenWeights, NnxWeights, TorchWeights, carry
from normlab.errors import UserError
from tests.adapters.shared import assert_computes, assert_same_arrays
from tests.peers import goldens, resnet
from tests.shared import torch_names, zoo_linen, zoo_nnx

IMAGES = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)


class NnxBlock(nnx.Module):
    """Torch's block; neither the attributes nor their names are in the order of calls."""

    def __init__(self, before, after, stride, projected, rngs):
        def conv(before, size, stride):
            pad = size // 2
            return nnx.Conv(
                before, after, (size, size), stride, padding=pad, use_bias=False, rngs=rngs
            )

        def norm():
            return nnx.BatchNorm(after, use_running_average=True, rngs=rngs)

        self.z_norm = norm()
        self.a_norm = norm()
        self.out = conv(after, 3, 1)
        self.into = conv(before, 3, stride)
        if projected:
            self.mid_norm = norm()
            self.mid = conv(before, 1, stride)
        self.stride, self.new, self.projected = stride, after - before, projected

    def __call__(self, x):
        if self.projected:  # before the block's own layers, unlike in torch
            shortcut = self.mid_norm(self.mid(x))
        else:
            pads = ((0, 0), (0, 0), (0, 0), (0, self.new))
            shortcut = jnp.pad(x[:, :: self.stride, :: self.stride], pads)
        y = nnx.relu(self.z_norm(self.into(x)))
        return nnx.relu(self.a_norm(self.out(y)) + shortcut)


class NnxResnet(nnx.Module):
    def __init__(self, width, classes, blocks, projected):
        rngs = nnx.Rngs(0)
        self.zero = nnx.Conv(3, width, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(width, use_running_average=True, rngs=rngs)
        made, before = [], width
        for after, stride in blocks:
            made.append(NnxBlock(before, after, stride, projected and stride > 1, rngs))
            before = after
        self.blocks = nnx.List(made)
        self.a_head = nnx.Linear(before, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.zero(x)))
        for block in self.blocks:
            x = block(x)
        return self.a_head(x.mean(axis=(1, 2)))


class LinenResnet(nn.Module):
    """The `NnxResnet` with projected shortcuts, in linen, with linen's own names."""

    width: int
    classes: int
    blocks: tuple[tuple[int, int], ...]

    @nn.compact
    def __call__(self, x):
        def conv(features, size, stride):
            pads = [(size // 2, size // 2)] * 2
            return nn.Conv(features, (size, size), (stride, stride), pads, use_bias=False)

        def norm():
            return nn.BatchNorm(use_running_average=True)

        x = nn.relu(norm()(conv(self.width, 3, 1)(x)))
        for features, stride in self.blocks:
            shortcut = x
            if stride > 1:
                shortcut = norm()(conv(features, 1, stride)(x))
            y = nn.relu(norm()(conv(features, 3, stride)(x)))
            x = nn.relu(norm()(conv(features, 3, 1)(y)) + shortcut)
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


def torch_resnet(torch, width, classes, blocks):
    """A residual network with projected shortcuts, which are defined after the block's layers."""
    t = torch.nn

    class Block(t.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.conv1 = t.Conv2d(before, after, 3, stride, padding=1, bias=False)
            self.bn1 = t.BatchNorm2d(after)
            self.conv2 = t.Conv2d(after, after, 3, padding=1, bias=False)
            self.bn2 = t.BatchNorm2d(after)
            self.downsample = t.Sequential()
            if stride > 1:
                projection = t.Conv2d(before, after, 1, stride, bias=False)
                self.downsample = t.Sequential(projection, t.BatchNorm2d(after))

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + self.downsample(x))

    class Resnet(t.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = t.Conv2d(3, width, 3, padding=1, bias=False)
            self.bn1 = t.BatchNorm2d(width)
            befores = [width, *(after for after, _ in blocks)]
            self.layer = t.Sequential(
                *(Block(a, b, s) for a, (b, s) in zip(befores[:-1], blocks, strict=True))
            )
            self.fc = t.Linear(befores[-1], classes)

        def forward(self, x):
            x = self.layer(torch.relu(self.bn1(self.conv1(x))))
            return self.fc(x.mean(dim=(2, 3)))

    return Resnet()


@pytest.mark.parametrize("lost", [False, True], ids=["as defined", "cloned"])
def test_a_kept_torch_network_is_the_same_in_nnx_and_comes_back_to_the_bit(lost):
    kept = goldens.load(resnet.NAME)
    state = {k.removeprefix("before/"): v for k, v in kept.items() if k.startswith("before/")}
    width = resnet.WIDTH
    blocks = ((width, 1), (2 * width, 2), (4 * width, 2))
    start = NnxResnet(width, resnet.CLASSES, blocks, projected=False)
    start = nnx.clone(start) if lost else start
    images = kept["images"]
    model, report = carry(TorchWeights(state), NnxWeights(start, images))
    assert report.pairs["layer2.0.bn1"] == "blocks/1/z_norm"
    np.testing.assert_allclose(jax.jit(model)(images), kept["evaluated"], atol=1e-6)
    assert_same_arrays(carry(NnxWeights(model, images), TorchWeights(state))[0], state)
    with pytest.raises(UserError, match=r"layer1.0.conv1, layer1.0.conv2; target: blocks/0/"):
        carry(TorchWeights(state), NnxWeights(start))


def test_a_torch_network_goes_through_linen_and_nnx_and_back():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    blocks = ((8, 1), (8, 1), (16, 2), (16, 1), (16, 2))
    theirs = resnet.unlike_its_start(torch_resnet(torch, 8, 5, blocks)).eval()
    with torch.no_grad():
        expected = theirs(resnet.channels_first(IMAGES)).numpy()
    state = theirs.state_dict()
    linen, start = LinenResnet(8, 5, blocks), NnxResnet(8, 5, blocks, projected=True)
    variables, report = carry(TorchWeights(state), LinenWeights(linen, IMAGES))
    assert_computes(jax.jit(linen.apply)(variables, IMAGES), expected)
    assert report.rules["layer.2.downsample.1"] == "the layers before them are a pair"
    model, _ = carry(LinenWeights(linen, IMAGES, variables), NnxWeights(start, IMAGES))
    assert_computes(jax.jit(model)(IMAGES), expected)
    assert_same_arrays(carry(NnxWeights(model, IMAGES), TorchWeights(state))[0], state)
    direct, _ = carry(TorchWeights(state), NnxWeights(nnx.clone(start), IMAGES))
    assert_computes(jax.jit(direct)(IMAGES), expected)
    assert_same_arrays(carry(NnxWeights(direct, IMAGES), TorchWeights(state))[0], state)


def test_torch_networks_of_equal_layers_go_to_nnx_and_back():
    """Twelve equal ones in a row, and three whose names do not sort in the order of calls."""
    torch = pytest.importorskip("torch")
    t = torch.nn
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    parts = [part for _ in range(12) for part in (t.Linear(4, 4), t.Tanh())]
    named = {"z": t.Linear(4, 4), "t": t.Tanh(), "b": t.Linear(4, 4), "a": t.Linear(4, 4)}
    rngs = nnx.Rngs(0)

    class Named(nnx.Module):
        def __init__(self):
            self.first, self.second, self.last = (nnx.Linear(4, 4, rngs=rngs) for _ in range(3))

        def __call__(self, x):
            return self.first(self.last(nnx.tanh(self.second(x))))

    twelve = [p for _ in range(12) for p in (nnx.Linear(4, 4, rngs=rngs), nnx.tanh)]
    for theirs, start, given in (
        (t.Sequential(*parts), nnx.Sequential(*twelve), None),
        (t.Sequential(*parts), nnx.Sequential(*twelve), x),
        (t.Sequential(OrderedDict(named)), Named(), x),
    ):
        with torch.no_grad():
            expected = theirs(torch.tensor(x)).numpy()
        state = theirs.state_dict()
        model, _ = carry(TorchWeights(state), NnxWeights(start, given))
        assert_computes(model(x), expected)
        assert_same_arrays(carry(NnxWeights(model, given), TorchWeights(state))[0], state)


PICTURES = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize("name", list(torch_names.SHAPES))
def test_torchvisions_names_go_to_linen_and_nnx_and_come_back_to_the_bit(name):
    given = {"width": 8} if name == "resnet" else {}
    state = torch_names.filled(name, **given)
    linen = zoo_linen.NETWORKS[name](**given)
    start = zoo_nnx.NETWORKS[name](nnx.Rngs(0), **given)
    variables, _ = carry(TorchWeights(state), LinenWeights(linen, PICTURES))
    assert_same_arrays(
        carry(LinenWeights(linen, PICTURES, variables), TorchWeights(state))[0], state
    )
    for given in (
        start,
        nnx.clone(start),
    ):  # whose attributes are sorted, out of the order of calls
        model, _ = carry(TorchWeights(state), NnxWeights(given, PICTURES))
        assert_same_arrays(carry(NnxWeights(model, PICTURES), TorchWeights(state))[0], state)
    found, wanted = jax.jit(model)(PICTURES), jax.jit(linen.apply)(variables, PICTURES)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    across, _ = carry(LinenWeights(linen, PICTURES, variables), NnxWeights(start, PICTURES))
    assert_same_arrays(carry(NnxWeights(across, PICTURES), TorchWeights(state))[0], state)


@pytest.mark.parametrize("name", list(torch_names.SHAPES))
def test_torchvisions_networks_give_the_same_outputs_here(name):
    torch = pytest.importorskip("torch")
    models = importable("torchvision.models")
    blocks = importable("torchvision.models.convnext").CNBlockConfig
    theirs = {
        "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
        "convnext": lambda: models.ConvNeXt(
            [blocks(16, 32, 2), blocks(32, None, 1)], num_classes=5
        ),
        "mobilenet": lambda: models.MobileNetV2(
            num_classes=5, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]]
        ),
        "vit": lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5),
    }[name]()
    assert_outputs(torch, theirs, name)
    assert {k: tuple(v.shape) for k, v in theirs.state_dict().items()} == dict(
        torch_names.SHAPES[name]()
    )


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_timms_networks_give_the_same_outputs_here(name):
    torch = pytest.importorskip("torch")
    models = importable("timm.models")
    theirs = {
        "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
        "vit": lambda: models.VisionTransformer(
            img_size=32,
            patch_size=8,
            embed_dim=16,
            depth=2,
            num_heads=2,
            mlp_ratio=2,
            num_classes=5,
        ),
    }[name]()
    assert_outputs(torch, theirs, name)


def importable(name):
    """A module, or a skipped test; torchvision fails on another torch with any class of error."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        pytest.skip(f"{name}: {error}")


def assert_outputs(torch, theirs, name):
    with torch.no_grad():
        for values in theirs.state_dict().values():
            if values.dtype.is_floating_point:
                level, spread = (0.7, 0.6) if values.ndim == 1 else (0.0, 0.3)
                values.copy_(level + spread * (torch.rand_like(values) - 0.5))
        expected = theirs.eval()(torch.tensor(PICTURES.transpose(0, 3, 1, 2))).numpy()
    state, linen = theirs.state_dict(), zoo_linen.NETWORKS[name]()
    variables, _ = carry(TorchWeights(state), LinenWeights(linen, PICTURES))
    model, _ = carry(TorchWeights(state), NnxWeights(zoo_nnx.NETWORKS[name](nnx.Rngs(0)), PICTURES))
    for found in (jax.jit(linen.apply)(variables, PICTURES), jax.jit(model)(PICTURES)):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)
    assert_same_arrays(carry(NnxWeights(model, PICTURES), TorchWeights(state))[0], state)
