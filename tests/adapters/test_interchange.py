"""Each kind of layer carried by itself: what it computes is the same, in whatever library."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.adapters.interchange import carry
from normlab.adapters.linen import Norm
from normlab.adapters.linen_weights import LinenWeights
from normlab.adapters.torch_weights import TorchWeights
from normlab.errors import UserError
from normlab.models.plain import MLP
from normlab.models.resnet import Resnet
from normlab.norms import (
    BatchNorm,
    EvoNormB0,
    EvoNormS0,
    FilterResponseNorm,
    GroupNorm,
    LayerNorm,
    RMSNorm,
)

DRAW = np.random.default_rng(0)
IMAGES = DRAW.standard_normal((4, 6, 5, 8)).astype(np.float32)


def first(images):
    return np.moveaxis(images, -1, 1)


def last(images):
    return np.moveaxis(images, 1, -1)


def drawn(variables, seed=0):
    """Every array drawn, variances positive."""
    draw = np.random.default_rng(seed)

    def one(path, leaf):
        values = draw.standard_normal(leaf.shape).astype(np.float32)
        return jnp.asarray(np.exp(values) if path[-1].key in ("var", "variance") else values)

    return jax.tree_util.tree_map_with_path(one, variables)


class Flattening(nn.Module):
    """Convolution, flattened, normalised, then dense: both of the latter see the order."""

    norm: bool

    @nn.compact
    def __call__(self, x):
        x = nn.relu(x).reshape(x.shape[0], -1)
        if self.norm:
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        return nn.Dense(3)(x)


@pytest.mark.parametrize("norm", [False, True], ids=["dense", "norm, dense"])
def test_layers_behind_a_flattened_image_take_torchs_order(norm):
    size = IMAGES[0].size
    state = {
        "bn.weight": DRAW.standard_normal(size),
        "bn.bias": DRAW.standard_normal(size),
        "bn.running_mean": DRAW.standard_normal(size),
        "bn.running_var": np.exp(DRAW.standard_normal(size)),
    }
    state = state if norm else {}
    state |= {"fc.weight": DRAW.standard_normal((3, size)), "fc.bias": DRAW.standard_normal(3)}
    state = {name: values.astype(np.float32) for name, values in state.items()}
    x = np.maximum(first(IMAGES), 0).reshape(4, -1)
    if norm:
        x = (x - state["bn.running_mean"]) / np.sqrt(state["bn.running_var"] + 1e-5)
        x = np.maximum(x * state["bn.weight"] + state["bn.bias"], 0)
    expected = x @ state["fc.weight"].T + state["fc.bias"]

    model = Flattening(norm)
    variables, report = carry(TorchWeights(state), LinenWeights(model, IMAGES))
    np.testing.assert_allclose(model.apply(variables, IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert "fc: its inputs" not in str(report) and "Dense_0: its inputs are in" in str(report)
    back, _ = carry(LinenWeights(model, IMAGES, variables), TorchWeights(state))
    for name, values in state.items():
        np.testing.assert_array_equal(back[name], values, err_msg=name)


def test_a_perceptron_on_images_takes_torchs_order_and_on_vectors_none():
    model = MLP(norm=BatchNorm(), classes=2, widths=(4,), activation="relu")
    for x, reordered in ((IMAGES, True), (IMAGES.reshape(4, -1), False)):
        side = LinenWeights(model, x)
        dense, _, head = side.units()
        assert (bool(dense.remark), bool(head.remark)) == (reordered, False)


def test_variables_go_from_a_plain_linen_network_to_ours_and_back():
    """Names differ, and so does the collection; logits do not."""

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            def norm():
                return nn.BatchNorm(use_running_average=not train)

            def conv(features, stride=1):
                pad = [(1, 1), (1, 1)]
                return nn.Conv(features, (3, 3), (stride, stride), padding=pad, use_bias=False)

            x = nn.relu(norm()(conv(8)(x)))
            for features, stride in ((8, 1), (16, 2), (32, 2)):
                y = nn.relu(norm()(conv(features, stride)(x)))
                y = norm()(conv(features)(y))
                x = x[:, ::stride, ::stride]
                pads = ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1]))
                x = nn.relu(jnp.pad(x, pads) + y)
            return nn.Dense(3)(x.mean(axis=(1, 2)))

    theirs, ours = Linen(), Resnet(norm=BatchNorm(), classes=3, depth=8, width=8)
    x = IMAGES
    source = drawn(jax.eval_shape(lambda: theirs.init(jax.random.key(0), x, train=False)))
    carried, report = carry(LinenWeights(theirs, x, source, train=False), LinenWeights(ours, x))
    expected = jax.jit(lambda v: theirs.apply(v, x, train=False))(source)
    found = jax.jit(lambda v: ours.apply(v, x, train=False))(carried)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)
    assert report.pairs["BatchNorm_2"] == "Norm_0"
    back, _ = carry(LinenWeights(ours, x, carried), LinenWeights(theirs, x, train=False))
    jax.tree.map(np.testing.assert_array_equal, back, source)


def test_a_source_without_values_and_variables_of_another_model_are_refused():
    model = nn.Dense(2)
    x = np.zeros((1, 3), np.float32)
    with pytest.raises(UserError, match="a source needs its values"):
        carry(LinenWeights(model, x), LinenWeights(model, x))
    with pytest.raises(UserError, match=r"params/kernel should be an array \(3, 2\)"):
        LinenWeights(model, x, {"params": {"kernel": np.zeros((4, 2)), "bias": np.zeros(2)}})
    with pytest.raises(UserError, match=r"not the model's: it has no params/more/bias"):
        shapes = {"kernel": np.zeros((3, 2)), "bias": np.zeros(2), "more": {"bias": np.zeros(2)}}
        LinenWeights(model, x, {"params": shapes})


def layers(torch):
    """torch's layer -> the linen layer that computes the same, on NHWC."""
    t = torch.nn
    return {
        "convolution": (t.Conv2d(8, 6, (3, 2)), nn.Conv(6, (3, 2), padding="VALID")),
        "grouped": (
            t.Conv2d(8, 4, 3, groups=2),
            nn.Conv(4, (3, 3), padding="VALID", feature_group_count=2),
        ),
        "depthwise": (
            t.Conv2d(8, 16, 3, groups=8),
            nn.Conv(16, (3, 3), padding="VALID", feature_group_count=8),
        ),
        "transposed": (
            t.ConvTranspose2d(8, 4, 3, stride=2),
            nn.ConvTranspose(4, (3, 3), (2, 2), padding="VALID"),
        ),
        "transposed, as a gradient": (
            t.ConvTranspose2d(8, 4, 3, stride=2),
            nn.ConvTranspose(4, (3, 3), (2, 2), padding="VALID", transpose_kernel=True),
        ),
        "batch norm": (t.BatchNorm2d(8), nn.BatchNorm(use_running_average=True)),
        "group norm": (t.GroupNorm(4, 8), Norm(GroupNorm(groups=4))),
        "elementwise layer norm": (
            t.LayerNorm((8, 6, 5)),
            nn.LayerNorm(epsilon=1e-5, reduction_axes=(1, 2, 3), feature_axes=(1, 2, 3)),
        ),
    }


