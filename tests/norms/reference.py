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
    if kind == "window":
        corners = np.ndindex(*(-(-side // groups) for side in x.shape[1:-1]))
        return [
            index[(i, *(slice(groups * at, groups * (at + 1)) for at in corner))].ravel()
            for corner in corners
            for i in range(n)
        ]
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


def _valid(x, mask):
    return np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)


def _moments(x, sets, mask=None, weights=None):
    """The mean and biased variance at every element, of the set that it lies in."""
    flat, keep = _wide(x).ravel(), _valid(x, mask).ravel()
    weights = np.ones_like(flat) if weights is None else weights.ravel()
    mean, variance = np.zeros_like(flat), np.zeros_like(flat)
    for one in sets:
        own = one[keep[one]]
        if len(own):
            share = weights[own] / weights[own].sum()
            mean[one] = (share * flat[own]).sum()
            variance[one] = (share * (flat[own] - mean[one][0]) ** 2).sum()
    return mean.reshape(x.shape), variance.reshape(x.shape)


def _channels(x, mask=None, weights=None):
    return _moments(x, element_sets(x, "channel"), mask, weights)


def _frozen(x, norm, params, mask=None):
    return _unchanged(x, norm, params, mask) / np.sqrt(1 + norm.eps)


def _real(z):
    """A statistic through which no gradient goes."""
    return _wide(z.real)


def _renormalised(x, norm, params, mask=None):
    """Renormalise at the first step: the running mean is 0, the running deviation 1."""
    mean, variance = _channels(x, mask)
    deviation = np.sqrt(variance + norm.eps)
    r = np.clip(_real(deviation), 1 / norm.r_max, norm.r_max)
    d = np.clip(_real(mean), -norm.d_max, norm.d_max)
    return (_wide(x) - mean) / deviation * r + d


def _first(x, mask):
    """Running statistics after the first step: the batch's, or 0 and 1 where it has one value."""
    mean, variance = _channels(x, mask)
    several = _valid(x, mask).reshape(-1, x.shape[-1]).sum(axis=0) > 1
    return np.where(several, mean, 0), np.where(several, variance, 1)


def _averaged(x, norm, params, mask=None):
    mean, variance = _first(x, mask)
    return (_wide(x) - mean) / np.sqrt(variance + norm.eps)


def _population(x, norm, params, mask=None):
    mean, variance = _first(x, mask)
    return (_wide(x) - _real(mean)) / np.sqrt(_real(variance) + norm.eps)


def _in_parts(x, norm, params, mask=None):
    parts = np.split(np.arange(x.shape[0]), norm.domains)
    sets = [
        np.ravel(np.arange(x.size).reshape(x.shape)[part][..., c])
        for part in parts
        for c in range(x.shape[-1])
    ]
    return standardise(x, sets, eps=norm.eps, mask=mask)


def _magnitude(z):
    return np.where(z.real < 0, -z, z)


def _by_distance(x, norm, params, mask=None):
    mean, _ = _channels(x, mask)
    distance, _ = _channels(_magnitude(_wide(x) - mean), mask)
    return (_wide(x) - mean) / (np.sqrt(np.pi / 2) * distance + norm.eps)


def _softmax(z):
    e = np.exp(z - z.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _modes(x, norm, params, mask=None):
    z, keep = _unchanged(x, norm, params, mask), _valid(x, mask)
    axes = tuple(range(1, x.ndim - 1))
    pooled = z.sum(axis=axes) / np.maximum(keep.sum(axis=axes), 1)
    gates = _softmax(pooled @ _wide(params["gate"]) + _wide(params["gate_bias"]))
    y = np.zeros_like(z)
    for k in range(norm.modes):
        gate = gates[:, k].reshape(-1, *(1,) * (x.ndim - 1)) + np.zeros_like(z)
        mean, variance = _channels(x, mask, gate)
        y = y + gate * (_wide(x) - mean) / np.sqrt(variance + norm.eps)
    return y


def _batch_instance(x, norm, params, mask=None):
    gate = _wide(params["gate"])
    gate = gate + np.clip(gate.real, 0, 1) - gate.real  # held within [0, 1], its gradient passing
    of_batch, of_instance = (
        standardise(x, element_sets(x, kind), eps=norm.eps, mask=mask)
        for kind in ("channel", "example and channel")
    )
    return gate * of_batch + (1 - gate) * of_instance


def _switchable(x, norm, params, mask=None):
    kinds = ("example and channel", "example", "channel")
    w, v = (_softmax(_wide(params[k])) for k in ("mean_weights", "variance_weights"))
    moments = [_moments(x, element_sets(x, kind), mask) for kind in kinds]
    mean = sum(weight * mean for weight, (mean, _) in zip(w, moments, strict=True))
    variance = sum(weight * variance for weight, (_, variance) in zip(v, moments, strict=True))
    return (_wide(x) - mean) / np.sqrt(variance + norm.eps)


def _over_batch_and_group(x, norm, params, mask=None):
    each = np.split(np.arange(x.size).reshape(x.shape), norm.groups, axis=-1)
    return standardise(x, [group.ravel() for group in each], eps=norm.eps, mask=mask)


def _divisive(x, norm, params, mask=None):
    z, keep, r = _unchanged(x, norm, params, mask), _valid(x, mask), norm.window // 2

    def neighbours(values):
        out = np.zeros((*x.shape[:-1], 1), values.dtype)
        for place in np.ndindex(*x.shape[1:-1]):
            window = tuple(slice(max(0, i - r), i + r + 1) for i in place)
            total = values[(slice(None), *window)].reshape(x.shape[0], -1).sum(axis=1)
            out[(slice(None), *place, 0)] = total
        return out

    count = np.maximum(neighbours(keep.astype(np.float64)), 1)
    v = np.where(keep, z - neighbours(z) / count, 0)
    return v / np.sqrt(_wide(params["sigma"]) ** 2 + neighbours(v**2) / count)


def _local_response(x, norm, params, mask=None):
    z = _unchanged(x, norm, params, mask)
    before, after = norm.size // 2, (norm.size - 1) // 2
    energy = np.zeros_like(z)
    for c in range(x.shape[-1]):
        near = z[..., max(0, c - before) : c + after + 1]
        energy[..., c] = (near**2).sum(axis=-1)
    return z / (norm.k + norm.alpha * energy) ** norm.beta


def _evo_b0(x, norm, params, mask=None):
    _, batch = _channels(x, mask)
    _, instance = _moments(x, element_sets(x, "example and channel"), mask)
    one, other = (
        np.sqrt(batch + norm.eps),
        _wide(params["v"]) * _wide(x) + np.sqrt(instance + norm.eps),
    )
    return _wide(x) / np.where(one.real > other.real, one, other)


def _evo_s0(x, norm, params, mask=None):
    _, group = _moments(x, element_sets(x, "example and group", norm.groups), mask)
    z = _unchanged(x, norm, params, mask)
    sigmoid = (1 + np.tanh(_wide(params["v"]) * z / 2)) / 2
    return z * sigmoid / np.sqrt(group + norm.eps)


def _online(x, norm, params, mask=None):
    z, keep, c = _unchanged(x, norm, params, mask), _valid(x, mask), x.shape[-1]
    scale, bias = (_wide(params.get(k, one)) for k, one in (("scale", 1.0), ("bias", 0.0)))
    mean, variance, out = np.zeros(c), np.ones(c), np.zeros_like(z)
    for i in range(x.shape[0]):
        own, seen = z[i].reshape(-1, c), keep[i].reshape(-1, c)
        out[i] = (z[i] - mean) / np.sqrt(variance + norm.eps) * scale + bias
        out[i] = np.where(keep[i], out[i], 0)
        for k in np.flatnonzero(seen.any(axis=0)):
            values = own[seen[:, k], k].real
            old, m = mean[k], norm.momentum
            mean[k] = m * old + (1 - m) * values.mean()
            spread = m * (1 - m) * (values.mean() - old) ** 2
            variance[k] = m * variance[k] + (1 - m) * values.var() + spread
        out[i] = out[i] / np.sqrt((out[i] ** 2).sum() / max(keep[i].sum(), 1) + norm.eps)
    return out


def _newton(covariance, iterations):
    trace, root = np.trace(covariance), np.eye(len(covariance))
    for _ in range(iterations):
        root = (3 * root - root @ root @ root @ (covariance / trace)) / 2
    return root / np.sqrt(trace)


def _inverse_root(covariance):
    """Compute it by the iteration of Denman & Beavers, which a complex step goes through."""
    y, z = covariance, np.eye(len(covariance))
    for _ in range(40):
        y, z = (y + np.linalg.inv(z)) / 2, (z + np.linalg.inv(y)) / 2
    return z


def _whitened(inverse_root):
    def reference(x, norm, params, mask=None):
        mean, _ = _channels(x, mask)
        keep = _valid(x, mask).reshape(-1, x.shape[-1])
        rows = np.where(keep, (_wide(x) - mean).reshape(-1, x.shape[-1]), 0)
        out = np.zeros_like(rows)
        for start in range(0, x.shape[-1], norm.group_size):
            own = slice(start, start + norm.group_size)
            scaled = rows[:, own] / np.sqrt(np.maximum(keep[:, own].sum(axis=0), 1))
            covariance = scaled.T @ scaled + norm.eps * np.eye(norm.group_size)
            out[:, own] = rows[:, own] @ inverse_root(covariance, norm)
        return out.reshape(x.shape)

    return reference


def _windows(x, norm, params, mask=None):
    return standardise(x, element_sets(x, "window", norm.window), eps=norm.eps, mask=mask)


def _unit_root(x, norm, params, mask=None):
    z = _unchanged(x, norm, params, mask)
    return np.sqrt(x.shape[-1]) * z / np.sqrt(_wide(params["length"]) ** 2 + z**2)


def _rescaled(x, norm, params, mask=None):
    z = standardise(x, element_sets(x, "position"), eps=norm.eps, mask=mask, centre=False)
    products = _unchanged(x, norm, params, mask) * _wide(params["beta"])
    parts = [part.sum(axis=-1, keepdims=True) for part in np.split(products, norm.heads, axis=-1)]
    dynamic = np.repeat(np.tanh(np.concatenate(parts, axis=-1)), x.shape[-1] // norm.heads, axis=-1)
    return (dynamic * _wide(params["alpha"]) + _wide(params["scale"])) * z


def _by_the_first(x, norm, params, mask=None):
    z, k = _unchanged(x, norm, params, mask), int(np.ceil(norm.fraction * x.shape[-1]))
    count = np.maximum(_valid(x, mask)[..., :k].sum(axis=-1, keepdims=True), 1)
    return z / np.sqrt((z[..., :k] ** 2).sum(axis=-1, keepdims=True) / count + norm.eps)


def _less_its_last(x, norm, params, mask=None):
    z, count = _unchanged(x, norm, params, mask), _valid(x, mask).sum(axis=-1, keepdims=True)
    last = -z.sum(axis=-1, keepdims=True)
    square = (z**2).sum(axis=-1, keepdims=True) + last**2
    return z / np.sqrt(square / (count + 1) + norm.eps)


def _progressing(x, norm, params, mask=None):
    layer, batch = (
        standardise(x, element_sets(x, kind), eps=norm.eps, mask=mask)
        for kind in ("position", "channel")
    )
    layer = layer * _wide(params["layer_scale"]) + _wide(params["layer_bias"])
    batch = batch * _wide(params["scale"]) + _wide(params["bias"]) + _wide(params["eta"]) * _wide(x)
    return norm.start * layer + (1 - norm.start) * batch


def _of_first_condition(x, norm, params, mask=None):
    z = standardise(x, element_sets(x, "position"), eps=norm.eps, mask=mask)
    return z * (1 + _wide(params["to_scale"])[0]) + _wide(params["to_bias"])[0]


def _towards_normality(kind: str) -> Reference:
    def reference(x, norm, params, mask=None):
        sets = element_sets(x, kind, getattr(norm, "groups", 1))
        h = standardise(x, sets, eps=norm.eps, mask=mask).ravel()
        keep, out = _valid(x, mask).ravel(), np.zeros_like(h)
        for one in sets:
            one = one[keep[one]]
            if len(one):
                out[one] = _yeo_johnson(h[one], _power(h[one], norm.eps))
        return out.reshape(x.shape)

    return reference


def _yeo_johnson(h, power):
    grown, shrunk = 1 + np.where(h.real < 0, 0, h), 1 - np.where(h.real < 0, h, 0)
    return np.where(
        h.real < 0, -(shrunk ** (2 - power) - 1) / (2 - power), (grown**power - 1) / power
    )


def _power(h, eps):
    """One step of Newton's from 1 on minus the log-likelihood, its derivatives written out."""
    sign = np.where(h.real < 0, -1, 1)
    a = 1 + sign * h
    by_power = a * np.log(a) - a + 1
    twice = sign * (a * np.log(a) ** 2 - 2 * by_power)
    # log of the variance of the transform over 2, less the mean of sign * log a.
    d_variance = 2 * (h * by_power).mean()
    d2_variance = 2 * (h * twice + (by_power - by_power.mean()) ** 2).mean()
    first = d_variance / 2 - (sign * np.log(a)).mean()
    second = (d2_variance - d_variance**2) / 2
    return 1 - first / (second + np.sqrt(eps))


def _by_proxy(x, norm, params, mask=None):
    y = standardise(x, element_sets(x, "example and group", norm.groups), eps=norm.eps, mask=mask)
    scale, bias = _wide(params["scale"]), _wide(params["bias"])
    places = (np.arange(norm.samples) + 0.5) / norm.samples
    normal = special.ndtri(places)[:, None] * (1 + _wide(params["proxy_spread"]))
    proxy = _rectified(scale * (normal + _wide(params["proxy_mean"])) + bias)
    variance = ((proxy - proxy.mean(axis=0)) ** 2).mean(axis=0)
    return (_rectified(scale * y + bias) - proxy.mean(axis=0)) / np.sqrt(variance + norm.proxy_eps)


def _rectified(z):
    return np.where(z.real > 0, z, 0)


REFERENCES: dict[str, Reference] = {
    "adaptive_layer_norm": _of_first_condition,
    "adaptive_layer_norm_zero": _of_first_condition,
    "affine": _unchanged,
    "averaged_batch_norm": _averaged,
    "batch_group_norm": _over_batch_and_group,
    "batch_instance_norm": _batch_instance,
    "batch_norm": _by("channel"),
    "batch_renorm": _renormalised,
    "compressed_rms_norm": _less_its_last,
    "conditional_batch_norm": _by("channel"),
    "debiased_batch_norm": _by("channel"),
    "decorrelated_batch_norm": _whitened(lambda covariance, norm: _inverse_root(covariance)),
    "divisive_norm": _divisive,
    "dynamic_isru": _unit_root,
    "dynamic_erf": _squashed(special.erf),
    "dynamic_tanh": _squashed(np.tanh),
    "evo_norm_b0": _evo_b0,
    "evo_norm_s0": _evo_s0,
    "example_weighted_batch_norm": _by("channel"),
    "filter_response_norm": _by("example and channel", centre=False),
    "frozen_batch_norm": _frozen,
    "global_response_norm": _response,
    "group_norm": _by("example and group"),
    "identity": _unchanged,
    "instance_norm": _by("example and channel"),
    "iterative_norm": _whitened(lambda covariance, norm: _newton(covariance, norm.iterations)),
    "kernel_norm": _windows,
    "l1_batch_norm": _by_distance,
    "layer_norm": _by("position"),
    "layer_norm_image": _by("example"),
    "local_response_norm": _local_response,
    "mode_norm": _modes,
    "moving_average_batch_norm": _by("channel", centre=False),
    "normality_batch_norm": _towards_normality("channel"),
    "normality_group_norm": _towards_normality("example and group"),
    "normality_layer_norm": _towards_normality("position"),
    "online_norm": _online,
    "partial_rms_norm": _by_the_first,
    "population_norm": _population,
    "positional_norm": _by("position"),
    "power_norm": _by("channel", centre=False),
    "progressive_batch_norm": _progressing,
    "proxy_group_norm": _by_proxy,
    "rms_norm": _by("position", centre=False),
    "scale_norm": _length,
    "seed_norm": _rescaled,
    "split_batch_norm": _in_parts,
    "switchable_norm": _switchable,
    "taper_norm": _by("position", centre=False),
}
"""name -> (x, description, parameters, mask) -> the output in training, before scale and bias."""


WHOLE = {"adaptive_layer_norm", "adaptive_layer_norm_zero", "progressive_batch_norm", "online_norm"}
WHOLE |= {"proxy_group_norm"}
"""Those whose reference has applied scale and bias already."""


def expected(name, norm, params, x, mask=None) -> np.ndarray:
    """The output in training, with the scale and bias in `params`."""
    z = REFERENCES[name](x, norm, params, mask)
    if name in WHOLE:
        return z if mask is None else np.where(np.broadcast_to(mask, x.shape), z, 0)
    scale = 1.0 if name == "seed_norm" else per_example(name, params, "scale", 1.0, x)
    y = z * scale + per_example(name, params, "bias", 0.0, x)
    if name == "global_response_norm":
        y = y + _wide(x)
    if "threshold" in params:
        threshold = _wide(params["threshold"]) + np.zeros_like(y)
        y = np.where(y.real > threshold.real, y, threshold)
    return y if mask is None else np.where(np.broadcast_to(mask, x.shape), y, 0)


def per_example(name, params, key, default, x):
    """The scale or bias of each channel; where there are several, of each example too."""
    if f"to_{key}" in params:  # a map of the condition, which is the first
        return _wide(params[f"to_{key}"])[0]
    values = _wide(params.get(key, default))
    if values.ndim < 2:
        return values
    n = x.shape[0]
    which = np.zeros(n, int) if "conditional" in name else np.arange(n) * len(values) // n
    return values[which].reshape(n, *(1,) * (x.ndim - 2), -1)


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
