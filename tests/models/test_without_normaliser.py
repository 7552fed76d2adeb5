"""Fixup, SkipInit and the NF-ResNet keep the promises of their papers at initialisation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, special

from normlab.errors import FieldError, KernelError, UserError
from normlab.models.fixup import Fixup
from normlab.models.normaliser_free import GAINS, NormaliserFree
from normlab.models.resnet import Resnet, ResnetV2
from normlab.models.skipinit import Skipinit
from normlab.models.slots import ACTIVATIONS, parameter_role
from normlab.norms import BatchNorm, Identity, LayerNorm
from normlab.weights.scaled_weight_standardisation import ScaledWeightStandardisation
from tests.shared.thorough import mostly_thorough

LABELS = jnp.arange(8) % 3


def images(n=8, size=8, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, size, size, 3))


def start(made, x, seed=1):
    return jax.jit(lambda: made.init(jax.random.key(seed), x, train=False))()["params"]


def loss(made, params, x):
    logits = jax.nn.log_softmax(made.apply({"params": params}, x, train=True))
    return -logits[jnp.arange(len(x)), LABELS[: len(x)]].mean()


def gradient_norm(made, params, x):
    return optax.tree.norm(jax.grad(lambda p: loss(made, p, x))(params))


def narrow(cls, depth):
    return cls(norm=Identity(), classes=3, depth=depth, width=4)


def with_random_head(params):
    head = jax.random.normal(jax.random.key(9), params["Dense_0"]["kernel"].shape) / 4
    return {**params, "Dense_0": {**params["Dense_0"], "kernel": head}}


@pytest.mark.thorough
def test_fixup_starts_at_zero_logits_and_its_gradient_does_not_know_the_depth():
    x = images()
    norms = {}
    for depth in (8, 56):
        made = narrow(Fixup, depth)
        norm = jax.jit(partial(gradient_norm, made))
        params = start(made, x)
        np.testing.assert_array_equal(
            jax.jit(made.apply, static_argnames="train")({"params": params}, x, train=True), 0
        )
        norms[depth] = norm(params, x), norm(with_random_head(params), x)
    for shallow, deep in zip(norms[8], norms[56], strict=True):
        assert 0.01 < deep < 10
        assert 0.4 < deep / shallow < 2.5


@pytest.mark.thorough
def test_without_a_normaliser_or_fixup_the_gradient_explodes_with_depth():
    x = images()
    shallow, deep = (
        float(jax.jit(partial(gradient_norm, made))(start(made, x), x))
        for made in (narrow(Resnet, 8), narrow(Resnet, 56))
    )
    assert deep > 30 * shallow


@pytest.fixture(scope="module")
def slopes():
    """Fit log |f(after) - f(before)| to log L, for one small step that leaves the head alone.

    Return the slopes with Fixup's kernels and without their scaling, the mean of three seeds.
    """
    x, rate, depths, changes = images(4), 1e-3, (8, 14, 26), []
    for depth in depths:
        made = narrow(Fixup, depth)

        def change(params, factor, made=made, depth=depth):
            first = {f"Conv_{i}" for i in range(1, depth - 1, 2)}
            params = {
                name: jax.tree.map(lambda leaf: factor * leaf, one) if name in first else one
                for name, one in params.items()
            }
            grads = jax.grad(lambda p: loss(made, p, x))(params)
            after = {
                name: jax.tree.map(lambda w, g: w - rate * g, one, grads[name])
                if name.startswith("Conv")
                else one
                for name, one in params.items()
            }
            before, moved = (made.apply({"params": p}, x, train=True) for p in (params, after))
            return jnp.linalg.norm(moved - before) / rate

        change = jax.jit(change)
        seeds = [with_random_head(start(made, x, seed)) for seed in range(3)]
        factors = 1.0, ((depth - 2) / 2) ** 0.5
        changes.append([np.mean([np.log(change(p, f)) for p in seeds]) for f in factors])
    return np.polyfit(np.log([(depth - 2) / 2 for depth in depths]), np.array(changes), 1)[0]


@pytest.mark.thorough
def test_a_step_changes_the_output_as_much_at_any_depth(slopes):
    """Zhang et al. 2019, section 3: every branch gives 1/L of a change that is in proportion to
    the learning rate alone."""
    assert abs(slopes[0]) < 0.2


@pytest.mark.thorough
def test_without_fixups_scaling_a_step_changes_it_in_proportion_to_the_depth(slopes):
    assert 0.8 < slopes[1] < 1.2


def test_fixup_kernels_have_the_papers_spread():
    made = Fixup(norm=Identity(), classes=10, depth=20, width=16)
    params = start(made, images(1, 32))
    for i in range(1, 19):
        kernel = params[f"Conv_{i}"]["kernel"]
        if i % 2:  # the first of a branch: He's sqrt(2 / (9 * out)), times 9 branches to the -1/2
            expected = np.sqrt(2 / (9 * kernel.shape[-1])) / np.sqrt(9)
            np.testing.assert_allclose(kernel.std(), expected, rtol=0.06)
        else:
            np.testing.assert_array_equal(kernel, 0)
    assert not jax.tree.leaves(params["Dense_0"])[0].any()


def test_fixup_equals_torch_in_the_authors_order():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = images(2)
    made = Fixup(norm=Identity(), classes=3, depth=14, width=4)
    noise = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.3 * noise.standard_normal(leaf.shape), jnp.float32),
        start(made, x),
    )

    def tensor(values):
        return torch.tensor(np.asarray(values))

    kernels = iter([tensor(params[f"Conv_{i}"]["kernel"]).permute(3, 2, 0, 1) for i in range(13)])
    shifts = iter([tensor(params[f"Shift_{i}"]["bias"]) for i in range(26)])
    scales = iter([tensor(params[f"Multiplier_{i}"]["norm"]["scale"]) for i in range(6)])

    value = functional.conv2d(tensor(x).permute(0, 3, 1, 2), next(kernels), padding=1)
    value = functional.relu(value + next(shifts))
    for stride in (1, 1, 2, 1, 2, 1):
        moved = value + next(shifts)
        branch = functional.conv2d(moved, next(kernels), stride=stride, padding=1)
        branch = functional.relu(branch + next(shifts)) + next(shifts)
        branch = functional.conv2d(branch, next(kernels), padding=1) * next(scales) + next(shifts)
        if stride == 2:
            pooled = functional.avg_pool2d(moved, 1, stride=2)
            value = torch.cat((pooled, torch.zeros_like(pooled)), 1)
        value = functional.relu(branch + value)
    head = params["Dense_0"]
    expected = (value.mean(dim=(2, 3)) + next(shifts)) @ tensor(head["kernel"])
    expected = expected + tensor(head["bias"])
    found = made.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def sizes(made):
    """Count the parameters of each role, and the scalars."""
    shapes = jax.eval_shape(lambda: made.init(jax.random.key(0), images(1, 32), train=False))
    found = {"weight": 0, "bias": 0, "norm": 0, "single": 0}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"]):
        found["single" if leaf.ndim == 0 else parameter_role(path)] += leaf.size
        if leaf.ndim == 0:
            found[parameter_role(path)] += leaf.size
    return found


def test_counts_and_roles_of_fixups_numbers():
    """They are ResNet-110's convolutions and head, two shifts, and five scalars per branch."""
    convs = 9 * (3 * 16 + 36 * 16**2 + 16 * 32 + 35 * 32**2 + 32 * 64 + 35 * 64**2)
    assert sizes(Fixup(norm=Identity(), classes=10, depth=110)) == {
        "weight": convs + 640,
        "bias": 10 + 4 * 54 + 2,
        "norm": 54,
        "single": 5 * 54 + 2,
    }


