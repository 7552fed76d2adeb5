"""Each layer of each dialect gives what the library's gives: values, gradients, running statistics.

Live where the library is installed, and everywhere from the numbers that it gave
(tests/peers/goldens/dialects.npz; `python -m tests.peers.dialects` makes them).
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.catalogue import NORMS, snake_case
from normlab.dialects.library import DIALECTS, dialect
from normlab.errors import FieldError, UserError
from tests.peers import goldens
from tests.peers.dialects import CASES, KERNELS, affine, batches, kernel, plain
from tests.peers.layers import through_jax

NEEDS = {"timm": "timm", "torch": "torch", "flax": "flax"}


def ours(case):
    """The dialect's description over the same batches, statistics in the library's form."""
    norm = getattr(dialect(case.dialect), case.normaliser)(**case.arguments)
    params, state = norm.init(4)
    given = {key: jnp.asarray(value) for key, value in affine().items()}
    params = {key: given.get(key, leaf) for key, leaf in params.items()}

    def step(params, state, x, train):
        return norm.apply(params, state, x, train=train)

    found = through_jax(step, state, params, batches(), lambda state: state)
    if case.converted is not None:
        states = {key: found[key] for key in state}
        each = [
            case.converted({key: leaf[i] for key, leaf in states.items()}, i + 1)
            for i in range(len(found["y"]))
        ]
        found |= {key: np.stack([one[key] for one in each]) for key in each[0]}
    return found


def compare(case, theirs):
    found = ours(case)
    alike = case.converted in (None, plain)
    for key, wanted in theirs.items():
        if key == "evaluated" and not alike:
            continue  # by statistics that ours must be converted to, which are compared
        size = np.abs(wanted).max()
        error = np.abs(np.asarray(found[key], np.float64) - wanted).max() / size
        assert error < 2e-5, f"{case.name}: {key} is off by {error:.1e} of {size:.3g}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_dialect_s_layer_is_what_the_library_gave(case):
    arrays = goldens.load("dialects")
    prefix = f"{case.name}/"
    compare(case, {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_dialect_s_layer_is_the_installed_library_s(case):
    pytest.importorskip(NEEDS.get(case.dialect, case.dialect))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = case.run(batches(), **affine())
    compare(case, theirs)


def compare_kernel(name, transform, theirs):
    ours = getattr(dialect(name), transform)()
    given, dy = map(jnp.asarray, kernel())
    params, state = ours.init(jax.random.key(0), given)
    used, vjp = jax.vjp(lambda k: ours.apply(params, state, k, train=True)[0], given)
    for key, found in {"kernel": used, "gradient": vjp(dy)[0]}.items():
        size = np.abs(theirs[key]).max((0, 1, 2))  # of each unit
        error = (np.abs(np.asarray(found) - theirs[key]).max((0, 1, 2)) / size).max()
        assert error < 2e-5, f"{name} {transform}: {key} is off by {error:.1e}"


@pytest.mark.parametrize(
    ("name", "transform", "run"), KERNELS, ids=[f"{a} {b}" for a, b, _ in KERNELS]
)
def test_a_dialect_s_kernel_transform_is_the_library_s(name, transform, run):
    prefix, arrays = f"{name} {transform}/", goldens.load("dialects")
    compare_kernel(name, transform, {k: arrays[prefix + k] for k in ("kernel", "gradient")})
    if name == "flax" or (importlib.util.find_spec("timm") and importlib.util.find_spec("torch")):
        with jax.numpy_rank_promotion("allow"):
            theirs = run(*kernel())
        compare_kernel(name, transform, theirs)


def test_the_table_has_every_layer_of_every_dialect():
    written = {(name, layer) for name, spoken in DIALECTS.items() for layer in spoken.layers}
    table = {(case.dialect, case.normaliser) for case in CASES}
    assert table | {(name, transform) for name, transform, _ in KERNELS} == written


def test_the_golden_file_is_small_and_names_what_made_it():
    assert (goldens.FOLDER / "dialects.npz").stat().st_size < 300_000
    assert {"torch", "timm", "flax", "dm-haiku", "equinox", "keras"} <= set(
        goldens.versions("dialects")
    )


@pytest.mark.parametrize("name", DIALECTS)
def test_every_layer_is_an_entry_of_the_catalogue_with_these_fields(name):
    for normaliser, layer in DIALECTS[name].layers.items():
        needed = {"groups": 4, "momentum": 0.9}
        given = {key: needed[key] for key in layer.required}
        norm = getattr(dialect(name), normaliser)(**given)
        assert snake_case(type(norm).__name__) == (layer.entry or normaliser)
        fields = type(norm).__dataclass_fields__
        assert {*layer.arguments, *layer.defaults} <= set(fields)


def test_a_dialect_is_spoken_in_python_as_in_a_config():
    assert repr(dialect("torch").batch_norm(momentum=0.3)) == repr(
        NORMS.load("batch_norm")(momentum=0.7, unbiased_running_variance=True)
    )
    with pytest.raises(UserError, match="did you mean 'keras'"):
        dialect("kears")
    with pytest.raises(AttributeError):
        dialect("keras").instance_norm()
    with pytest.raises(FieldError, match="no default for 'groups'"):
        dialect("torch").group_norm()
    assert "layer_norm" in dir(dialect("haiku"))
