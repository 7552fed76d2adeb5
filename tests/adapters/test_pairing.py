"""Each layer gets the right weights where several have one shape, or `carry` refuses."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from normlab.adapters import (
    LinenWeights,
    NnxWeights,
    TorchWeights,
    carry,
    load_state_dict,
    save_state_dict,
)
from normlab.adapters.linen import Norm
from normlab.adapters.nnx import swap
from normlab.errors import UserError
from normlab.norms import GroupNorm
from tests.adapters.shared import assert_computes, assert_same_arrays

WIDTH = 4
X = np.random.default_rng(1).standard_normal((3, WIDTH)).astype(np.float32)


def state_of(*names, seed=0):
    """A state dict of dense layers of one shape, in this order."""
    draw = np.random.default_rng(seed)
    state = {}
    for name in names:
        state[f"{name}.weight"] = draw.standard_normal((WIDTH, WIDTH)).astype(np.float32)
        state[f"{name}.bias"] = draw.standard_normal(WIDTH).astype(np.float32)
    return state


def norm_of(name, seed):
    draw = np.random.default_rng(seed)
    one = {"weight": draw.standard_normal(WIDTH), "bias": draw.standard_normal(WIDTH)}
    one |= {"running_mean": draw.standard_normal(WIDTH), "running_var": draw.uniform(1, 2, WIDTH)}
    return {f"{name}.{leaf}": values.astype(np.float32) for leaf, values in one.items()}


def through(state, *calls):
    """Compute by numpy what layers give in this order, with a rectifier behind each."""
    x = X.astype(np.float64)
    for name in calls:
        if f"{name}.running_mean" in state:
            deviation = np.sqrt(state[f"{name}.running_var"].astype(np.float64) + 1e-5)
            x = (x - state[f"{name}.running_mean"]) / deviation
            x = x * state[f"{name}.weight"] + state[f"{name}.bias"]
        else:
            weight = state[f"{name}.weight"].astype(np.float64)
            x = np.maximum(x @ weight.T + state[f"{name}.bias"], 0)
    return x


class Linen(nn.Module):
    """Dense layers of these names, in the order of calls; None for linen's own name."""

    calls: tuple[str | None, ...]

    @nn.compact
    def __call__(self, x):
        for name in self.calls:
            x = nn.relu(nn.Dense(WIDTH, name=name)(x))
        return x


class Nnx(nnx.Module):
    """Dense layers of the names `defined`, in that order, called in another."""

    def __init__(self, defined, calls):
        rngs = nnx.Rngs(0)
        for name in defined:
            setattr(self, name, nnx.Linear(WIDTH, WIDTH, rngs=rngs))
        self.calls = calls

    def __call__(self, x):
        for name in self.calls:
            x = nnx.relu(getattr(self, name)(x))
        return x


def refused(source, target, *words):
    with pytest.raises(UserError) as found:
        carry(source, target)
    for word in (*words, "names={"):
        assert word in str(found.value)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_equal_names_are_never_crossed(prefix):
    state = state_of(prefix + "second", prefix + "first")
    expected = through(state, prefix + "first", prefix + "second")
    linen = Linen(("first", "second"))
    variables, report = carry(TorchWeights(state), LinenWeights(linen, X))
    assert_computes(linen.apply(variables, X), expected)
    assert report.pairs == {prefix + name: name for name in ("second", "first")}
    assert set(report.rules.values()) == {"the names are equal"}
    assert f"{prefix}second -> second  (the names are equal)" in str(report)
    start = Nnx(("second", "first"), ("first", "second"))
    for side in (NnxWeights(start), NnxWeights(start, X), NnxWeights(nnx.clone(start))):
        for source in (TorchWeights(state), LinenWeights(linen, X, variables)):
            model, _ = carry(source, side)
            assert_computes(model(X), expected)
            assert_same_arrays(carry(NnxWeights(model), TorchWeights(state))[0], state)


MANY = tuple(f"blocks.{place}.fc" for place in range(12))


def test_members_of_long_lists_have_one_name_in_every_library():
    class Listed(nn.Module):
        def setup(self):
            self.blocks = [Inner() for _ in range(12)]

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    class Inner(nn.Module):
        def setup(self):
            self.fc = nn.Dense(WIDTH)

        def __call__(self, x):
            return nn.relu(self.fc(x))

    class Whole(nnx.Module):
        def __init__(self):
            self.blocks = nnx.List([Nnx(("fc",), ("fc",)) for _ in range(12)])

        def __call__(self, x):
            return functools.reduce(lambda x, block: block(x), self.blocks, x)

    state = state_of(*MANY)
    expected = through(state, *MANY)
    textual = dict(sorted(state.items()))  # blocks.10 comes before blocks.2
    variables, _ = carry(TorchWeights(textual), LinenWeights(Listed(), X))
    assert_computes(Listed().apply(variables, X), expected)
    model, report = carry(LinenWeights(Listed(), X, variables), NnxWeights(nnx.clone(Whole())))
    assert_computes(model(X), expected)
    assert report.pairs["blocks_10/fc"] == "blocks/10/fc"
    assert_same_arrays(carry(NnxWeights(model), TorchWeights(textual))[0], textual)