@pytest.mark.parametrize("cls", [Skipinit, NormaliserFree])
def test_counts_and_roles_of_the_multipliers(cls):
    """They are those of the pre-activation network without a normaliser, and one per branch."""
    plain = sizes(ResnetV2(norm=Identity(), classes=10, depth=20))
    found = sizes(cls(norm=Identity(), classes=10, depth=20))
    assert found == {**plain, "norm": 9, "single": 9}


@pytest.mark.parametrize("norm", [Identity(), BatchNorm(), LayerNorm()], ids=repr)
def test_skipinit_starts_as_the_identity_of_its_stem(norm):
    """The stem, the two projections and the head are computed by hand, without the branches."""
    x = images(size=9)
    made = Skipinit(norm=norm, classes=3, depth=14, width=4)
    variables = made.init(jax.random.key(0), x, train=False)
    found = made.apply(variables, x, train=False)

    def slot(value):
        params, state = norm.init(value.shape[-1])
        return jax.nn.relu(norm.apply(params, state, value, train=False)[0])

    def conv(name, value, stride, pad):
        return jax.lax.conv_general_dilated(
            value, variables["params"][name]["kernel"], (stride, stride), [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    value = conv("Conv_0", x, 1, 1)
    for name in ("Conv_5", "Conv_10"):  # 1 + 4 before the first; 3 + 2 more before the second
        value = conv(name, slot(value), 2, 0)
    head = variables["params"]["Dense_0"]
    expected = slot(value).mean(axis=(1, 2)) @ head["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


FORMULAS = {
    "relu": lambda z: max(z, 0.0),
    "gelu": lambda z: z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
    "silu": lambda z: z * special.expit(z),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "identity": lambda z: z,
}
PUBLISHED = {"relu": 1.71395886, "gelu": 1.70150435, "silu": 1.78812933, "tanh": 1.59391177,
             "sigmoid": 4.80383539, "identity": 1.0}  # fmt: skip
"""From samples, in the authors' code (deepmind-research, nfnets/base.py)."""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_times_its_gain_has_variance_one(name):
    def mean(f):
        density = lambda z: f(z) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)  # noqa: E731
        return integrate.quad(density, -12, 12, points=[0.0], epsabs=1e-12, limit=200)[0]

    f = FORMULAS[name]
    variance = mean(lambda z: f(z) ** 2) - mean(f) ** 2
    assert GAINS[name] ** 2 * variance == pytest.approx(1, rel=1e-9)
    assert GAINS[name] == pytest.approx(PUBLISHED[name], rel=1e-3)
    z = np.linspace(-4, 4, 9, dtype=np.float32)
    np.testing.assert_allclose(ACTIVATIONS[name](z), [f(one) for one in z], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", mostly_thorough(["relu", "gelu"], ["relu"]))
def test_variance_grows_by_alpha_squared_a_block_and_begins_again_where_the_shape_changes(
    activation,
):
    """Measure it per channel and away from the padding, averaged over channels and seeds."""
    alpha, blocks = 0.5, 3
    made = NormaliserFree(
        norm=Identity(), classes=3, kernel=ScaledWeightStandardisation(), depth=6 * blocks + 2,
        width=16, alpha=alpha, skip_gain=1.0, activation=activation,
    )  # fmt: skip
    act = NormaliserFree._act

    @jax.jit
    def variances(seed):
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NormaliserFree, "_act", lambda self, h: (seen.append(h), act(self, h))[1])
            x = jax.random.normal(jax.random.key(seed), (2, 48, 48, 3))
            made.apply(made.init(jax.random.key(seed + 1), x, train=False), x, train=False)
        entering = seen[len(seen) // 2 :]  # after those of `init`: two a block, one for the head
        inner = [
            h[:, h.shape[1] // 4 : -h.shape[1] // 4, h.shape[1] // 4 : -h.shape[1] // 4]
            for h in entering[::2]
        ]
        return jnp.stack([h.var(axis=(0, 1, 2)).mean() for h in inner])

    found = np.mean([variances(seed) for seed in range(0, 8, 2)], axis=0)
    in_stage = 1 + alpha**2 * np.arange(1, blocks)  # what the second and later blocks see
    betas = np.concatenate([[1], in_stage, *[[1 + alpha**2 * blocks], in_stage] * 2, [1]])
    h = found * betas  # the network divides by what it expects
    expected = np.concatenate(
        [[1], in_stage, *[[1 + alpha**2 * blocks], in_stage] * 2, [1 + alpha**2 * blocks]]
    )
    np.testing.assert_allclose(h, expected, rtol=0.1)
    growth = np.diff(h)[:blocks]
    np.testing.assert_allclose(growth.mean(), alpha**2, rtol=0.1)


@pytest.mark.parametrize("cls", [Fixup, NormaliserFree])
def test_a_model_without_a_normalisers_slot_says_so(cls):
    with pytest.raises(UserError, match="norm must be identity, found BatchNorm"):
        cls(norm=BatchNorm(), classes=3).init(jax.random.key(0), images(1), train=False)


def test_fixup_has_no_kernel_slot():
    made = Fixup(norm=Identity(), classes=3, kernel=ScaledWeightStandardisation())
    with pytest.raises(KernelError, match="kernel must be null"):
        made.init(jax.random.key(0), images(1), train=False)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5])
def test_an_alpha_that_cannot_work_is_named(alpha):
    with pytest.raises(FieldError, match="alpha"):
        NormaliserFree(norm=Identity(), classes=3, alpha=alpha)
