"""Each policy equals a two-layer network by hand, in float64 numpy or by a gradient of jax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from normlab.adapters.classifier import Classifier
from normlab.catalogue import POLICIES
from normlab.errors import FieldError, UserError
from normlab.models import MLP
from normlab.norms import BatchNorm, GroupNorm, Identity
from normlab.policies import SAR, TTN, AlphaBN, Exact, Stored, Tent, TestBatch
from normlab.policies.contract import Source
from normlab.policies.ttn import as_prior

CLASSES = 3


@pytest.fixture(autouse=True, scope="module")
def _promotion():
    """Adam of optax raises a decay to a whole number of steps."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def trained(norm, seed=0):
    """Return a network with statistics and scales that are not those of the start."""
    network = Classifier(MLP(norm, classes=CLASSES, widths=(6,), activation="relu"))
    images = jax.ShapeDtypeStruct((1, 2, 2, 1), jnp.float32)
    params, state = network.init(jax.random.key(seed), images)
    rng = np.random.default_rng(seed)

    def shaken(leaf):
        return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)

    norms = [name for name in params if "Norm" in name]
    params = {**params, **{name: jax.tree.map(shaken, params[name]) for name in norms}}
    return network, params, jax.tree.map(shaken, state)


def images_of(n=8, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(0.5, 2, (n, 2, 2, 1)), jnp.float32)


@pytest.fixture(scope="module")
def net():
    return trained(BatchNorm())


@pytest.fixture(scope="module")
def source():
    images = jnp.stack([images_of(seed=5), images_of(seed=6)])
    return Source(images, jnp.arange(16).reshape(2, 8) % CLASSES, jax.random.key(0))


def leaf(tree, end):
    """Return the one leaf whose path ends so, as float64."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    (found,) = [
        v for p, v in paths if jax.tree_util.keystr(p, simple=True, separator="/").endswith(end)
    ]
    return np.asarray(found, np.float64)


def by_hand(params, x, mean=None, variance=None, xp=np, scale=None, bias=None):
    """Compute the logits of dense, batch norm, relu, dense; by the batch's moments if not given."""
    scale = leaf(params, "norm/scale") if scale is None else scale
    bias = leaf(params, "norm/bias") if bias is None else bias
    hidden = xp.asarray(x, scale.dtype).reshape(len(x), -1) @ xp.asarray(
        leaf(params, "Dense_0/kernel"), scale.dtype
    )
    if "bias" in params["Dense_0"]:
        hidden = hidden + xp.asarray(params["Dense_0"]["bias"], scale.dtype)[None]
    mean = hidden.mean(axis=0) if mean is None else mean
    variance = hidden.var(axis=0) if variance is None else variance
    normed = (hidden - mean[None]) / xp.sqrt(variance[None] + 1e-5) * scale[None] + bias[None]
    last = params["Dense_1"]
    return (
        xp.maximum(normed, 0) @ xp.asarray(last["kernel"], scale.dtype)
        + xp.asarray(last["bias"], scale.dtype)[None]
    )


def moments(params, x):
    hidden = np.asarray(x, np.float64).reshape(len(x), -1) @ leaf(params, "Dense_0/kernel")
    if "bias" in params["Dense_0"]:
        hidden = hidden + np.asarray(params["Dense_0"]["bias"], np.float64)
    return hidden.mean(axis=0), hidden.var(axis=0)


def answers(policy, net, source, *batches):
    network, params, state = net
    adapted = policy.begin(network, params, state, source)
    found = []
    for batch in batches:
        logits, adapted = jax.jit(partial(policy.answer, network))(adapted, batch)
        found.append(np.asarray(logits))
    return found, adapted


def test_the_catalogue_has_each_by_name():
    assert set(POLICIES.entries()) == {
        "alpha_bn",
        "exact",
        "sar",
        "stored",
        "tent",
        "test_batch",
        "ttn",
    }
    for name in POLICIES.entries():
        assert POLICIES.load(name).facts.paper.startswith("arXiv:")


