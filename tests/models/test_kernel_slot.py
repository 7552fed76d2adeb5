"""Every model has a slot for a kernel transform, with its params and state in their place."""

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import KERNELS, MODELS
from normlab.core import kernel_transform
from normlab.models.plain import MLP
from normlab.models.slots import (
    NORM_STATE,
    TRANSFORM,
    conv,
    dense,
    parameter_role,
    pool_norm_states,
    with_backward_state,
)
from normlab.norms import BatchNorm, Identity, LayerNorm, PowerNorm
from normlab.weights import SpectralNorm, WeightNorm, WeightStandardisation
from tests.shared.thorough import mostly_thorough

SMALL = {
    "mlp": {"widths": (8, 8)},
    "convnet": {"widths": (8, 8), "layers": 1},
    "resnet": {"depth": 8, "width": 8},
    "resnet_v2": {"depth": 8, "width": 8},
    "normaliser_free": {"depth": 8, "width": 8},
    "speednet": {"widths": (8,)},
}
IN_PLACE_OF_A_NORMALISER = {"normaliser_free"}
WITHOUT_THE_SLOT = {"fixup", "ngpt"}
"""The check of a config says so: see test_without_normaliser.py."""


@kernel_transform(paper="none: made here")
@dataclass(frozen=True)
class Counted:
    """Doubles a kernel and counts its calls, even in evaluation, which is a deliberate mistake."""

    def init(self, key, kernel):
        return {"twos": jnp.full(kernel.shape[-1:], 2.0)}, {"steps": jnp.zeros((), jnp.float32)}

    def apply(self, params, state, kernel, *, train):
        twos = params["twos"].reshape((1,) * (kernel.ndim - 1) + (-1,))
        return kernel * twos, {"steps": state["steps"] + 1}


def build(model, kernel=None, norm=None, **settings):
    fields = {**SMALL.get(model, {}), **settings}
    norm = Identity() if model in IN_PLACE_OF_A_NORMALISER else norm or LayerNorm()
    return MODELS.load(model)(norm=norm, classes=3, kernel=kernel, **fields)


def images(seed=0):
    noise = np.random.default_rng(seed)
    return jnp.asarray(noise.standard_normal((4, 8, 8, 3)), jnp.float32)


def paths(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def has_own(path):
    return f"/{TRANSFORM}/" in path


models = pytest.mark.parametrize("model", sorted(MODELS.entries().keys() - WITHOUT_THE_SLOT))
small_models = pytest.mark.parametrize("model", ["mlp", "convnet"])


@models
@pytest.mark.parametrize(
    "name", mostly_thorough(KERNELS.entries(), ["weight_standardisation", "spectral_norm"])
)
def test_a_transform_stands_beside_every_kernel_but_the_heads(model, name):
    """Everything else stays as it is without one."""

    def variables(kernel):
        made = build(model, kernel)
        return jax.eval_shape(lambda: made.init(jax.random.key(0), images(), train=False))

    transform = KERNELS.load(name)()
    without, found = variables(None)["params"], variables(transform)
    params, state = paths(found["params"]), paths(found.get(NORM_STATE, {}))
    assert {k: v for k, v in params.items() if not has_own(k)} == paths(without)

    kernels = [path.removesuffix("kernel") for path in paths(without) if path.endswith("/kernel")]
    assert len(kernels) >= 3
    # The head is the last of the outermost dense layers, and nothing transforms it.
    head = max((k for k in kernels if re.fullmatch(r"Dense_\d+/", k)), key=lambda k: int(k[6:-1]))
    own = transform.init(jax.random.key(0), jnp.ones((3, 4)))
    for tree, part in zip((params, state), own, strict=True):
        places = {path.partition("Kernel_0/")[0] for path in tree if has_own(path)}
        assert places == ({k for k in kernels if k != head} if part else set())


@small_models
def test_a_kernel_is_initialised_as_without_a_transform_and_no_image_enters(model):
    plain = build(model).init(jax.random.key(1), images(), train=False)
    made = build(model, SpectralNorm())
    first = made.init(jax.random.key(1), images(), train=True)
    jax.tree.map(np.testing.assert_array_equal, first["params"], plain["params"])
    other = made.init(jax.random.key(1), images(5) * 9, train=False)
    jax.tree.map(np.testing.assert_array_equal, first, other)
    again = made.init(jax.random.key(2), images(), train=False)
    u = paths(first[NORM_STATE])
    assert not np.array_equal(*(next(iter(paths(v[NORM_STATE]).values())) for v in (first, again)))
    assert len({np.asarray(leaf).tobytes() for leaf in u.values()}) == len(u)  # none like another


@models
def test_any_state_moves_once_a_training_step_and_at_no_other_time(model):
    made = build(model, Counted(), norm=BatchNorm())
    variables = made.init(jax.random.key(0), images(), train=True)

    @jax.jit
    def step(variables):
        return made.apply(variables, images(), train=True, mutable=[NORM_STATE])[1]

    for _ in range(2):
        moved = step(variables)
        variables = {**variables, **moved}
    _, same = made.apply(variables, images(), train=False, mutable=[NORM_STATE])
    jax.tree.map(np.testing.assert_array_equal, same, moved)
    own = {path: leaf for path, leaf in paths(moved).items() if has_own(path)}
    assert own and all(leaf == 2 for leaf in own.values())
    frozen = jax.eval_shape(lambda: made.apply(variables, images(), train=True))
    assert frozen.shape == (4, 3)  # not mutable: the logits alone


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (lambda kernel: conv(Identity(), 5, 3, 2, "float32", transform=kernel, train=True), (3, 3)),
        (lambda kernel: dense(Identity(), 5, "float32", transform=kernel, train=True), ()),
    ],
    ids=["conv", "dense"],
)
def test_the_kernel_that_is_used_is_the_transforms(layer, size):
    x, doubled, plain = images(), layer(Counted()), layer(None)
    variables = doubled.init(jax.random.key(0), x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    assert kernel.shape == (*size, 3, 5)
    wanted = plain.apply({"params": {"kernel": 2 * kernel, "bias": bias}}, x)
    np.testing.assert_array_equal(doubled.apply(variables, x), wanted)


def test_the_transform_works_in_float32_in_a_network_of_bfloat16():
    seen = []

    @kernel_transform(paper="none: made here")
    @dataclass(frozen=True)
    class Looks:
        def init(self, key, kernel):
            return {}, {}

        def apply(self, params, state, kernel, *, train):
            seen.append(kernel.dtype)
            return kernel, state

    made = build("convnet", Looks(), dtype="bfloat16")
    jax.eval_shape(lambda: made.init_with_output(jax.random.key(0), images(), train=True))
    assert set(seen) == {jnp.dtype("float32")} and len(seen) == 2


@small_models
def test_every_parameter_of_a_transform_gets_a_gradient_and_is_no_weight(model):
    made = build(model, WeightNorm())
    variables = made.init(jax.random.key(0), images(), train=False)

    @jax.jit
    def gradients(params):
        return jax.grad(lambda p: (made.apply({"params": p}, images(), train=True) ** 2).mean())(
            params
        )

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(variables["params"])):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        role = parameter_role(path)
        assert np.abs(leaf).max() > 0, name
        if has_own(name):
            assert role == "norm"
        else:
            assert (role == "weight") == name.endswith("kernel")


