"""Every model of the catalogue keeps one contract with every normaliser that fits it."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import MODELS, NORMS
from normlab.errors import FieldError, UserError
from normlab.models.slots import NORM_STATE, parameter_role
from normlab.norms import FrozenBatchNorm
from normlab.ops.moments import ShapeError
from tests.shared.thorough import mostly_thorough

SMALL = {
    "mlp": {"widths": (8, 8)},
    "convnet": {"widths": (8, 8), "layers": 1},
    "resnet": {"depth": 8, "width": 8},
    "resnet_v2": {"depth": 8, "width": 8},
    "fixup": {"depth": 8, "width": 8},
    "skipinit": {"depth": 8, "width": 8},
    "normaliser_free": {"depth": 8, "width": 8},
    "speednet": {"widths": (8,)},
    "vit": {"depth": 1, "width": 8, "heads": 2, "mlp_ratio": 2, "qk_norm": "layer_norm"},
    "ngpt": {"depth": 1, "width": 8, "heads": 2, "mlp_ratio": 2},
}
"""Settings that make a model cheap; one that is not here is tested with its own defaults."""

NO_NORM = {"fixup", "normaliser_free", "ngpt"}
"""Models in which only `identity` may stand."""

NO_BIAS = {"ngpt"}
"""Models without any bias, also in the head."""

SOME_NORMS = {"identity", "batch_norm", "instance_norm", "filter_response_norm", "evo_norm_b0"}
"""Enough for models whose slots are those that others are tried with all in."""

FEW = {"convnet", "resnet_v2", "skipinit", "speednet", "vit"}
"""The models that are tried with those: `mlp` and `resnet` have both kinds of slot, with and
without an activation behind, for vectors and for images."""

OWN_NORM = {"fixup", "skipinit", "normaliser_free", "vit", "ngpt"}
"""Models with parameters of the role "norm" whatever stands in the slots."""

CLASSES = 3


def build(model, norm, **settings):
    fields = {**SMALL.get(model, {}), **settings}
    return MODELS.load(model)(norm=NORMS.load(norm)(), classes=CLASSES, **fields)


def usual(model, **settings):
    """Make the model, with batch normalisation if it allows a normaliser."""
    return build(model, "identity" if model in NO_NORM else "batch_norm", **settings)


def images(seed=0, n=4):
    return jax.random.normal(jax.random.key(seed), (n, 8, 8, 3))


@cache
def fits(norm, model):
    """Return whether they fit: some normalisers need several positions, and an MLP has one."""
    if model in NO_NORM and norm != "identity":
        return False
    if model in FEW and norm not in SOME_NORMS:
        return False
    shapes = {"mlp": (4, 8), "vit": (4, 5, 8)}
    x = jnp.ones(shapes.get(model, (4, 2, 2, 8)))
    made = NORMS.load(norm)()
    try:
        jax.eval_shape(lambda: made.apply(*made.init(8), x, train=True))
    except (ShapeError, FieldError):
        return False
    return True


QUICK_NORMS = {"identity", "batch_norm", "evo_norm_b0", "group_norm", "online_norm"}

PAIRS = [(m, n) for m in MODELS.entries() for n in NORMS.entries() if fits(n, m)]
QUICK = [
    (model, norm)
    for model, norm in PAIRS
    if norm in ({"batch_norm", "evo_norm_b0"} if model in FEW else QUICK_NORMS)
]

models = pytest.mark.parametrize("model", MODELS.entries())
few_models = pytest.mark.parametrize(
    "model", mostly_thorough(MODELS.entries(), ["mlp", "resnet", "vit"])
)


def initialised(made, seed=1, start=None):
    """Make variables whose statistics and affine parameters differ from their initial values."""
    variables = start or made.init(jax.random.key(seed), images(), train=False)
    _, moved = made.apply(variables, images(seed + 1) * 2 + 1, train=True, mutable=[NORM_STATE])
    noise = np.random.default_rng(seed)

    def stir(leaf):
        return leaf + jnp.asarray(0.1 * noise.standard_normal(leaf.shape), leaf.dtype)

    return {"params": jax.tree.map(stir, variables["params"]), **moved}


@cache
def usual_variables(model, seed=1):
    return initialised(usual(model), seed)


# Of module scope, so that all tests of one pair run after one another and share what is compiled.
@pytest.fixture(scope="module", params=mostly_thorough(PAIRS, QUICK), ids="-".join)
def pair(request):
    return request.param


@pytest.fixture(scope="module")
def made(pair):
    return build(*pair)


@pytest.fixture(scope="module")
def start(made):
    return made.init(jax.random.key(1), images(), train=False)


@pytest.fixture(scope="module")
def variables(made, start):
    return initialised(made, start=start)


@pytest.fixture(scope="module")
def logits(made, variables):
    """Compute logits of the usual images in evaluation."""
    return made.apply(variables, images(), train=False)


@pytest.fixture(scope="module")
def trained_logits(made, variables):
    """Compute logits of the usual images in training."""
    return made.apply(variables, images(), train=True)


def test_all_pairs_but_those_without_positions_are_here():
    missing = {(m, n) for m in MODELS.entries() for n in NORMS.entries()} - set(PAIRS)
    assert {model for model, _ in missing} <= {"mlp", *FEW, *NO_NORM}
    assert ("mlp", "instance_norm") in missing
    assert {"batch_norm", "identity", "layer_norm"} <= {n for m, n in PAIRS if m == "mlp"}


@pytest.mark.parametrize("dtype", mostly_thorough(["float32", "bfloat16", "float16"], ["bfloat16"]))
def test_params_state_and_logits_are_float32_whatever_the_dtype(pair, dtype):
    made = build(*pair, dtype=dtype)
    variables = jax.eval_shape(lambda: made.init(jax.random.key(0), images(), train=False))
    logits, moved = jax.eval_shape(
        lambda v: made.apply(v, images(), train=True, mutable=[NORM_STATE]), variables
    )
    assert (logits.shape, logits.dtype) == ((4, CLASSES), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, moved))} == {jnp.dtype("float32")}
    assert jax.tree.structure(moved.get(NORM_STATE)) == jax.tree.structure(
        variables.get(NORM_STATE)
    )


@pytest.mark.parametrize("train", [False, True])
def test_logits_are_finite_and_differ_between_examples(logits, trained_logits, train):
    found = trained_logits if train else logits
    assert np.isfinite(found).all()
    assert len(np.unique(np.asarray(found).round(6), axis=0)) == 4


@models
@pytest.mark.parametrize("dtype", mostly_thorough(["bfloat16", "float16"], ["bfloat16"]))
def test_a_narrow_dtype_changes_the_logits_a_little_and_only_that(model, dtype):
    variables = usual_variables(model)
    wide = usual(model).apply(variables, images(), train=False)
    narrow = usual(model, dtype=dtype).apply(variables, images(), train=False)
    assert not np.array_equal(wide, narrow)  # it is really computed in that precision
    np.testing.assert_allclose(narrow, wide, atol=0.1 * float(jnp.abs(wide).max()))


def test_state_moves_only_in_training_and_where_it_is_mutable(made, start):
    other = made.init(jax.random.key(1), images(5) * 9, train=True)
    for old, new in zip(jax.tree.leaves(start), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(old, new)  # init looks at no data, whatever `train` says

    def state_after(train):
        return made.apply(start, images(), train=train, mutable=[NORM_STATE])[1]

    before = jax.tree.leaves(start.get(NORM_STATE, {}))
    for old, new in zip(before, jax.tree.leaves(state_after(train=False)), strict=True):
        np.testing.assert_array_equal(old, new)
    stands_still = isinstance(made.norm, FrozenBatchNorm)
    after = jax.tree_util.tree_leaves_with_path(state_after(train=True))
    for old, (path, new) in zip(before, after, strict=True):
        in_backward = path[-1].key in made.norm.facts.backward_state
        assert np.array_equal(old, new) == (stands_still or in_backward)
    frozen = made.apply(start, images(), train=True)  # not mutable: the logits alone
    assert frozen.shape == (4, CLASSES)


def test_evaluation_sees_one_example_at_a_time(made, variables, logits):
    np.testing.assert_array_equal(logits, made.apply(variables, images(), train=False))
    others = images(7).at[2].set(images()[2]) * jnp.array([9.0, 9, 1, 9]).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(
        made.apply(variables, others, train=False)[2], logits[2], rtol=1e-5, atol=1e-5
    )
    alone = made.apply(variables, images()[2:3], train=False)
    np.testing.assert_allclose(alone[0], logits[2], rtol=1e-5, atol=1e-5)


def test_training_uses_the_batch_just_where_the_facts_say_so(made, variables, trained_logits):
    others = images(7).at[2].set(images()[2])
    same = np.allclose(made.apply(variables, others, train=True)[2], trained_logits[2], atol=1e-4)
    assert same != made.norm.facts.uses_batch


def test_parameters_have_the_role_that_their_place_gives_them(pair, made, variables):
    found = {"weight": 0, "bias": 0, "norm": 0}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        role = parameter_role(path)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        own = {"kernel": "weight", "embedding": "weight", "bias": "bias"}
        assert role == ("norm" if "/norm/" in name else own[name.rpartition("/")[2]])
        assert role == "norm" or (leaf.ndim >= 2) == (role == "weight")
        found[role] += 1
    assert found["weight"] >= 2
    assert (found["bias"] >= 1) == (pair[0] not in NO_BIAS)  # a head has one in any case
    has_own = pair[0] in OWN_NORM
    assert (found["norm"] > 0) == (has_own or bool(made.norm.init(8)[0]))


@models
def test_jit_equals_eager(model):
    made = usual(model)
    variables = usual_variables(model)

    def apply(x):
        return made.apply(variables, x, train=True, mutable=[NORM_STATE])

    for eager, jitted in zip(
        jax.tree.leaves(apply(images())), jax.tree.leaves(jax.jit(apply)(images())), strict=True
    ):
        np.testing.assert_allclose(jitted, eager, rtol=1e-4, atol=1e-4)


def test_init_under_vmap_over_seeds_equals_one_seed_after_another():
    made = build("mlp", "batch_norm")

    @jax.jit
    def init(key):
        return made.init(key, images(), train=False)["params"]["Dense_0"]["kernel"]

    keys = jax.random.split(jax.random.key(3), 3)
    together = jax.jit(jax.vmap(init))(keys)
    assert not np.allclose(together[0], together[1])
    np.testing.assert_allclose(together[1], init(keys[1]), rtol=1e-6)


@few_models
def test_apply_under_vmap_over_seeds_equals_one_seed_after_another(model):
    made = usual(model)
    seeds = [usual_variables(model, seed) for seed in range(2)]

    def apply(variables):
        return made.apply(variables, images(), train=True, mutable=[NORM_STATE])

    together = jax.jit(jax.vmap(apply))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds))
    for batched, alone in zip(
        jax.tree.leaves(together), jax.tree.leaves(apply(seeds[1])), strict=True
    ):
        assert not np.allclose(batched[0], batched[1])
        np.testing.assert_allclose(batched[1], alone, rtol=1e-4, atol=1e-4)


@few_models
def test_remat_has_the_same_gradient_and_every_parameter_gets_one(model):
    made = usual(model)
    variables = usual_variables(model)

    def loss(params):
        logits = made.apply({**variables, "params": params}, images(), train=True)
        return (logits**2).mean()

    @jax.jit
    def gradients(params):
        return jax.grad(loss)(params), jax.grad(jax.checkpoint(loss))(params)

    for one, other in zip(*map(jax.tree.leaves, gradients(variables["params"])), strict=True):
        assert np.isfinite(one).all() and np.abs(one).max() > 0
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", MODELS.entries())
def test_images_with_their_channels_first_are_refused(model):
    network = usual(model)
    for channels in (1, 3):
        image = jax.ShapeDtypeStruct((2, channels, 16, 16), jnp.float32)
        with pytest.raises(UserError, match=r"channels first.*transpose\(0, 2, 3, 1\)"):
            jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