@pytest.mark.parametrize("lost", [False, True], ids=["defined", "cloned"])
def test_members_of_one_list_are_in_the_order_of_their_indices(lost):
    """torch's indices count the rectifiers between; a list's here do not."""
    names = [str(2 * place) for place in range(12)]
    state = state_of(*names)
    start = nnx.Sequential(
        *[part for _ in names for part in (nnx.Linear(WIDTH, WIDTH, rngs=nnx.Rngs(0)), nnx.relu)]
    )
    plain = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=nnx.Rngs(0)) for _ in names])
    for model in (start, plain):
        target = nnx.clone(model) if lost else model
        found, _ = carry(TorchWeights(dict(sorted(state.items()))), NnxWeights(target))
        if model is plain:
            x = functools.reduce(lambda x, layer: nnx.relu(layer(x)), found, X)
        else:
            x = found(X)
        assert_computes(x, through(state, *names))
        assert_same_arrays(carry(NnxWeights(found), TorchWeights(state))[0], state)


CALLS = ("b", "c", "a")
"""Not the order of the names, nor that of the definition in `Nnx`."""


def torch_and_nnx():
    state = state_of("z", "x", "y")
    return state, Nnx(("c", "a", "b"), CALLS), through(state, "z", "x", "y")


@pytest.mark.parametrize("lost", [False, True], ids=["defined", "cloned"])
def test_layers_of_other_names_are_paired_in_the_order_of_calls(lost):
    state, start, expected = torch_and_nnx()
    start = nnx.clone(start) if lost else start
    model, report = carry(TorchWeights(state), NnxWeights(start, X))
    assert_computes(model(X), expected)
    assert report.pairs == {"z": "b", "x": "c", "y": "a"}
    assert "z -> b  (equal in shape; in the order of definition there, of calls here)" in str(
        report
    )
    assert_same_arrays(carry(NnxWeights(model, X), TorchWeights(state))[0], state)
    linen = Linen((None, None, None))
    variables, _ = carry(NnxWeights(model, X), LinenWeights(linen, X))
    assert_computes(linen.apply(variables, X), expected)
    again, _ = carry(LinenWeights(linen, X, variables), NnxWeights(start, X))
    assert_same_arrays(carry(NnxWeights(again, X), TorchWeights(state))[0], state)
    renamed = Linen(CALLS)
    others, _ = carry(LinenWeights(linen, X, variables), LinenWeights(renamed, X))
    assert_computes(renamed.apply(others, X), expected)


def test_without_a_call_an_order_of_equals_is_refused_and_both_mends_work():
    state, start, expected = torch_and_nnx()
    for side in (NnxWeights(start), NnxWeights(nnx.clone(start))):
        refused(TorchWeights(state), side, "source: z, x, y", "NnxWeights(model, images)")
        refused(side, LinenWeights(Linen((None,) * 3), X), "target: Dense_0, Dense_1, Dense_2")
    names: dict[str, str] = dict(zip("zxy", CALLS, strict=True))
    model, report = carry(TorchWeights(state), NnxWeights(start), names=names)
    assert_computes(model(X), expected)
    assert set(report.rules.values()) == {"as names says"}
    with pytest.raises(UserError, match="b of the target is given twice"):
        carry(TorchWeights(state), NnxWeights(start), names={"z": "b", "x": "b"})


def test_a_state_dict_that_lost_its_order_is_refused_and_one_in_order_is_not():
    names = ("stem", "body.0.down", "body.0.up", "body.1.down", "body.1.up", "head")
    state = state_of(*names)
    target = LinenWeights(Linen((None,) * 6), X)
    variables, _ = carry(TorchWeights(state), target)
    assert_computes(Linen((None,) * 6).apply(variables, X), through(state, *names))
    keys = list(state)
    layerwise = [names[place] for place in (1, 0, 2, 3, 4, 5)]
    lists = [names[place] for place in (0, 3, 4, 1, 2, 5)]
    for order in (
        sorted(keys),
        keys[::-1],
        [key for name in layerwise for key in (f"{name}.weight", f"{name}.bias")],
        [key for name in lists for key in (f"{name}.weight", f"{name}.bias")],
    ):
        mixed = {key: state[key] for key in order}
        refused(TorchWeights(mixed), target, "Dense_0", "module.state_dict()")


