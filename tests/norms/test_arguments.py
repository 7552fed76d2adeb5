"""Functions check what they are given as the classes do, and say how to mend it."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import normlab
from normlab.errors import AxisError, FieldError, ShapeError, UserError
from normlab.norms import BatchNorm, EvoNormB0, PowerNorm
from normlab.norms.batch import batch_norm
from normlab.norms.batch_renorm import batch_renorm
from normlab.norms.compressed_rms import compressed_rms_norm
from normlab.norms.divisive import divisive_norm
from normlab.norms.dynamic import dynamic_erf, dynamic_tanh
from normlab.norms.dynamic_isru import dynamic_isru
from normlab.norms.filter_response import filter_response_norm
from normlab.norms.global_response import global_response_norm
from normlab.norms.group import group_norm
from normlab.norms.instance import instance_norm
from normlab.norms.kernel import kernel_norm
from normlab.norms.layer import layer_norm, layer_norm_image
from normlab.norms.local_response import local_response_norm
from normlab.norms.partial_rms import partial_rms_norm
from normlab.norms.positional import positional_norm
from normlab.norms.rms import rms_norm
from normlab.norms.scale import scale_norm
from normlab.norms.seed_norm import seed_norm

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 5, 8)), jnp.float32)
ONES = jnp.ones(8)
FUNCTIONS = {
    "batch_norm": batch_norm,
    "batch_renorm": partial(batch_renorm, mean=ONES, deviation=ONES),
    "compressed_rms_norm": compressed_rms_norm,
    "divisive_norm": divisive_norm,
    "dynamic_erf": dynamic_erf,
    "dynamic_tanh": dynamic_tanh,
    "dynamic_isru": dynamic_isru,
    "filter_response_norm": filter_response_norm,
    "global_response_norm": global_response_norm,
    "group_norm": partial(group_norm, groups=2),
    "instance_norm": instance_norm,
    "kernel_norm": kernel_norm,
    "layer_norm": layer_norm,
    "layer_norm_image": layer_norm_image,
    "local_response_norm": local_response_norm,
    "partial_rms_norm": partial_rms_norm,
    "positional_norm": positional_norm,
    "rms_norm": rms_norm,
    "scale_norm": scale_norm,
    "seed_norm": partial(seed_norm, beta=ONES),
}


def takes(argument):
    return [n for n, f in FUNCTIONS.items() if argument in inspect.signature(f).parameters]


def test_every_function_that_a_notebook_imports_is_here():
    exported = {n for n in dir(normlab) if n.endswith("_norm") or n.startswith("dynamic_")}
    of_kernels = {"centred_weight_norm", "spectral_norm", "weight_norm"}
    assert exported - of_kernels <= set(FUNCTIONS)


@pytest.mark.parametrize("eps", [0.0, -1e-5, np.nan, np.inf, 1e-39, "small", None])
@pytest.mark.parametrize("name", takes("eps"))
def test_an_eps_that_cannot_work_is_named(name, eps):
    with pytest.raises(FieldError, match="eps must be a positive number"):
        FUNCTIONS[name](X, eps=eps)


@pytest.mark.parametrize("argument", ["scale", "bias"])
@pytest.mark.parametrize("wrong", [np.ones(5), np.ones((1, 8)), 2.0], ids=["5", "1x8", "number"])
def test_a_scale_or_bias_of_another_shape_is_named(argument, wrong):
    for name in takes(argument):
        if name == "scale_norm":  # whose scale is one number
            continue
        with pytest.raises(ShapeError, match=f"{argument} has shape"):
            FUNCTIONS[name](X, **{argument: wrong})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_whole_numbers_are_refused(name):
    with pytest.raises(ShapeError, match="floating"):
        FUNCTIONS[name](X.astype(jnp.int32))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: group_norm(X, groups=0), "groups"),
        (lambda: group_norm(X, groups=3), "groups"),
        (lambda: group_norm(X, groups=-2), "groups"),
        (lambda: group_norm(X, groups=2.0), "groups"),  # type: ignore[arg-type]
        (lambda: batch_norm(X, norm_batch=0), "norm_batch"),
        (lambda: batch_norm(X, norm_batch=-4), "norm_batch"),
        (lambda: batch_renorm(X, mean=ONES, deviation=ONES, r_max=0.5), "r_max"),
        (lambda: batch_renorm(X, mean=ONES, deviation=ONES, d_max=-1.0), "d_max"),
        (lambda: divisive_norm(X, window=2), "window"),
        (lambda: kernel_norm(X, window=0), "window"),
        (lambda: partial_rms_norm(X, fraction=0.0), "fraction"),
        (lambda: seed_norm(X, heads=3), "heads"),
        (lambda: divisive_norm(X, sigma=0.0), "sigma"),
        (lambda: local_response_norm(X, size=0), "size"),
        (lambda: local_response_norm(X, k=0.0), "k"),
        (lambda: local_response_norm(X, beta=-1.0), "beta"),
    ],
)
def test_a_number_that_cannot_work_is_named(call, field):
    with pytest.raises(FieldError, match=field) as error:
        call()
    assert error.value.field == field


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: batch_norm(X, mean=jnp.zeros(1), variance=ONES), "mean has shape"),
        (lambda: batch_norm(X, mean=ONES, variance=jnp.ones((2, 4))), "variance has shape"),
        (lambda: batch_renorm(X, mean=jnp.zeros(2), deviation=ONES), "mean has shape"),
        (lambda: filter_response_norm(X, threshold=jnp.zeros(2)), "threshold has shape"),
        (lambda: scale_norm(X, ONES), "scale is one number"),
        (lambda: dynamic_tanh(X, alpha=ONES), "alpha is one number"),
        (lambda: dynamic_erf(X, shift=ONES), "shift is one number"),
        (lambda: divisive_norm(X, sigma=ONES), "sigma is one number"),
    ],
)
def test_an_argument_of_another_shape_is_named(call, said):
    with pytest.raises(ShapeError, match=said):
        call()


GHOSTS = partial(BatchNorm, norm_batch=2)


@pytest.mark.parametrize("kind", [BatchNorm, EvoNormB0, PowerNorm, GHOSTS])
def test_an_axis_that_is_not_mapped_is_named(kind):
    norm = kind(axis_name="devices")
    params, state = norm.init(8)
    with pytest.raises(AxisError, match="'devices' is no mapped axis"):
        norm.apply(params, state, X, train=True)
    with pytest.raises(UserError, match="leave axis_name out"):
        batch_norm(X, axis_name="devices")
    step = jax.vmap(lambda x: norm.apply(params, state, x, train=True), axis_name="devices")
    assert step(X[None])[0].shape == (1, *X.shape)