def timm_layers(timm):
    t = timm.layers
    return {
        "BatchNormAct2d": (t.BatchNormAct2d(8), Norm(BatchNorm(), use_running_average=True), True),
        "GroupNormAct": (t.GroupNormAct(8, num_groups=2), Norm(GroupNorm(groups=2)), True),
        "LayerNorm2d": (t.LayerNorm2d(8), Norm(LayerNorm(eps=1e-6)), False),
        "RmsNorm2d": (t.RmsNorm2d(8), Norm(RMSNorm(eps=1e-6)), False),
        "EvoNorm2dB0": (
            t.EvoNorm2dB0(8),
            Norm(EvoNormB0(eps=1e-3), use_running_average=True),
            False,
        ),
        "EvoNorm2dS0": (t.EvoNorm2dS0(8, groups=2), Norm(EvoNormS0(groups=2, eps=1e-5)), False),
        "FilterResponseNormTlu2d": (
            t.FilterResponseNormTlu2d(8),
            Norm(FilterResponseNorm(eps=1e-5)),
            False,
        ),
    }


def unlike_its_start(torch, layer):
    with torch.no_grad():
        for name, values in layer.state_dict().items():
            if values.ndim:
                values.normal_()
                if name.endswith("running_var"):
                    values.exp_()
    return layer.eval()


