"""Each architecture has the right layers, parameters, shapes and shortcuts, checked by hand."""

from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import MODELS
from normlab.errors import FieldError
from normlab.models.plain import MLP, Convnet
from normlab.models.resnet import Resnet, ResnetV2
from normlab.norms import BatchNorm, Identity, LayerNorm, RMSNorm

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def shapes(model, image=IMAGE):
    """Map the path of every parameter to its shape, without computing anything."""
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False)["params"], image
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }


def total(model):
    return sum(int(np.prod(shape)) for shape in shapes(model).values())


def resnet_by_hand(depth, width=16, classes=10):
    """Count 3x3 convolutions without bias, two numbers per channel for each norm, and the head."""
    n = (depth - 2) // 6
    channels = [3, width] + [width] * 2 * n + [2 * width] * 2 * n + [4 * width] * 2 * n
    convs = sum(9 * a * b for a, b in pairwise(channels))
    return convs + sum(2 * c for c in channels[1:]) + 4 * width * classes + classes


@pytest.mark.parametrize(
    ("depth", "parameters", "published"),
    # Published: arXiv:1512.03385, table 6.
    [(20, 269_722, 0.27e6), (56, 853_018, 0.85e6), (110, 1_727_962, 1.7e6)],
)
def test_resnet_has_the_published_number_of_parameters(depth, parameters, published):
    found = total(Resnet(norm=BatchNorm(), classes=10, depth=depth))
    assert found == parameters == resnet_by_hand(depth)
    assert float(f"{found:.2g}") == published


@pytest.mark.parametrize("depth", [8, 14, 20, 32])
def test_depth_counts_the_layers_with_weights(depth):
    of_resnet = shapes(Resnet(norm=BatchNorm(), classes=10, depth=depth))
    kernels = [shape for path, shape in of_resnet.items() if path.endswith("kernel")]
    assert len(kernels) == depth
    assert sum(len(shape) == 4 for shape in kernels) == depth - 1
    of_v2 = shapes(ResnetV2(norm=BatchNorm(), classes=10, depth=depth))
    kernels = [shape for path, shape in of_v2.items() if path.endswith("kernel")]
    assert len(kernels) == depth + 2  # the two projections are not counted, as in the paper
    assert sum(shape[:2] == (1, 1) for shape in kernels) == 2


def feature_maps(model, size):
    """List the output shapes of all convolutions in order, without the batch axis."""
    seen = []

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if isinstance(context.module, nn.Conv) and context.method_name == "__call__":
            seen.append(out.shape[1:])
        return out

    with nn.intercept_methods(watch):
        shapes(model, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    return seen


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        (
            Resnet(norm=BatchNorm(), classes=3, depth=8, width=4),
            32,
            [(32, 32, 4)] * 3 + [(16, 16, 8)] * 2 + [(8, 8, 16)] * 2,
        ),
        (
            Resnet(norm=BatchNorm(), classes=3, depth=8, width=4),
            7,  # odd sizes are rounded up, in the shortcut as in the convolution
            [(7, 7, 4)] * 3 + [(4, 4, 8)] * 2 + [(2, 2, 16)] * 2,
        ),
        (
            ResnetV2(norm=BatchNorm(), classes=3, depth=8, width=4),
            32,
            [(32, 32, 4)] * 3 + [(16, 16, 8)] * 3 + [(8, 8, 16)] * 3,
        ),
        (
            Convnet(norm=BatchNorm(), classes=3, widths=(4, 6), layers=2),
            8,
            [(8, 8, 4)] * 2 + [(4, 4, 6)] * 2,
        ),
    ],
    ids=["resnet", "resnet at an odd size", "resnet v2", "convnet"],
)
def test_sizes_halve_and_channels_grow_from_stage_to_stage(model, size, expected):
    assert feature_maps(model, size) == expected


def variables_with(model, x, **values):
    """Fill every parameter of a given name with one number."""
    params = model.init(jax.random.key(0), x, train=False)["params"]

    def fill(path, leaf):
        place = f"{path[0].key}_{path[-1].key}"
        number = values.get(place, values.get(path[-1].key))
        return leaf if number is None else jnp.full_like(leaf, number)

    return {"params": jax.tree_util.tree_map_with_path(fill, params)}


