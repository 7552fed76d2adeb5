"""A torch ResNet's weights carried over and back: the same logits, in evaluation and training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.adapters.interchange import carry
from normlab.adapters.linen_weights import LinenWeights
from normlab.adapters.torch_weights import TorchWeights, load_state_dict, save_state_dict
from normlab.errors import UserError
from normlab.models.resnet import Resnet
from normlab.models.slots import NORM_STATE
from normlab.norms import BatchNorm, GroupNorm
from tests.peers import goldens, resnet

TORCHS = BatchNorm(momentum=0.9, eps=1e-5, unbiased_running_variance=True)


def ours(depth=resnet.DEPTH, width=resnet.WIDTH, norm=TORCHS):
    return Resnet(norm=norm, classes=resnet.CLASSES, depth=depth, width=width)


def stepped(model, variables, images, labels):
    """Logits in evaluation and training, and the variables after a step as torch takes it."""

    @jax.jit
    def step(variables):
        def loss(params):
            tree = {**variables, "params": params}
            logits, moved = model.apply(tree, images, train=True, mutable=[NORM_STATE])
            cross = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return cross.mean(), (logits, moved)

        gradient, (logits, moved) = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - resnet.RATE * g, variables["params"], gradient)
        return model.apply(variables, images, train=False), logits, {"params": params, **moved}

    return step(variables)


def assert_same_numbers(found, expected, tolerance=1e-5):
    assert list(found) == list(expected)
    for name, values in expected.items():
        if not name.endswith("num_batches_tracked"):  # which counts steps that ours do not
            np.testing.assert_allclose(
                found[name], values, rtol=tolerance, atol=tolerance, err_msg=name
            )


@pytest.fixture(scope="module")
def golden():
    kept = goldens.load(resnet.NAME)

    def state(when):
        start = f"{when}/"
        return {k.removeprefix(start): v for k, v in kept.items() if k.startswith(start)}

    return kept, state("before"), state("after")


@pytest.fixture(scope="module")
def carried(golden):
    kept, before, _ = golden
    return carry(TorchWeights(before), LinenWeights(ours(), kept["images"]))


def test_a_kept_torch_network_gives_its_logits_here_and_its_weights_after_a_step(golden, carried):
    kept, before, after = golden
    variables, _ = carried
    evaluated, trained, moved = stepped(ours(), variables, kept["images"], kept["labels"])
    np.testing.assert_allclose(evaluated, kept["evaluated"], atol=1e-5)
    np.testing.assert_allclose(trained, kept["trained"], atol=1e-5)
    back, _ = carry(LinenWeights(ours(), kept["images"], moved), TorchWeights(before))
    assert_same_numbers(back, after)


def test_over_and_back_every_array_is_the_same_to_the_bit(golden, carried):
    kept, before, _ = golden
    variables, _ = carried
    back, _ = carry(LinenWeights(ours(), kept["images"], variables), TorchWeights(before))
    assert list(back) == list(before)
    for name, values in before.items():
        np.testing.assert_array_equal(back[name], values, err_msg=name)
        assert back[name].dtype == values.dtype and back[name].shape == values.shape


def test_the_report_says_where_all_went_and_what_the_numbers_assume(carried):
    _, report = carried
    assert report.pairs["conv1"] == "Conv_0" and report.pairs["linear"] == "Dense_0"
    assert report.pairs["layer1.0.bn2"] == "Norm_0" and len(report.pairs) == 15
    text = str(report)
    assert "layer3.0.bn1   -> NormAct_3/Norm_0" in text
    assert "num_batches_tracked of 7 layers has no counterpart" in text
    assert "unbiased_running_variance=True" in text


def test_resnet20_in_torch_and_here_agree_over_and_back():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    images, labels = resnet.data(seed=1)
    theirs = resnet.unlike_its_start(resnet.build(20, 8, resnet.CLASSES), seed=1)
    template = theirs.state_dict()
    model = ours(20, 8)
    variables, _ = carry(TorchWeights(template), LinenWeights(model, images))
    variables = jax.tree.map(jnp.copy, variables)  # torch steps in place
    evaluated, trained, moved = stepped(model, variables, images, labels)
    np.testing.assert_allclose(evaluated, resnet.evaluated(theirs, images), atol=1e-5)
    np.testing.assert_allclose(trained, resnet.step(theirs, images, labels), atol=1e-5)
    back, _ = carry(LinenWeights(model, images, moved), TorchWeights(template))
    assert all(isinstance(values, torch.Tensor) for values in back.values())
    assert_same_numbers({k: v.numpy() for k, v in back.items()}, resnet.arrays(theirs), 2e-5)

    # And what was trained here gives its logits there.
    fresh = resnet.build(20, 8, resnet.CLASSES)
    fresh.load_state_dict(back)
    expected = jax.jit(lambda v: model.apply(v, images, train=False))(moved)
    np.testing.assert_allclose(resnet.evaluated(fresh, images), expected, atol=2e-5)


def test_a_safetensors_file_holds_the_same(tmp_path, golden, carried):
    pytest.importorskip("safetensors")
    kept, before, _ = golden
    path = tmp_path / "weights.safetensors"
    save_state_dict(before, path)
    again, report = carry(TorchWeights(load_state_dict(path)), LinenWeights(ours(), kept["images"]))
    jax.tree.map(np.testing.assert_array_equal, again, carried[0])
    assert report.pairs == carried[1].pairs
    assert load_state_dict(path)["bn1.num_batches_tracked"].shape == ()


def test_what_does_not_fit_is_listed_whole(golden):
    kept, before, _ = golden
    deeper = LinenWeights(ours(14), kept["images"])
    with pytest.raises(UserError) as found:
        carry(TorchWeights(before), deeper)
    assert str(found.value).count("target: Conv_") == 6
    with pytest.raises(UserError, match=r"mean, variance is in one alone"):
        carry(TorchWeights(before), LinenWeights(ours(norm=GroupNorm(groups=2)), kept["images"]))
    without = {name: values for name, values in before.items() if name != "linear.bias"}
    with pytest.raises(UserError, match=r"linear .* and Dense_0 .*: bias is in one alone"):
        carry(TorchWeights(without), LinenWeights(ours(), kept["images"]))
    with pytest.raises(UserError, match=r"no layer fc; it has conv1"):
        carry(TorchWeights(before), LinenWeights(ours(), kept["images"]), names={"fc": "Dense_0"})
    with pytest.raises(UserError, match="checkpoint"):
        TorchWeights({"state_dict": before, "epoch": 3})


def test_names_put_layers_of_one_shape_in_another_order(golden):
    kept, before, _ = golden
    target = LinenWeights(ours(), kept["images"])
    swapped = {"layer3.0.bn1": "Norm_2", "layer3.0.bn2": "NormAct_3/Norm_0"}
    variables, report = carry(TorchWeights(before), target, names=swapped)
    found = variables["params"]["Norm_2"]["norm"]["scale"]
    np.testing.assert_array_equal(found, before["layer3.0.bn1.weight"])
    assert report.pairs["layer3.0.bn2"] == "NormAct_3/Norm_0"


def test_a_parametrised_weight_is_refused_with_the_cure():
    with pytest.raises(UserError, match="parametrised"):
        TorchWeights({"conv.weight_g": np.ones((2, 1)), "conv.weight_v": np.ones((2, 3))}).units()