def test_an_order_of_definition_that_numbers_contradict_is_refused():
    state = state_of("fc2", "fc1")
    refused(TorchWeights(state), LinenWeights(Linen((None, None)), X), "fc2, fc1")


def test_an_order_that_equal_names_contradict_pairs_no_others():
    state = state_of("second", "first", "x", "y")
    linen = Linen(("first", "second", None, None))
    refused(TorchWeights(state), LinenWeights(linen, X), "x, y", "Dense_0, Dense_1")
    names = {"x": "Dense_1", "y": "Dense_0"}
    variables, _ = carry(TorchWeights(state), LinenWeights(linen, X), names=names)
    assert_computes(linen.apply(variables, X), through(state, "first", "second", "y", "x"))


def test_indices_that_are_shifted_are_no_names():
    """Two of torch's `layers.0, layers.2, layers.4` are here, and neither is the same layer."""
    state = state_of("layers.0", "layers.2", "layers.4")

    class Listed(nnx.Module):
        def __init__(self):
            self.layers = nnx.List([nnx.Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(3)])

        def __call__(self, x):
            return functools.reduce(lambda x, layer: nnx.relu(layer(x)), self.layers, x)

    for side in (NnxWeights(Listed()), NnxWeights(Listed(), X)):
        refused(TorchWeights(state), side, "layers.4", "layers/1")


def test_names_that_linen_makes_are_not_believed_against_the_order_of_calls():
    class Crossed(nn.Module):
        @nn.compact
        def __call__(self, x):
            later, earlier = nn.Dense(WIDTH), nn.Dense(WIDTH)
            return later(nn.relu(earlier(x)))

    class Straight(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(WIDTH)(x))
            return nn.Dense(WIDTH)(x)

    made: Any = [model.init(jax.random.key(0), X) for model in (Crossed(), Straight())]
    assert set(made[0]["params"]) == set(made[1]["params"])
    source = LinenWeights(Crossed(), X, made[0])
    assert [unit.name for unit in source.units()] == ["Dense_1", "Dense_0"]
    refused(source, LinenWeights(Straight(), X), "Dense_1, Dense_0")
    same, _ = carry(source, LinenWeights(Crossed(), X))
    jax.tree.map(np.testing.assert_array_equal, same, made[0])


def test_statistics_travel_with_the_layer_before_them():
    """The dense layers are crossed by name, and the norms have no names in common."""

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            for name in ("first", "second"):
                x = nn.relu(nn.Dense(WIDTH, name=name)(x))
                x = nn.BatchNorm(use_running_average=True)(x)
            return x

    state = {}
    for seed, name in enumerate(("second", "first")):
        state |= state_of(name, seed=seed) | norm_of(f"n{name}", seed + 5)
    variables, report = carry(TorchWeights(state), LinenWeights(Normed(), X))
    expected = through(state, "first", "nfirst", "second", "nsecond")
    assert_computes(Normed().apply(variables, X), expected)
    assert report.rules["nfirst"] == "the layers before them are a pair"
    assert_same_arrays(carry(LinenWeights(Normed(), X, variables), TorchWeights(state))[0], state)