@pytest.mark.parametrize(
    "policy, weight", [(Stored(), 1.0), (TestBatch(), 0.0), (TestBatch(prior=24), 0.75),
                       (AlphaBN(0.9), 0.9), (AlphaBN(0.0), 0.0)]
)  # fmt: skip
def test_a_mixture_of_statistics_is_that_by_hand(net, source, policy, weight):
    _, params, state = net
    x = images_of()
    (found,), adapted = answers(policy, net, source, x)
    batch = moments(params, x)
    mixed = [
        weight * leaf(state, name) + (1 - weight) * one
        for name, one in zip(("mean", "variance"), batch, strict=True)
    ]
    np.testing.assert_allclose(found, by_hand(params, x, *mixed), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(leaf(adapted.last, "mean"), mixed[0], rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, adapted.norm_state, state)


def test_exact_takes_the_moments_of_the_sources_images(net, source):
    _, params, _ = net
    (found,), _ = answers(Exact(), net, source, images_of())
    exact = moments(params, source.images.reshape(-1, 2, 2, 1))
    np.testing.assert_allclose(found, by_hand(params, images_of(), *exact), rtol=1e-3, atol=1e-3)


def entropy_by_hand(params, x, xp, affine):
    logits = by_hand(params, x, xp=xp, scale=affine[0], bias=affine[1])
    logs = logits - xp.log(xp.exp(logits).sum(axis=1))[:, None]
    return -(xp.exp(logs) * logs).sum(axis=1)


def affine_of(params):
    return leaf(params, "norm/scale"), leaf(params, "norm/bias")


def finite_differences(loss, affine, step=1e-6):
    found = []
    for which in (0, 1):
        each = np.zeros(len(affine[which]))
        for i in range(len(each)):
            pair = []
            for sign in (1, -1):
                moved = [one.copy() for one in affine]
                moved[which][i] += sign * step
                pair.append(loss(moved))
            each[i] = (pair[0] - pair[1]) / (2 * step)
        found.append(each)
    return found


def test_a_step_of_tent_is_that_of_finite_differences_and_moves_nothing_else(net, source):
    _, params, _ = net
    x = images_of()
    (found,), adapted = answers(Tent(0.1, "sgd", momentum=0.0), net, source, x)
    np.testing.assert_allclose(found, by_hand(params, x), rtol=2e-4, atol=2e-4)
    gradient = finite_differences(
        lambda affine: entropy_by_hand(params, x, np, affine).mean(), affine_of(params)
    )
    for new, old, one in zip(affine_of(adapted.params), affine_of(params), gradient, strict=True):
        np.testing.assert_allclose(new, old - 0.1 * one, rtol=1e-4, atol=1e-6)
        assert np.abs(new - old).max() > 1e-4
    for name in ("Dense_0", "Dense_1"):
        jax.tree.map(np.testing.assert_array_equal, adapted.params[name], params[name])


def test_tent_by_adam_is_optax_on_the_network_by_hand(net, source):
    _, params, _ = net
    batches = [images_of(seed=s) for s in (1, 2)]
    found, adapted = answers(Tent(0.01), net, source, *batches)
    affine = tuple(jnp.asarray(one, jnp.float32) for one in affine_of(params))
    adam = optax.adam(0.01, b1=0.9)
    state = adam.init(affine)
    for x, logits in zip(batches, found, strict=True):
        expected = by_hand(params, x, xp=jnp, scale=affine[0], bias=affine[1])
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
        loss = lambda a, x=x: entropy_by_hand(params, x, jnp, a).mean()  # noqa: E731
        updates, state = adam.update(jax.grad(loss)(affine), state)
        affine = optax.apply_updates(affine, updates)
    for new, expected in zip(affine_of(adapted.params), affine, strict=True):
        np.testing.assert_allclose(new, expected, rtol=1e-3, atol=1e-4)


def sar_by_hand(params, x, affine, margin, rho, rate):
    """Take one step in float64, and return the new scale and bias and the second loss."""
    limit = margin * np.log(CLASSES)
    sure = entropy_by_hand(params, x, np, affine) < limit

    def mean(which):
        return lambda a: entropy_by_hand(params, x, np, a)[which].mean() if which.any() else 0.0

    first = finite_differences(mean(sure), affine)
    length = np.sqrt(sum((one**2).sum() for one in first)) + 1e-12
    beside = [a + rho * g / length for a, g in zip(affine, first, strict=True)]
    still = sure & (entropy_by_hand(params, x, np, beside) < limit)
    second = finite_differences(mean(still), beside)
    return [a - rate * g for a, g in zip(affine, second, strict=True)], mean(still)(beside), still


def test_a_step_of_sar_is_that_by_hand(net, source):
    _, params, _ = net
    x = images_of(16)
    sar = SAR(0.1, momentum=0.0, margin=0.7, reset_below=0.0)
    expected, loss, still = sar_by_hand(params, x, affine_of(params), 0.7, 0.05, 0.1)
    assert 0 < still.sum() < 16
    (found,), adapted = answers(sar, net, source, x)
    np.testing.assert_allclose(found, by_hand(params, x), rtol=2e-4, atol=2e-4)
    assert float(adapted.memory.average) == pytest.approx(loss, rel=1e-3)
    for new, one in zip(affine_of(adapted.params), expected, strict=True):
        np.testing.assert_allclose(new, one, rtol=1e-4, atol=1e-5)


def test_sar_learns_nothing_from_unsure_answers_and_comes_back_from_a_collapse(net, source):
    _, params, _ = net
    _, adapted = answers(SAR(0.1, margin=1e-6), net, source, images_of())
    jax.tree.map(np.testing.assert_array_equal, adapted.params, params)
    assert np.isnan(adapted.memory.average) and adapted.memory.resets == 0
    always = SAR(0.1, margin=1.0, reset_below=9.0)
    _, adapted = answers(always, net, source, images_of(), images_of(seed=2))
    jax.tree.map(np.testing.assert_array_equal, adapted.params, params)
    assert adapted.memory.resets == 2


def test_sar_and_tent_on_group_norm_take_each_examples_own_moments(source):
    """An answer to an example is then the same in any company, until something is learned."""
    net = trained(GroupNorm(groups=2))
    network, params, state = net
    x = images_of()
    plain, _ = network.apply(params, state, x, train=False)
    for policy in (Tent(), SAR(share=1.0, margin=1.0)):
        (found,), adapted = answers(policy, net, source, x)
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)
        (alone,), _ = answers(policy, net, source, x[:1])
        np.testing.assert_allclose(alone, found[:1], rtol=1e-5, atol=1e-5)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), adapted.params, params)
        changed = {
            jax.tree_util.keystr(p) for p, v in jax.tree_util.tree_leaves_with_path(moved) if v
        }
        assert changed and all("scale" in path or "bias" in path for path in changed)
        assert not any("Dense" in path for path in changed)


