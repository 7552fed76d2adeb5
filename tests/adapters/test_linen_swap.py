"""Layers of existing linen models replaced, and trained variables carried over."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.adapters import like_flax
from normlab.adapters.linen import Norm, swap
from normlab.errors import UserError
from normlab.norms import BatchNorm, BatchRenorm, EvoNormS0, GroupNorm, LayerNorm
from tests.norms.conftest import assert_trees_close, sample


class Unit(nn.Module):
    """Two convolutions beside a shortcut; the second scale starts at zero."""

    width: int
    stride: int
    norm: Callable

    @nn.compact
    def __call__(self, x):
        conv = partial(nn.Conv, self.width, (3, 3), use_bias=False)
        y = nn.relu(self.norm()(conv(strides=self.stride)(x)))
        y = self.norm(scale_init=nn.initializers.zeros)(conv()(y))
        if x.shape != y.shape:
            x = self.norm(name="shortcut_norm")(
                nn.Conv(self.width, (1, 1), self.stride, use_bias=False)(x)
            )
        return nn.relu(x + y)


class Network(nn.Module):
    """A residual network as in flax's examples: layers by partial, `train` in the call."""

    width: int = 16
    classes: int = 3
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = True):
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        x = nn.relu(norm(name="stem_norm")(nn.Conv(8, (3, 3), use_bias=False, name="stem")(x)))
        x = Unit(self.width, stride=2, norm=norm)(x)
        return nn.Dense(self.classes)(nn.LayerNorm(name="last")(x.mean(axis=(1, 2))))


X = jnp.asarray(sample((12, 4, 4, 3)))
LABELS = jnp.arange(12) % 3
NORMS_OF_NETWORK = [
    "stem_norm",
    "Unit_0/BatchNorm_0",
    "Unit_0/BatchNorm_1",
    "Unit_0/shortcut_norm",
]


def train(model, variables, steps=12):
    """Losses and the variables after some steps, as the examples train."""
    params = variables["params"]
    rest = {name: v for name, v in variables.items() if name != "params"}
    optimizer = optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def step(params, rest, held):
        def loss(params):
            logits, moved = model.apply({"params": params, **rest}, X, mutable=["batch_stats"])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
            return loss, {**rest, **moved}

        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, held = optimizer.update(grads, held, params)
        return optax.apply_updates(params, updates), rest, held, value

    held, losses = optimizer.init(params), []
    for _ in range(steps):
        params, rest, held, value = step(params, rest, held)
        losses.append(float(value))
    return losses, {"params": params, **rest}


@pytest.fixture(scope="module")
def start():
    return jax.jit(Network().init)(jax.random.key(3), X)


