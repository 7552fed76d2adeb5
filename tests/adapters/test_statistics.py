"""Statistics taken anew: exact from data, or a test batch's weighed as in the paper."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.adapters.flax_names import flax_name
from normlab.adapters.linen import Norm
from normlab.adapters.statistics import adapt, recalibrate, recalibrate_layer_by_layer
from normlab.catalogue import NORMS
from normlab.errors import UserError
from normlab.models.plain import MLP, Convnet
from normlab.models.slots import NORM_STATE
from normlab.norms import BatchGroupNorm, BatchNorm, BatchRenorm, GroupNorm

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Linen(nn.Module):
    """A network with dropout as people write it in flax; the first layer sees the data itself."""

    @nn.compact
    def __call__(self, x, training):
        x = nn.BatchNorm(use_running_average=not training, name="first")(x)
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        x = nn.Dropout(0.5, deterministic=not training)(x)
        x = Norm(BatchNorm(), name="second")(x, use_running_average=not training)
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def batches():
    """Unequal in size, and shifted from each other."""
    draw = np.random.default_rng(0)
    return [
        jnp.asarray(draw.normal(shift, 1 + shift, (n, 4, 4, 2)), jnp.float32)
        for n, shift in ((4, 0), (2, 3), (6, 1))
    ]


@pytest.fixture(scope="module")
def linen(batches):
    return Linen().init(jax.random.key(0), batches[0], training=False)


def begun(model, x):
    """Its variables, drawn as by an initialisation, but faster."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    draw = np.random.default_rng(0)

    def one(path, leaf):
        if path[-1].key == "kernel":
            values = draw.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        else:
            values = np.full(leaf.shape, float(path[-1].key in ("scale", "variance")))
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def evaluated(model, variables, x):
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)


def moments(batches):
    every = np.concatenate([np.asarray(b, np.float64) for b in batches]).reshape(-1, 2)
    return every.mean(axis=0), every.var(axis=0)


def test_the_first_layers_statistics_are_those_of_all_the_data(batches, linen):
    new = recalibrate(Linen(), linen, batches, training=False)
    mean, variance = moments(batches)
    np.testing.assert_allclose(new["batch_stats"]["first"]["mean"], mean, **CLOSE)
    np.testing.assert_allclose(new["batch_stats"]["first"]["var"], variance, **CLOSE)
    jax.tree.map(np.testing.assert_array_equal, new["params"], linen["params"])
    assert jax.tree.structure(new) == jax.tree.structure(linen)


def test_averaged_variances_are_low_by_exactly_the_variance_of_the_means():
    draw = np.random.default_rng(1)
    equal = [jnp.asarray(draw.normal(m, 1, (4, 2, 2, 2)), jnp.float32) for m in (0, 2, 5)]
    variables = Linen().init(jax.random.key(0), equal[0], training=False)
    exact = recalibrate(Linen(), variables, equal, training=False)["batch_stats"]["first"]["var"]
    each = [moments([batch]) for batch in equal]
    averaged = np.mean([variance for _, variance in each], axis=0)
    between = np.var([mean for mean, _ in each], axis=0)
    assert (between > 1).all()
    np.testing.assert_allclose(exact - averaged, between, rtol=1e-5)


def test_the_second_layer_sees_batches_normalised_by_themselves(batches, linen):
    """By hand, each batch less its own mean goes through the convolution, and all are pooled."""
    inputs = []
    for batch in batches:
        z = (batch - batch.mean(axis=(0, 1, 2), keepdims=True)) / jnp.sqrt(
            batch.var(axis=(0, 1, 2), keepdims=True) + 1e-5
        )
        conv = nn.Conv(4, (3, 3))
        inputs.append(nn.relu(conv.apply({"params": linen["params"]["conv"]}, z)))
    every = np.concatenate(inputs).reshape(-1, 4)
    new = recalibrate(Linen(), linen, batches, training=False)["batch_stats"]["second"]
    np.testing.assert_allclose(new["mean"], every.mean(axis=0), **CLOSE)
    np.testing.assert_allclose(new["var"], every.var(axis=0), rtol=1e-4)


