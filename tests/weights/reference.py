"""The equations of the papers in float64 numpy, one unit at a time, sharing nothing with normlab.

As in tests/norms/reference.py derivatives come from the same equations by a complex step, so they
are written in functions that numpy has for complex numbers.
"""

from collections.abc import Callable

import numpy as np

from tests.norms.reference import gradient, gradient_along

__all__ = ["expected", "gradient", "gradient_along"]

Reference = Callable[..., np.ndarray]


def wide(values) -> np.ndarray:
    values = np.asarray(values)
    return values if np.iscomplexobj(values) else values.astype(np.float64)


def by_unit(function: Reference) -> Reference:
    """A function of one unit's vector and its gain, for every unit of a kernel."""

    def reference(kernel, transform, params, state):
        columns = wide(kernel).reshape(-1, kernel.shape[-1]).T
        gains = wide(params.get("gain", np.ones(len(columns))))
        out = [function(unit, transform, gain) for unit, gain in zip(columns, gains, strict=True)]
        return np.array(out).T.reshape(kernel.shape)

    return reference


def weight_norm(v, transform, g):
    return g * v / np.sqrt((v**2).sum())


def centred_weight_norm(v, transform, g):
    centred = v - v.sum() / len(v)
    return g * centred / np.sqrt((centred**2).sum())


def weight_standardisation(w, transform, g):
    """Follow the authors' code: torch's `std`, which is unbiased, and eps added to it."""
    centred = w - w.sum() / len(w)
    return centred / (np.sqrt((centred**2).sum() / (len(w) - 1)) + transform.eps)


def scaled_weight_standardisation(w, transform, g):
    """Follow the authors' code: `rsqrt(max(var * fan_in, 1e-4)) * gain`."""
    centred = w - w.sum() / len(w)
    total = (centred**2).sum()
    return g * centred / np.sqrt(total if total.real > 1e-4 else 1e-4)


def spectral_norm(kernel, transform, params, state):
    """The paper's, for given vectors, which the derivative holds fixed."""
    matrix = wide(kernel).reshape(-1, kernel.shape[-1])
    sigma = wide(state["v"]) @ matrix @ wide(state["u"])
    return wide(kernel) / sigma


REFERENCES: dict[str, Reference] = {
    "weight_norm": by_unit(weight_norm),
    "centred_weight_norm": by_unit(centred_weight_norm),
    "weight_standardisation": by_unit(weight_standardisation),
    "scaled_weight_standardisation": by_unit(scaled_weight_standardisation),
    "spectral_norm": spectral_norm,
}
"""name -> (kernel, description, params, state) -> the kernel that is used, in evaluation."""


def expected(name, transform, params, state, kernel) -> np.ndarray:
    return REFERENCES[name](kernel, transform, params, state)