class Branches(nnx.Module):
    """Two branches of one shape, then a layer that stands under two names and is called twice."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.zz = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.right = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.left = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.aa = self.zz

    def __call__(self, x):
        x = nnx.relu(self.left(x)) - nnx.relu(self.right(x))
        return self.aa(self.zz(x))


def test_branches_and_a_shared_layer():
    state = state_of("left", "right", "both")
    weight, bias = (state[f"both.{leaf}"].astype(np.float64) for leaf in ("weight", "bias"))
    x = through(state, "left") - through(state, "right")
    expected = (x @ weight.T + bias) @ weight.T + bias
    start = Branches()
    for side in (NnxWeights(start), NnxWeights(start, X), NnxWeights(nnx.clone(start))):
        model, report = carry(TorchWeights(state), side)
        assert_computes(model(X), expected)
        assert model.aa is model.zz and model.zz.kernel is not start.zz.kernel
        assert report.rules["left"] == "the names are equal"
        assert_same_arrays(carry(NnxWeights(model), TorchWeights(state))[0], state)


def test_a_copy_keeps_the_order_of_definition():
    state, start, _ = torch_and_nnx()
    model, _ = carry(TorchWeights(state), NnxWeights(start, X))
    assert list(vars(model)) == list(vars(start)) != sorted(vars(start))


def test_a_swapped_model_has_its_weights_in_their_places():
    class Normed(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.b = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
            self.late = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.a = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
            self.early = nnx.LayerNorm(WIDTH, rngs=rngs)

        def __call__(self, x):
            return self.late(nnx.relu(self.b(self.early(nnx.relu(self.a(x))))))

    start = Normed()
    swap(start, nnx.LayerNorm, GroupNorm(groups=2, eps=1e-5))
    state = state_of("0", "2")
    norms = [norm_of(name, seed) for seed, name in enumerate(("1", "3"))]
    for name, norm in zip(("1", "3"), norms, strict=True):
        state |= {key: norm[key] for key in (f"{name}.weight", f"{name}.bias")}
    state = dict(sorted(state.items(), key=lambda item: item[0].partition(".")[0]))
    model, report = carry(TorchWeights(state), NnxWeights(start, X))
    assert report.pairs == {"0": "a", "1": "early", "2": "b", "3": "late"}
    x = X.astype(np.float64)
    for dense, norm in (("0", "1"), ("2", "3")):
        x = np.maximum(x @ state[f"{dense}.weight"].T + state[f"{dense}.bias"], 0)
        groups = x.reshape(len(x), 2, 2)
        centred = groups - groups.mean(-1, keepdims=True)
        x = (centred / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)).reshape(x.shape)
        x = x * state[f"{norm}.weight"] + state[f"{norm}.bias"]
    assert_computes(model(X), x)


def test_group_norm_of_vectors_flattens_no_image():
    """It divides the channels and puts them together again, as if they were an image."""

    class Grouped(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(WIDTH, name="a")(x)
            return nn.Dense(WIDTH, name="b")(Norm(GroupNorm(groups=2, eps=1e-5), name="n")(x))

    state = state_of("a", "b") | {"n.weight": np.arange(4, dtype="f"), "n.bias": np.ones(4, "f")}
    variables, report = carry(TorchWeights(state), LinenWeights(Grouped(), X))
    groups = (X @ state["a.weight"].T + state["a.bias"]).astype(np.float64).reshape(3, 2, 2)
    groups = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(
        groups.var(-1, keepdims=True) + 1e-5
    )
    x = groups.reshape(3, WIDTH) * state["n.weight"] + state["n.bias"]
    assert_computes(Grouped().apply(variables, X), x @ state["b.weight"].T + state["b.bias"])
    assert "another order" not in str(report)


class Flat(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.head = nnx.Linear(12, 12, rngs=rngs)
        self.norm = nnx.BatchNorm(12, use_running_average=True, rngs=rngs)
        self.conv = nnx.Conv(1, 3, (1, 1), rngs=rngs)

    def __call__(self, x):
        x = self.conv(x)
        return self.head(self.norm(x.reshape(len(x), -1)))


def test_a_call_shows_which_layers_take_a_flattened_image():
    draw = np.random.default_rng(0)
    shapes = {"conv.weight": (3, 1, 1, 1), "conv.bias": (3,)}
    shapes |= {f"norm.{leaf}": (12,) for leaf in ("weight", "bias", "running_mean")}
    shapes |= {"norm.running_var": (12,), "head.weight": (12, 12), "head.bias": (12,)}
    state = {name: np.exp(draw.standard_normal(shape)) for name, shape in shapes.items()}
    state = {name: values.astype(np.float32) for name, values in state.items()}
    images = draw.standard_normal((2, 2, 2, 1)).astype(np.float32)
    channels = images[..., 0].reshape(2, 1, 4) * state["conv.weight"].reshape(3, 1)
    x = (channels + state["conv.bias"][:, None]).reshape(2, 12)  # channels first, as in torch
    x = (x - state["norm.running_mean"]) / np.sqrt(state["norm.running_var"] + 1e-5)
    x = (x * state["norm.weight"] + state["norm.bias"]) @ state["head.weight"].T
    model, report = carry(TorchWeights(state), NnxWeights(Flat(), images))
    assert_computes(model(images), x + state["head.bias"])
    assert "head: its inputs are in another order" in str(report)
    assert_same_arrays(carry(NnxWeights(model, images), TorchWeights(state))[0], state)
    for lost in (Flat(), nnx.clone(Flat())):  # by neither order the head comes after the layer
        with pytest.raises(UserError, match=r"(?s)head.*norm.*NnxWeights.model, images"):
            NnxWeights(nnx.clone(lost)).units()


def test_a_safetensors_file_of_ours_keeps_the_order_and_another_is_refused(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    state, target = state_of("z", "a", "m"), LinenWeights(Linen((None,) * 3), X)
    save_state_dict(state, tmp_path / "ours.safetensors")
    loaded = load_state_dict(tmp_path / "ours.safetensors")
    assert list(loaded) == list(state)
    variables, _ = carry(TorchWeights(loaded), target)
    assert_computes(Linen((None,) * 3).apply(variables, jnp.asarray(X)), through(state, *"zam"))
    library.save_file(state, tmp_path / "theirs.safetensors")
    refused(TorchWeights(load_state_dict(tmp_path / "theirs.safetensors")), target, "a, m, z")
