"""The equations of the papers in float64 numpy, one element set at a time, and nothing shared with
normlab's own code: slow, plain, and independent."""

from collections.abc import Callable

import numpy as np

Reference = Callable[..., np.ndarray]


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
    flat = np.asarray(x, np.float64).ravel()
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


def _by(kind: str, centre: bool = True) -> Reference:
    def reference(x, norm, mask=None):
        groups = getattr(norm, "groups", 1)
        return standardise(x, element_sets(x, kind, groups), eps=norm.eps, mask=mask, centre=centre)

    return reference


def _unchanged(x, norm, mask=None):
    x = np.asarray(x, np.float64)
    return x if mask is None else np.where(np.broadcast_to(mask, x.shape), x, 0)


REFERENCES: dict[str, Reference] = {
    "affine": _unchanged,
    "batch_norm": _by("channel"),
    "group_norm": _by("example and group"),
    "identity": _unchanged,
    "instance_norm": _by("example and channel"),
    "layer_norm": _by("position"),
    "layer_norm_image": _by("example"),
    "rms_norm": _by("position", centre=False),
}
"""name -> (x, description, mask) -> the output in training, before scale and bias."""