def assert_carried_over_and_back(torch, theirs, ours, relu=False):
    torch.manual_seed(0)
    unlike_its_start(torch, theirs)
    state = theirs.state_dict()
    variables, _ = carry(TorchWeights(state), LinenWeights(ours, IMAGES))
    with torch.no_grad():
        expected = last(theirs(torch.tensor(first(IMAGES).copy())).numpy())
    found = ours.apply(variables, IMAGES)
    np.testing.assert_allclose(nn.relu(found) if relu else found, expected, rtol=1e-4, atol=2e-5)
    back, _ = carry(LinenWeights(ours, IMAGES, variables), TorchWeights(state))
    for name, values in state.items():
        assert (back[name] == values).all() and back[name].dtype == values.dtype, name


def test_layers_of_torch_are_carried_over_and_back():
    torch = pytest.importorskip("torch")
    for name, (theirs, ours) in layers(torch).items():
        print(name)  # which one, if it fails
        assert_carried_over_and_back(torch, theirs, ours)


def test_layers_of_timm_are_carried_over_and_back():
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    for name, (theirs, ours, relu) in timm_layers(timm).items():
        print(name)  # which one, if it fails
        assert_carried_over_and_back(torch, theirs, ours, relu)


def test_a_network_of_timm_is_carried_by_its_structure():
    """A ResNet with shortcuts of convolution and norm, which timm registers after the block's."""
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    from timm.models.resnet import BasicBlock, ResNet

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x):
            def conv(features, size, stride, pad):
                pads = [(pad, pad)] * 2
                return nn.Conv(features, (size, size), (stride, stride), pads, use_bias=False)

            def norm():
                return nn.BatchNorm(use_running_average=True)

            x = nn.relu(norm()(conv(64, 7, 2, 3)(x)))
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
            for features, stride in ((64, 1), (128, 2), (128, 2), (128, 2)):
                shortcut = x
                if stride > 1:  # before the block's own, unlike in timm
                    shortcut = norm()(conv(features, 1, stride, 0)(x))
                y = nn.relu(norm()(conv(features, 3, stride, 1)(x)))
                x = nn.relu(norm()(conv(features, 3, 1, 1)(y)) + shortcut)
            return nn.Dense(5)(x.mean(axis=(1, 2)))

    torch.manual_seed(0)
    theirs = ResNet(
        BasicBlock, (1, 1, 1, 1), num_classes=5, in_chans=8, channels=(64, 128, 128, 128)
    )
    unlike_its_start(torch, theirs)
    x = IMAGES
    norms = ("downsample.1", "bn1", "bn2")  # in the order in which flax's model calls them
    names = {
        f"layer{stage}.0.{norm}": f"BatchNorm_{3 * (stage - 1) + place}"
        for stage in (2, 3, 4)
        for place, norm in enumerate(norms)
    }
    variables, report = carry(
        TorchWeights(theirs.state_dict()), LinenWeights(Linen(), x), names=names
    )
    assert report.pairs["layer2.0.downsample.0"] == "Conv_3", "by its shape, whatever the order"
    with torch.no_grad():
        expected = theirs(torch.tensor(first(x).copy())).numpy()
    found = Linen().apply(variables, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)
    assert timm.__version__