def test_microbatches_leave_the_state_that_one_of_them_leaves():
    three = jnp.array([[0.1], [0.1], [0.1]])  # whose mean is not 0.1 in floating point
    states = {
        "Conv_0": {"Kernel_0": {TRANSFORM: {"u": three}}},
        "NormAct_0": {"Norm_0": {"norm": {"mean": jnp.array([[0.0], [1.0], [2.0]]),
                                          "variance": jnp.ones((3, 1))}}},
    }  # fmt: skip
    pooled = pool_norm_states(BatchNorm(momentum=0.0), states)
    assert pooled["Conv_0"]["Kernel_0"][TRANSFORM]["u"] == three[0]
    mean = pooled["NormAct_0"]["Norm_0"]["norm"]["mean"]
    assert mean.tolist() == [1.0]


def test_a_normaliser_with_a_backward_state_leaves_the_transforms_state_alone():
    norm = PowerNorm(warm_up=0)
    made = MLP(norm=norm, classes=3, widths=(4,), kernel=SpectralNorm())
    variables = made.init(jax.random.key(0), images(), train=False)
    state = variables[NORM_STATE]
    gradient = jax.tree.map(lambda leaf: leaf + 7, state)
    found = with_backward_state(norm, state, gradient)
    own = paths(found)
    moved = {path for path, leaf in paths(state).items() if not np.array_equal(leaf, own[path])}
    assert moved and not any(map(has_own, moved))


def test_a_model_under_vmap_over_seeds_is_one_seed_after_another():
    made = build("convnet", SpectralNorm(), norm=BatchNorm())
    seeds = [made.init(jax.random.key(s), images(), train=False) for s in range(2)]

    def apply(variables):
        return made.apply(variables, images(), train=True, mutable=[NORM_STATE])

    together = jax.jit(jax.vmap(apply))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds))
    alone = jax.jit(apply)(seeds[1])
    for batched, one in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(batched[1], one, rtol=1e-3, atol=1e-3)


def test_recomputation_changes_no_gradient():
    made = build("convnet", WeightStandardisation())
    variables = made.init(jax.random.key(0), images(), train=False)

    def loss(params):
        return (made.apply({"params": params}, images(), train=True) ** 2).mean()

    one, other = jax.jit(lambda p: (jax.grad(loss)(p), jax.grad(jax.checkpoint(loss))(p)))(
        variables["params"]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, other)