def test_layer_by_layer_every_layer_has_the_statistics_of_what_it_takes_in_at_evaluation(batches):
    model = Convnet(norm=BatchNorm(), classes=3, widths=(4,), layers=3)
    variables = begun(model, batches[0])
    new = recalibrate_layer_by_layer(model, variables, batches)
    whole = jnp.concatenate(batches)
    # One batch that is all the data is normalised by its own statistics: the same thing.
    expected = recalibrate(model, variables, [whole])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        new[NORM_STATE],
        expected[NORM_STATE],
    )
    by_batch = recalibrate(model, variables, batches)
    a, b = (jax.tree.leaves(tree[NORM_STATE])[-1] for tree in (new, by_batch))
    assert not np.allclose(a, b, rtol=1e-2), "the two meanings differ, or one name would do"


def test_one_batch_evaluated_with_its_own_statistics_is_training(batches):
    model = MLP(norm=BatchNorm(), classes=3, widths=(5, 4), activation="relu")
    x = batches[2]
    variables = begun(model, x)
    trained, _ = model.apply(variables, x, train=True, mutable=[NORM_STATE])
    for new in (recalibrate(model, variables, [x]), adapt(model, variables, x, prior=0)):
        np.testing.assert_allclose(evaluated(model, new, x), trained, rtol=1e-4, atol=1e-4)


NAMES = list(NORMS.entries())


@pytest.mark.parametrize("name", NAMES)
def test_every_normaliser_is_renewed_or_refused_or_has_nothing_to_renew(name):
    """Renewed: repeated training on one batch converges to the state that recalibration gives."""
    cls = NORMS.load(name)
    fields = {"momentum": 0.0} if cls.facts.keeps_moments and hasattr(cls, "momentum") else {}
    norm = cls(**fields)
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (6, 2, 2, 16)), jnp.float32)
    params, state = norm.init(16)
    if norm.facts.backward_state:
        pytest.skip("no layer holds it")
    model = Norm(norm, use_running_average=False)
    stats = {flax_name(key): leaf for key, leaf in state.items()}
    variables = {"params": params, **({"batch_stats": stats} if stats else {})}
    if not cls.facts.keeps_moments:
        match = "not the moments" if state else "keeps no statistics"
        with pytest.raises(UserError, match=match):
            recalibrate(model, variables, [x])
        return
    if name != "frozen_batch_norm":
        _, state = jax.jit(lambda x: norm.apply(params, state, x, train=True))(x)
    else:
        state = {"mean": x.mean(axis=(0, 1, 2)), "variance": x.var(axis=(0, 1, 2))}
    new = recalibrate(model, variables, [x])["batch_stats"]
    for key in {"mean", "variance", "deviation"} & set(state):
        found = new["var" if key == "variance" else key]
        np.testing.assert_allclose(found, state[key], rtol=1e-5, err_msg=key)


def test_renormalisation_and_grouped_statistics_pool_as_variances(batches):
    """A deviation is the root of the pooled variance, not the mean of the batches' deviations."""
    mean, variance = moments(batches)
    model = Norm(BatchRenorm(eps=1e-3))
    variables = model.init(jax.random.key(0), batches[0], use_running_average=True)
    new = recalibrate(model, variables, batches)["batch_stats"]
    np.testing.assert_allclose(new["deviation"], np.sqrt(variance + 1e-3), rtol=1e-5)
    model = Norm(BatchGroupNorm(groups=1))
    variables = model.init(jax.random.key(0), batches[0], use_running_average=True)
    new = recalibrate(model, variables, batches)["batch_stats"]
    pooled = variance.mean() + mean.var()
    np.testing.assert_allclose(new["var"], [pooled, pooled], rtol=1e-5)


def test_an_unbiased_running_variance_is_unbiased_over_all_the_data(batches):
    model = Norm(BatchNorm(unbiased_running_variance=True))
    variables = model.init(jax.random.key(0), batches[0], use_running_average=True)
    new = recalibrate(model, variables, batches)["batch_stats"]
    count = sum(batch[..., 0].size for batch in batches)
    np.testing.assert_allclose(new["var"], moments(batches)[1] * count / (count - 1), rtol=1e-6)