def test_sar_leaves_the_top_normalisers_alone(source):
    network = Classifier(MLP(BatchNorm(), classes=CLASSES, widths=(6, 6, 6, 6), activation="relu"))
    params, state = network.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 2, 2, 1), jnp.float32))
    policy = SAR(0.1, margin=1.0, reset_below=0.0)
    _, adapted = answers(policy, (network, params, state), source, images_of(16))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), adapted.params, params)
    assert [any(jax.tree.leaves(moved[f"NormAct_{i}"])) for i in range(4)] == [
        True,
        True,
        True,
        False,
    ]


def test_ttn_mixes_by_the_papers_equations_and_its_weights_come_from_gradients(net, source):
    _, params, state = net
    ttn = TTN(passes=0)
    x = images_of()
    (found,), adapted = answers(ttn, net, source, x)
    ((_, a),) = adapted.memory.items()
    a = np.asarray(a, np.float64)
    assert a.min() == 0 and a.max() == 1
    (mean_t, variance_t), mean_s, variance_s = (
        moments(params, x),
        leaf(state, "mean"),
        leaf(state, "variance"),
    )
    mean = a * mean_t + (1 - a) * mean_s
    variance = a * variance_t + (1 - a) * variance_s + a * (1 - a) * (mean_t - mean_s) ** 2
    np.testing.assert_allclose(found, by_hand(params, x, mean, variance), rtol=1e-3, atol=1e-3)

    from normlab.policies.ttn import augmented

    def gradient(image, label):
        def loss(affine):
            logits = by_hand(params, image[None], leaf(state, "mean"), leaf(state, "variance"),
                             scale=affine[0], bias=affine[1])  # fmt: skip
            return np.log(np.exp(logits[0]).sum()) - logits[0, label]

        return np.stack(finite_differences(loss, affine_of(params)))

    cosines = []
    keys = jax.random.split(source.key, 2)
    for key, images, labels in zip(keys, source.images, source.labels, strict=True):
        for image, other, label in zip(images, augmented(key, images), labels, strict=True):
            one, two = gradient(np.asarray(image), label), gradient(np.asarray(other), label)
            lengths = np.linalg.norm(one, axis=0) * np.linalg.norm(two, axis=0)
            cosines.append(
                np.where(lengths > 0, (one * two).sum(axis=0) / np.maximum(lengths, 1e-30), 1)
            )
    distance = 1 - np.mean(cosines, axis=0)
    prior = ((distance - distance.min()) / np.ptp(distance)) ** 2
    np.testing.assert_allclose(a, prior, atol=5e-3)


