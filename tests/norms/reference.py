"""The equations of the papers in float64 numpy, one element set at a time, and nothing shared with
normlab's own code: slow, plain, and independent.

Derivatives come from the same equations by a complex step, f(x + ih) = f(x) + ih f'(x): there is no
difference to cancel, so they too are exact to float64. An equation must therefore be written in
functions that numpy has for complex numbers; a new entry needs nothing else.
"""

from collections.abc import Callable

import numpy as np
from scipy import special

Reference = Callable[..., np.ndarray]
STEP = 1e-30


def element_sets(x: np.ndarray, kind: str, groups: int = 1) -> list[np.ndarray]:
    """Index arrays of the elements that share statistics, for channels-last `(N, ..., C)`."""
    index = np.arange(x.size).reshape(x.shape)
    n, c = x.shape[0], x.shape[-1]
    if kind == "channel":
        return [index[..., k].ravel() for k in range(c)]
    if kind == "example":
        return [index[i].ravel() for i in range(n)]
    if kind == "example and channel":
        return [index[i, ..., k].ravel() for i in range(n) for k in range(c)]
    if kind == "example and group":
        size = c // groups
        starts = range(0, c, size)
        return [index[i, ..., s : s + size].ravel() for i in range(n) for s in starts]
    if kind == "position":
        return list(index.reshape(-1, c))
    raise ValueError(kind)


def standardise(x, sets, *, eps, mask=None, centre=True) -> np.ndarray:
    flat = _wide(x).ravel()
    keep = np.ones(flat.shape, bool) if mask is None else np.broadcast_to(mask, x.shape).ravel()
    out = np.zeros_like(flat)
    for one in sets:
        one = one[keep[one]]
        if len(one) == 0:
            continue
        values = flat[one]
        offset = values.mean() if centre else 0.0
        out[one] = (values - offset) / np.sqrt(((values - offset) ** 2).mean() + eps)
    return out.reshape(x.shape)


def standardise_gradient(x, dy, sets, *, eps, centre=True) -> np.ndarray:
    """The closed form of the same: what is left of `dy` along the mean and along the output."""
    flat_x, flat_dy = _wide(x).ravel(), _wide(dy).ravel()
    flat_z = standardise(x, sets, eps=eps, centre=centre).ravel()
    out = np.zeros_like(flat_x)
    for one in sets:
        d, z, values = flat_dy[one], flat_z[one], flat_x[one]
        offset = values.mean() if centre else 0.0
        across = d - z * (d * z).mean() - (d.mean() if centre else 0.0)
        out[one] = across / np.sqrt(((values - offset) ** 2).mean() + eps)
    return out.reshape(x.shape)


def _wide(x) -> np.ndarray:
    x = np.asarray(x)
    return x if np.iscomplexobj(x) else x.astype(np.float64)


def _by(kind: str, centre: bool = True) -> Reference:
    def reference(x, norm, params, mask=None):
        groups = getattr(norm, "groups", 1)
        return standardise(x, element_sets(x, kind, groups), eps=norm.eps, mask=mask, centre=centre)

    return reference


def _squashed(function: Callable) -> Reference:
    def reference(x, norm, params, mask=None):
        return function(_wide(params["alpha"]) * _wide(x) + _wide(params.get("shift", 0.0)))

    return reference


def _length(x, norm, params, mask=None):
    z = _wide(x) if mask is None else np.where(np.broadcast_to(mask, x.shape), _wide(x), 0)
    length = np.sqrt((z**2).sum(axis=-1, keepdims=True))
    return z / np.where(length.real > norm.eps, length, norm.eps)


def _response(x, norm, params, mask=None):
    z = _wide(x) if mask is None else np.where(np.broadcast_to(mask, x.shape), _wide(x), 0)
    length = np.sqrt((z**2).sum(axis=tuple(range(1, z.ndim - 1)), keepdims=True))
    return z * length / (length.mean(axis=-1, keepdims=True) + norm.eps)


def _unchanged(x, norm, params, mask=None):
    return _wide(x) if mask is None else np.where(np.broadcast_to(mask, x.shape), _wide(x), 0)


REFERENCES: dict[str, Reference] = {
    "affine": _unchanged,
    "batch_norm": _by("channel"),
    "dynamic_erf": _squashed(special.erf),
    "dynamic_tanh": _squashed(np.tanh),
    "filter_response_norm": _by("example and channel", centre=False),
    "global_response_norm": _response,
    "group_norm": _by("example and group"),
    "identity": _unchanged,
    "instance_norm": _by("example and channel"),
    "layer_norm": _by("position"),
    "layer_norm_image": _by("example"),
    "rms_norm": _by("position", centre=False),
    "scale_norm": _length,
}
"""name -> (x, description, parameters, mask) -> the output in training, before scale and bias."""


def expected(name, norm, params, x, mask=None) -> np.ndarray:
    """The output in training, with the scale and bias in `params`."""
    z = REFERENCES[name](x, norm, params, mask)
    y = z * _wide(params.get("scale", 1.0)) + _wide(params.get("bias", 0.0))
    if name == "global_response_norm":
        y = y + _wide(x)
    if "threshold" in params:
        threshold = _wide(params["threshold"]) + np.zeros_like(y)
        y = np.where(y.real > threshold.real, y, threshold)
    return y if mask is None else np.where(np.broadcast_to(mask, x.shape), y, 0)


def gradient(loss: Callable, tree: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """d `loss` / d every element of every array of `tree`, one complex step each."""

    def slope(name, place):
        moved = {key: np.array(leaf, np.complex128) for key, leaf in tree.items()}
        moved[name].flat[place] += STEP * 1j
        return loss(moved).imag / STEP

    return {
        name: np.array([slope(name, i) for i in range(leaf.size)]).reshape(leaf.shape)
        for name, leaf in tree.items()
    }


def gradient_along(loss: Callable, x: np.ndarray, v: np.ndarray, h: float = 1e-4) -> np.ndarray:
    """The Hessian of `loss` at `x` times `v`: how its gradient changes along `v`."""
    ahead, behind = (
        gradient(lambda t: loss(t["x"]), {"x": x.astype(np.float64) + s * v})["x"] for s in (h, -h)
    )
    return (ahead - behind) / (2 * h)