def test_a_layer_that_is_called_twice_pools_both_calls(batches):
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            norm = nn.BatchNorm(use_running_average=True)
            return norm(x) + norm(x + 4)

    x = batches[0]
    new = recalibrate(Twice(), Twice().init(jax.random.key(0), x), [x])["batch_stats"]
    mean, variance = moments([x, x + 4])
    np.testing.assert_allclose(new["BatchNorm_0"]["mean"], mean, **CLOSE)
    np.testing.assert_allclose(new["BatchNorm_0"]["var"], variance, rtol=1e-5)


def test_layers_inside_scan_and_remat_are_reached(batches):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = nn.remat(nn.BatchNorm)(use_running_average=True, name="norm")(x)
            return nn.relu(nn.Dense(2)(x)), None

    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                Block,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                length=3,
            )
            return scan(name="blocks")(x, None)[0]

    variables = Scanned().init(jax.random.key(0), batches[0])
    new = recalibrate(Scanned(), variables, batches)["batch_stats"]["blocks"]["norm"]
    assert new["mean"].shape == (3, 2)
    np.testing.assert_allclose(new["mean"][0], moments(batches)[0], **CLOSE)
    np.testing.assert_allclose(new["var"][0], moments(batches)[1], rtol=1e-5)


@pytest.mark.parametrize("prior", [0, 6, 16])
def test_adaptation_weighs_source_and_test_batch_as_the_paper_does(prior, batches, linen):
    x = batches[2]
    source = linen["batch_stats"]["first"]
    source = {"mean": source["mean"] + 2, "var": source["var"] * 9}
    variables = {**linen, "batch_stats": {**linen["batch_stats"], "first": source}}
    new = adapt(Linen(), variables, x, prior=prior, training=False)["batch_stats"]["first"]
    mean, variance = moments([x])
    n = len(x)
    for name, test in (("mean", mean), ("var", variance)):
        expected = (prior * source[name] + n * test) / (prior + n)
        np.testing.assert_allclose(new[name], expected, rtol=1e-5)


def test_an_infinite_prior_is_the_source_and_a_large_one_approaches_it(batches, linen):
    stays = adapt(Linen(), linen, batches[0], prior=math.inf, training=False)
    jax.tree.map(np.testing.assert_array_equal, stays, linen)
    near = adapt(Linen(), linen, batches[0], prior=1e9, training=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), near, linen)


def test_adaptation_undoes_a_change_of_contrast_and_brightness(batches):
    model = Convnet(norm=BatchNorm(), classes=3, widths=(4,))
    x = batches[2]
    variables = begun(model, x)
    shifted = 3 * x + 5
    logits = [
        evaluated(model, adapt(model, variables, images, prior=0), images)
        for images in (x, shifted)
    ]
    # All but the border, where padding with zeros knows nothing of the change, is the same.
    assert (
        np.abs(logits[0] - logits[1]).max()
        < np.abs(logits[0] - evaluated(model, variables, shifted)).max() / 2
    )


def test_what_cannot_be_done_is_refused_with_the_reason(batches, linen):
    with pytest.raises(UserError, match="no batches"):
        recalibrate(Linen(), linen, [], training=False)
    with pytest.raises(UserError, match="iterator"):
        recalibrate_layer_by_layer(Linen(), linen, iter(batches), training=False)
    with pytest.raises(UserError, match="prior=-1"):
        adapt(Linen(), linen, batches[0], prior=-1, training=False)
    plain = MLP(norm=GroupNorm(groups=1), classes=2)
    variables = begun(plain, batches[0])
    with pytest.raises(UserError, match="keeps no statistics"):
        recalibrate(plain, variables, batches)


def test_what_is_not_finite_is_refused_or_leaves_the_statistics_alone():
    model = nn.Sequential([nn.BatchNorm(use_running_average=True)])
    x = jnp.array([[1.0, 1.0], [3.0, 3.0]])
    bad = x.at[0, 1].set(jnp.nan)
    variables = model.init(jax.random.key(0), x)
    with pytest.raises(UserError, match="in 1 of 2 channels"):
        recalibrate(model, variables, [x, bad])
    new = adapt(model, variables, bad, prior=0)["batch_stats"]["layers_0"]
    np.testing.assert_array_equal(new["mean"], [2, 0])
    np.testing.assert_array_equal(new["var"], [1, 1])