def test_ttns_weights_stay_between_0_and_1_and_leave_the_prior_by_learning(net, source):
    (network, params, state) = net
    prior = TTN(passes=0).begin(network, params, state, source).memory
    learned = TTN(passes=3, learning_rate=0.05).begin(network, params, state, source).memory
    ((name, before),), after = prior.items(), learned
    assert (after[name] != before).any() and after[name].min() >= 0 and after[name].max() <= 1
    same = as_prior({"a": jnp.ones(3)})["a"]  # no channel differs from another
    np.testing.assert_array_equal(same, 0)


def test_one_example_of_one_place_keeps_the_stored_statistics(net, source):
    """A batch of one has no variance behind a dense layer, so nothing is adapted, and no NaN."""
    network, params, state = net
    x = images_of(1)
    plain, _ = network.apply(params, state, x, train=False)
    for policy in (TestBatch(), AlphaBN(0.5), TTN(passes=1), Tent(), SAR()):
        (found,), adapted = answers(policy, net, source, x)
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)
        assert all(np.isfinite(one).all() for one in jax.tree.leaves(adapted.params))


def test_a_network_without_what_a_policy_changes_is_told_or_left(source):
    network, params, state = trained(Identity())
    for policy in (Tent(), SAR()):
        with pytest.raises(UserError, match="learns scales and biases of normalisers"):
            policy.begin(network, params, state, source)
    plain, _ = network.apply(params, state, images_of(), train=False)
    for policy in (Stored(), Exact(), TestBatch(), AlphaBN(), TTN()):
        (found,), _ = answers(policy, (network, params, state), source, images_of())
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make, field",
    [(lambda: AlphaBN(1.5), "alpha"), (lambda: Tent(-1.0), "learning_rate"),
     (lambda: TTN(-1.0), "strength"), (lambda: Tent(optimizer="rms"), "optimizer"),
     (lambda: Tent(steps=0), "steps"), (lambda: SAR(share=0.0), "share"),
     (lambda: SAR(margin=0.0), "margin"), (lambda: TestBatch(-1), "prior")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(make, field):
    with pytest.raises(FieldError) as raised:
        make()
    assert raised.value.field == field