@pytest.fixture
def trained(start):
    """Variables of which none is as it starts."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda v: v + rng.uniform(0.1, 0.5, v.shape).astype(v.dtype), start)


@pytest.mark.parametrize("norm", [GroupNorm(groups=4), BatchRenorm(warm_up=2)])
def test_a_residual_network_is_swapped_in_one_line_and_trains(norm, start):
    swapped = swap(Network(), nn.BatchNorm, norm)
    losses, after = train(swapped, swapped.carry(start, X))
    assert np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]
    assert ("batch_stats" in after) == isinstance(norm, BatchRenorm)
    evaluated = jax.jit(partial(swapped.apply, train=False))(after, X)
    assert np.isfinite(evaluated).all()


def test_everything_but_the_layers_starts_as_in_the_model(start):
    swapped = swap(Network(), nn.BatchNorm, GroupNorm(groups=4))
    ours = jax.jit(swapped.init)(jax.random.key(3), X)
    # So do the scales, one of which the model starts at zero.
    assert_trees_close(ours["params"], start["params"], rtol=0)
    assert float(jnp.abs(ours["params"]["Unit_0"]["BatchNorm_1"]["scale"]).max()) == 0


def test_the_report_names_what_changed_and_what_was_left_and_why():
    def choose(layer):
        return None if layer.name == "shortcut_norm" else GroupNorm(groups=4)

    report = swap(Network(), nn.BatchNorm, choose).report(X)
    assert list(report.changed) == NORMS_OF_NETWORK[:-1]
    assert report.left == {
        "Unit_0/shortcut_norm": "the function that chooses gave none",
        "last": "LayerNorm is not among the types to replace",
    }
    assert "changed  stem_norm: GroupNorm(" in str(report)
    assert "left     last: LayerNorm is not" in str(report)
    both = swap(Network(), (nn.BatchNorm, nn.LayerNorm), LayerNorm()).report(X)
    assert list(both.changed) == [*NORMS_OF_NETWORK, "last"] and not both.left


def test_the_same_normaliser_gives_the_same_network_with_trained_variables(trained):
    swapped = swap(Network(), nn.BatchNorm, like_flax)
    for arguments in ({"train": False}, {"train": True, "mutable": ["batch_stats"]}):
        apply = [jax.jit(partial(m.apply, **arguments)) for m in (swapped, Network())]
        found, wanted = (one(trained, X) for one in apply)
        assert_trees_close(found, wanted, 1e-4, 1e-4)


def test_trained_variables_are_carried_over(trained):
    swapped = swap(Network(), nn.BatchNorm, GroupNorm(groups=4))
    carried = swapped.carry(trained, X)
    assert set(carried) == {"params"}
    assert_trees_close(carried["params"], trained["params"], rtol=0)

    swapped = swap(Network(), nn.BatchNorm, BatchRenorm())
    carried = swapped.carry({**trained, "notes": {"kept": 1}}, X)
    assert carried.pop("notes") == {"kept": 1}
    assert_trees_close(carried["params"], trained["params"], rtol=0)
    old, new = (v["batch_stats"]["Unit_0"]["BatchNorm_0"] for v in (trained, carried))
    np.testing.assert_array_equal(new["mean"], old["mean"])
    assert set(new) == {"mean", "deviation", "steps"} and float(new["steps"]) == 0
    fresh = jax.eval_shape(lambda: swapped.init(jax.random.key(0), X))
    assert jax.tree.structure(fresh) == jax.tree.structure(carried)


def test_variables_of_another_model_are_refused(trained):
    del trained["params"]["stem"]
    with pytest.raises(UserError, match="not the model's variables: they lack params/stem/kernel"):
        swap(Network(), nn.BatchNorm, GroupNorm(groups=4)).carry(trained, X)


class Tower(nn.Module):
    """Layers stacked by scan, each recomputed in its backward pass."""

    @nn.compact
    def __call__(self, x):
        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                y = nn.BatchNorm(use_running_average=False)(nn.Dense(8)(x))
                return x + nn.relu(y), None

        stack = nn.scan(
            nn.remat(Layer, prevent_cse=False),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=3,
        )
        return stack(name="layers")(x, None)[0]


def test_layers_under_scan_and_remat_are_swapped_and_their_variables_carried():
    x = jnp.asarray(sample((4, 8)))
    theirs = Tower().init(jax.random.key(0), x)
    same = swap(Tower(), nn.BatchNorm, like_flax)
    assert_trees_close(same.carry(theirs, x), theirs, rtol=0)

    def loss(model, variables):
        return (model.apply(variables, x, mutable=["batch_stats"])[0] ** 2).sum()

    grads = [jax.jit(jax.grad(partial(loss, model)))(theirs) for model in (same, Tower())]
    assert_trees_close(grads[0]["params"], grads[1]["params"], 1e-3, 1e-3)
    renorm = swap(Tower(), nn.BatchNorm, BatchRenorm())
    path = list(renorm.report(x).changed)
    assert path == ["layers/BatchNorm_0"]
    stats = renorm.carry(theirs, x)["batch_stats"]["layers"]["BatchNorm_0"]
    assert {k: v.shape for k, v in stats.items()} == {
        "mean": (3, 8),
        "deviation": (3, 8),
        "steps": (3,),
    }


class TwoWays(nn.Module):
    """One layer used twice, and a second method."""

    def setup(self):
        self.norm = nn.BatchNorm(use_running_average=False, momentum=0.5)

    def __call__(self, x):
        return self.norm(self.norm(x) + 1)

    def once(self, x, factor=1):
        return factor * self.norm(x)


def test_other_methods_are_swapped_and_a_layer_used_twice_stays_one():
    x = jnp.asarray(sample((4, 8)))
    model = TwoWays()
    same = swap(model, nn.BatchNorm, like_flax)
    variables = same.init(jax.random.key(0), x)
    assert list(variables["params"]) == ["norm"]
    for arguments in ({}, {"method": "once"}, {"method": "once", "factor": 2}):
        pair = [m.apply(variables, x, mutable=["batch_stats"], **arguments) for m in (same, model)]
        assert_trees_close(*pair, 1e-4, 1e-5)
    grouped = swap(model, nn.BatchNorm, GroupNorm(groups=2))
    once = grouped.apply({"params": variables["params"]}, x, method="once")
    np.testing.assert_allclose(once.reshape(4, 2, 4).mean(-1), 0, atol=1e-5)
    with pytest.raises(AttributeError, match="twice"):
        grouped.apply(variables, x, method="twice")


def test_a_jitted_module_is_swapped_after_it_was_called_as_it_was():
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(x)

    model, x = nn.jit(Inner)(), jnp.asarray(sample((4, 8)))
    before, _ = model.init_with_output(jax.random.key(0), x)
    after, variables = swap(model, nn.BatchNorm, GroupNorm(groups=2)).init_with_output(
        jax.random.key(0), x
    )
    assert set(variables) == {"params"}
    np.testing.assert_allclose(after.reshape(4, 2, 4).mean(-1), 0, atol=1e-5)
    assert float(abs(before - after).max()) > 0.1


def test_axis_name_and_masks_of_the_layers_are_kept():
    x, mask = jnp.asarray(sample((4, 8))), jnp.asarray([[True], [True], [False], [True]])
    model = nn.BatchNorm(use_running_average=False, axis_name="devices")
    swapped = swap(model, nn.BatchNorm, BatchNorm())
    variables = swapped.init(jax.random.key(0), x)

    def apply(x, mask):
        return swapped.apply(variables, x, mask=mask, mutable=["batch_stats"])[0]

    y = jax.vmap(apply, axis_name="devices")(x.reshape(2, 2, 8), mask.reshape(2, 2, 1))
    wanted, _ = BatchNorm().apply(*BatchNorm().init(8), x, train=True, mask=mask)
    np.testing.assert_allclose(y.reshape(4, 8), wanted, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_swapped_is_an_error_with_its_path_and_reason():
    uneven = swap(Network(width=12), nn.BatchNorm, GroupNorm(groups=8))
    with pytest.raises(UserError, match="Unit_0/BatchNorm_0: groups=8 does not divide the 12"):
        jax.eval_shape(uneven.init, jax.random.key(0), X)
    with pytest.raises(UserError, match=r"nothing is swapped(.|\n)*shortcut_norm(.|\n)*or None"):
        uneven.report(X)
    with pytest.raises(UserError, match="last: LayerNorm does not know training from evaluation"):
        jax.eval_shape(swap(Network(), nn.LayerNorm, BatchNorm()).init, jax.random.key(0), X)
    with pytest.raises(UserError, match=r"has no RMSNorm to swap; it has\nleft     stem_norm"):
        swap(Network(), nn.RMSNorm, LayerNorm()).report(X)
    first = nn.BatchNorm(use_running_average=False, axis=1)
    with pytest.raises(UserError, match=r"axis=\(1,\)"):
        swap(first, nn.BatchNorm, LayerNorm()).init(jax.random.key(0), X)
    with pytest.raises(UserError, match="given by their type"):
        swap(Network(), nn.BatchNorm(), LayerNorm())
    with pytest.raises(UserError, match="is a normaliser, such as"):
        swap(Network(), nn.BatchNorm, lambda layer: nn.LayerNorm()).report(X)


def test_a_fused_normaliser_tells_of_the_second_activation():
    with pytest.warns(UserWarning, match="EvoNormS0 contains the activation"):
        report = swap(Network(), nn.BatchNorm, EvoNormS0(groups=4)).report(X)
    assert len(report.changed) == 4


def test_normlabs_own_layers_can_be_swapped_too():
    model = nn.Sequential([nn.Dense(8), Norm(BatchNorm(), use_running_average=False)])
    variables = swap(model, Norm, GroupNorm(groups=2)).init(jax.random.key(0), X)
    assert set(variables) == {"params"}