def test_shortcut_takes_every_second_pixel_and_fills_new_channels_with_zeros():
    """All block convolutions are zero, so that only the shortcuts remain, computed here by hand."""
    model = Resnet(norm=Identity(), classes=4, depth=8, width=1)
    x = jnp.arange(64.0).reshape(1, 8, 8, 1)
    variables = variables_with(model, x, kernel=0.0)
    params = variables["params"]
    params["Conv_0"]["kernel"] = params["Conv_0"]["kernel"].at[1, 1, 0, 0].set(1.0)  # the identity
    params["Dense_0"]["kernel"] = jnp.eye(4)
    logits = model.apply(variables, x, train=False)
    every_fourth = np.asarray(x)[0, ::4, ::4, 0]  # 0, 4, 32, 36
    assert every_fourth.mean() == 18
    np.testing.assert_allclose(logits, [[18.0, 0, 0, 0]])


def entering(model, variables, x):
    """Record the input of every layer by name, and the output of the first as "stem"."""
    seen = {}

    def watch(call, args, kwargs, context):
        seen[context.module.name] = args[0] if args else None
        out = call(*args, **kwargs)
        if context.module.name == "Conv_0":
            seen["stem"] = out
        return out

    with nn.intercept_methods(watch):
        model.apply(variables, x, train=False)
    return seen


@pytest.mark.parametrize(
    ("cls", "after_block", "expected"), [(Resnet, "Conv_3", 0.0), (ResnetV2, "NormAct_2", -0.5)]
)
def test_resnet_activates_the_sum_and_v2_does_not(cls, after_block, expected):
    """The stem gives 0.5 and the first branch -1."""
    model = cls(norm=Identity(), classes=1, depth=8, width=1)
    x = jnp.zeros((1, 4, 4, 1))
    variables = variables_with(model, x, kernel=0.0, Conv_0_bias=0.5, Conv_2_bias=-1.0)
    after = entering(model, variables, x)[after_block]
    np.testing.assert_allclose(after, jnp.full((1, 4, 4, 1), expected))


def test_v2_is_its_shortcut_where_the_branch_is_zero():
    model = ResnetV2(norm=LayerNorm(), classes=2, depth=8, width=2)
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
    params = model.init(jax.random.key(0), x, train=False)["params"]
    seen = entering(model, {"params": params}, x)
    assert not np.allclose(seen["NormAct_2"], seen["stem"])
    params["Conv_2"] = jax.tree.map(jnp.zeros_like, params["Conv_2"])
    seen = entering(model, {"params": params}, x)
    np.testing.assert_array_equal(seen["NormAct_2"], seen["stem"])


# Not those without a normaliser's slot, nor the transformer, where no layer is right before one.
@pytest.mark.parametrize("model", ["mlp", "convnet", "resnet", "resnet_v2", "skipinit"])
@pytest.mark.parametrize(
    "norm", [BatchNorm(), LayerNorm(use_bias=False), RMSNorm(), RMSNorm(use_bias=True)], ids=repr
)
def test_every_arm_has_the_same_number_of_biases(model, norm):
    def biases(norm):
        found = shapes(MODELS.load(model)(norm=norm, classes=3))
        return sum(shape[0] for path, shape in found.items() if path.endswith("bias"))

    assert biases(norm) == biases(Identity())


@pytest.mark.parametrize("cls", [MLP, Convnet, Resnet, ResnetV2])
def test_weights_start_he_normal(cls):
    model = cls(norm=Identity(), classes=3)
    params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)["params"]
    for name, layer in params.items():
        if name.startswith("Dense_") and cls is not MLP:
            continue  # the head
        kernel = layer["kernel"]
        if kernel.shape[-1] == 3 or kernel.size < 1000:
            continue  # the head of the perceptron; too few numbers to judge
        fan_in = kernel.size // kernel.shape[-1]
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_in), rtol=0.12, err_msg=name)


@pytest.mark.parametrize(
    ("cls", "fields", "field"),
    [
        (Resnet, {"depth": 2}, "depth"),
        (Resnet, {"depth": 18}, "depth"),
        (Resnet, {"depth": -4}, "depth"),
        (Resnet, {"width": 0}, "width"),
        (ResnetV2, {"depth": 21}, "depth"),
        (ResnetV2, {"width": -1}, "width"),
        (MLP, {"widths": ()}, "widths"),
        (MLP, {"widths": (8, 0)}, "widths"),
        (Convnet, {"widths": (0,)}, "widths"),
        (Convnet, {"layers": 0}, "layers"),
    ],
)
def test_a_field_that_cannot_work_is_named(cls, fields, field):
    with pytest.raises(FieldError, match=field) as caught:
        cls(norm=Identity(), classes=3, **fields)
    assert caught.value.field == field
    assert repr(fields[field]) in str(caught.value)


def test_a_convnet_that_pools_an_image_away_says_so():
    model = Convnet(norm=Identity(), classes=3, widths=(4, 4, 4))
    with pytest.raises(FieldError, match="widths"):
        model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)), train=False)
