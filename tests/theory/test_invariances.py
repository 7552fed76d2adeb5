"""A normalised layer is invariant to certain changes of its weights and its data.

tests/norms/test_contract.py tests the invariances of each normaliser of the catalogue to changes of
its input. tests/norms/test_properties.py tests f(c w) = f(w), <w, gradient> = 0 and gradient(c w) =
gradient(w) / c for a layer before it, and tests/weights/test_properties.py for kernel transforms.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from normlab.norms.batch import batch_norm
from normlab.norms.layer import layer_norm
from normlab.norms.rms import rms_norm
from normlab.weights import WeightStandardisation
from normlab.weights.weight_norm import weight_norm

CASES, INPUTS, UNITS = 6, 5, 4
X, W, OFFSETS = (
    np.random.default_rng(seed).standard_normal(size)
    for seed, size in enumerate([(CASES, INPUTS), (INPUTS, UNITS), INPUTS])
)
FIRST_CASE, FIRST_UNIT = np.eye(CASES)[:, :1], np.eye(UNITS)[:1]

LAYERS = {
    "batch norm": lambda x, w: batch_norm(x @ w, eps=1e-12),
    "weight norm": lambda x, w: x @ weight_norm(w, jnp.arange(1.0, 1 + UNITS)),
    "layer norm": lambda x, w: layer_norm(x @ w, eps=1e-12),
    "RMS norm": lambda x, w: rms_norm(x @ w, eps=1e-12),
}
CHANGES = {
    "weight matrix re-scaling": (X, 3 * W),
    "weight matrix re-centering": (X, W + OFFSETS[:, None]),
    "weight vector re-scaling": (X, W * (1 + 2 * FIRST_UNIT)),
    "dataset re-scaling": (3 * X, W),
    "dataset re-centering": (X + OFFSETS, W),
    "single training case re-scaling": (X * (1 + 2 * FIRST_CASE), W),
}
INVARIANT = {  # to the changes above, in their order
    "batch norm": (True, False, True, True, True, False),
    "weight norm": (True, False, True, False, False, False),
    "layer norm": (True, True, False, True, False, True),
    "RMS norm": (True, False, False, True, False, True),
}
TABLE = [
    pytest.param(layer, change, blind, id=f"{layer}, {change}")
    for layer, row in INVARIANT.items()
    for change, blind in zip(CHANGES, row, strict=True)
]


@pytest.mark.parametrize(("layer", "change", "blind"), TABLE)
def test_a_layer_is_blind_to_just_the_changes_of_the_papers_table(layer, change, blind):
    """Zhang & Sennrich 2019 (arXiv:1910.07467), table 1, also in the authors' README; the rows but
    pRMSNorm's. Re-centering adds one vector to the weights of every unit, or to every example."""
    run = jax.jit(LAYERS[layer])
    before, after = (
        np.asarray(run(*(values.astype(np.float32) for values in pair)))
        for pair in ((X, W), CHANGES[change])
    )
    if blind:
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    else:
        assert np.abs(after - before).max() > 0.3


@pytest.mark.parametrize("unbiased", [False, True])
def test_weight_standardisation_makes_the_gradient_shorter_by_what_it_projects_out(unbiased):
    """Qiao et al. 2019 (arXiv:1903.10520), section 3.2: times the deviation, the squared norm of a
    unit's gradient is that with respect to the standardised kernel less its parts along the kernel
    and along ones; so it is never longer."""
    transform = WeightStandardisation(unbiased=unbiased, eps=1e-9)
    w, towards = W - 0.3, np.cos(W)

    @jax.jit
    def used_and_gradient(kernel, dy):
        used, pull = jax.vjp(lambda k: transform.apply({}, {}, k, train=True)[0], kernel)
        return used, pull(dy)[0]

    found = used_and_gradient(w.astype(np.float32), towards.astype(np.float32))
    used, gradient = (np.asarray(values, np.float64) for values in found)
    squares = (gradient**2).sum(axis=0)
    wide, deviation = (towards**2).sum(axis=0), w.std(axis=0, ddof=int(unbiased))
    along = (towards * used).sum(axis=0) ** 2 / (used**2).sum(axis=0)
    ones = towards.sum(axis=0) ** 2 / len(w)
    np.testing.assert_allclose(deviation**2 * squares, wide - along - ones, rtol=1e-4)
    assert (deviation * np.sqrt(squares) < np.sqrt(wide)).all()
